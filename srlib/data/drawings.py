"""Anime-like line art drawn by a program, so that the embedded set needs nobody's artwork."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

_SUPER = 4  # drawn this many times larger and downscaled, so that lines are smooth
_Colour = Sequence[int] | np.ndarray
_SKIN = [(255, 226, 205), (248, 208, 180), (233, 184, 150), (196, 140, 105)]
_HAIR = [
    (38, 34, 48),
    (122, 70, 42),
    (236, 196, 92),
    (196, 62, 74),
    (84, 112, 196),
    (150, 214, 190),
    (222, 222, 232),
]


def draw(seed: int, height: int = 384, width: int = 384) -> np.ndarray:
    """A drawing, (height, width, 3) uint8; the same seed gives the same one.

    Flat and graded colours, dark outlines of varied width, hair as bundles of curves, eyes, folds, hatching, screen
    tone.
    """
    rng = np.random.default_rng([seed, 20])
    canvas = _Canvas(rng, height, width)
    _background(canvas)
    _figure(canvas)
    return np.asarray(canvas.image.resize((width, height), Image.Resampling.BOX))


class _Canvas:
    """A picture in units of its smaller side: (0, 0) is the top left corner, lines have round ends."""

    def __init__(self, rng: np.random.Generator, height: int, width: int):
        self.rng = rng
        self.unit = min(height, width) * _SUPER
        self.height, self.width = height * _SUPER / self.unit, width * _SUPER / self.unit
        self.image = Image.new("RGB", (width * _SUPER, height * _SUPER), "white")
        self.pen = ImageDraw.Draw(self.image)

    def fill(self, points: np.ndarray, colour: _Colour, outline: float = 0.006) -> None:
        """A closed region with its dark outline."""
        pixels = [tuple(p) for p in points * self.unit]
        self.pen.polygon(pixels, fill=tuple(colour))
        if outline:
            self.stroke(np.vstack([points, points[:1]]), _darker(colour, 0.35), outline, taper=False)

    def stroke(self, points: np.ndarray, colour: _Colour, thickness: float, taper: bool = True) -> None:
        """A brush line: thick in the middle and thin at its ends when it tapers."""
        t = np.linspace(0, 1, len(points))
        widths = thickness * (np.sin(np.pi * t) ** 0.6 * 0.9 + 0.1 if taper else np.ones_like(t))
        for (a, b), w in zip(zip(points[:-1], points[1:], strict=True), widths, strict=False):
            w = max(w * self.unit, 1)
            self.pen.line([tuple(a * self.unit), tuple(b * self.unit)], fill=tuple(colour), width=round(w))
            x, y = b * self.unit
            self.pen.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=tuple(colour))


def _background(canvas: _Canvas) -> None:
    """A graded sky or wall, then one of: screen tone, rays, hills with hatching, window frames."""
    rng = canvas.rng
    top, bottom = rng.integers(120, 256, (2, 3))
    rows = np.linspace(0, 1, canvas.image.height)[:, None, None]
    graded = np.broadcast_to(top * (1 - rows) + bottom * rows, (*canvas.image.size[::-1], 3))
    canvas.image.paste(Image.fromarray(graded.astype(np.uint8)))
    ink = _darker(bottom, 0.75)
    kind = rng.integers(4)
    if kind == 0:  # screen tone: dots that grow downwards
        step = rng.uniform(0.018, 0.03)
        for i, y in enumerate(np.arange(0, canvas.height, step)):
            r = step * 0.45 * y / canvas.height
            for x in np.arange((i % 2) * step / 2, canvas.width, step):
                box = np.array([x - r, y - r, x + r, y + r]) * canvas.unit
                canvas.pen.ellipse(box.tolist(), fill=tuple(ink))
    elif kind == 1:  # speed lines towards a point
        centre = rng.uniform(0.3, 0.7, 2)
        for angle in np.sort(rng.uniform(0, 2 * math.pi, 70)):
            away = np.array([math.cos(angle), math.sin(angle)])
            canvas.stroke(
                centre + np.linspace(rng.uniform(0.35, 0.5), 1.2, 24)[:, None] * away,
                ink,
                rng.uniform(0.001, 0.006),
            )
    elif kind == 2:  # hills, the nearer the darker, with hatching
        for level in range(3):
            x = np.linspace(0, canvas.width, 60)
            y = 0.55 + 0.15 * level + 0.06 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6))
            colour = _darker(np.array([120, 190, 130]) + rng.integers(-30, 30, 3), 1 - 0.2 * level)
            region = np.vstack([np.stack([x, y], 1), [[canvas.width, canvas.height + 0.1], [0, canvas.height + 0.1]]])
            canvas.fill(region, colour)
            for start in np.arange(0, canvas.width, 0.03):
                at = np.array([start, np.interp(start, x, y) + 0.02])
                canvas.stroke(at + np.linspace(0, 1, 6)[:, None] * [-0.03, 0.06], _darker(colour, 0.8), 0.002)
    else:  # a window with panes
        for x in np.arange(0.08, canvas.width, 0.26):
            for y in np.arange(0.06, canvas.height, 0.3):
                pane = np.array([[x, y], [x + 0.22, y], [x + 0.22, y + 0.26], [x, y + 0.26]])
                canvas.fill(pane, np.minimum(top + 20, 255), 0.005)
                canvas.stroke(np.linspace([x + 0.04, y + 0.2], [x + 0.14, y + 0.05], 8), (255, 255, 255), 0.004)


def _figure(canvas: _Canvas) -> None:
    """Shoulders, hair behind, face, eyes, mouth, fringe: in that order, so that each covers the last."""
    rng = canvas.rng
    skin = np.array(_SKIN[rng.integers(len(_SKIN))])
    hair = np.array(_HAIR[rng.integers(len(_HAIR))])
    cloth = rng.integers(40, 230, 3)
    centre = np.array([canvas.width / 2 + rng.uniform(-0.08, 0.08), rng.uniform(0.42, 0.5)])
    size = rng.uniform(0.2, 0.27)  # half the face's width
    tilt = rng.uniform(-0.2, 0.2)

    def place(points: ArrayLike) -> np.ndarray:
        """From the face's units (half its width, tilted) to the canvas."""
        turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
        return centre + size * np.asarray(points, float) @ turn.T

    shoulders = _smooth([[-2.4, 3.6], [-2.0, 2.0], [-0.6, 1.55], [0.6, 1.55], [2.0, 2.0], [2.4, 3.6]])
    canvas.fill(centre + size * shoulders, cloth, 0.009)
    for _ in range(9):  # folds
        start = np.array([rng.uniform(-1.7, 1.7), rng.uniform(2.0, 2.6)])
        bend = _smooth([start, start + rng.uniform(-0.25, 0.25, 2) + [0, 0.4], start + [rng.uniform(-0.3, 0.3), 0.9]])
        canvas.stroke(centre + size * bend, _darker(cloth, 0.6), 0.006)
    canvas.fill(
        centre + size * np.array([[-0.35, 0.8], [0.35, 0.8], [0.45, 1.75], [-0.45, 1.75]]),
        _darker(skin, 0.88),
    )

    length = rng.uniform(0.9, 2.4)
    behind = _smooth(
        [
            [-1.25, 0.2],
            [-1.35, length],
            [-0.7, length + 0.2],
            [0.7, length + 0.2],
            [1.35, length],
            [1.25, 0.2],
        ]
    )
    canvas.fill(place(np.vstack([behind, _arc(1.3, 1.3, 0, -math.pi)])), _darker(hair, 0.75), 0.009)
    for x in np.linspace(-1.2, 1.2, 26):
        strand = _smooth(
            [
                [x, 0.3],
                [x * 1.06 + rng.uniform(-0.1, 0.1), length * 0.6],
                [x + rng.uniform(-0.12, 0.12), length],
            ]
        )
        canvas.stroke(place(strand), _darker(hair, rng.uniform(0.4, 1.0)), rng.uniform(0.002, 0.006))

    face = np.vstack(
        [
            _arc(1.0, 0.95, math.pi, 2 * math.pi),
            _smooth([[1.0, 0.0], [0.92, 0.5], [0.0, 1.12], [-0.92, 0.5], [-1.0, 0.0]]),
        ]
    )
    canvas.fill(place(face), skin, 0.008)
    iris = rng.integers(30, 200, 3)
    for side in (-1, 1):
        _eye(canvas, place, side, iris)
        blush = place(np.array([side * 0.62, 0.52]) + _arc(0.17, 0.08, 0, 2 * math.pi))
        canvas.fill(blush, np.minimum(skin * [1.0, 0.86, 0.86], 255).astype(int), 0)
        for k in range(3):
            at = np.array([side * 0.62 - 0.08 + 0.08 * k, 0.56])
            canvas.stroke(place(np.linspace(at, at + [0.04, -0.09], 5)), (208, 112, 104), 0.003)
    smile = rng.uniform(-0.04, 0.1)
    canvas.stroke(place(_smooth([[-0.16, 0.78], [0.0, 0.78 + smile], [0.16, 0.78]])), (110, 40, 40), 0.007)
    canvas.stroke(place(_smooth([[0.0, 0.5], [0.05, 0.58], [-0.01, 0.6]])), _darker(skin, 0.6), 0.004)

    locks = rng.integers(6, 10)
    edges = np.linspace(-1.15, 1.15, locks + 1)
    for a, b in zip(edges[:-1], edges[1:], strict=True):  # the fringe, lock by lock
        tip = np.array([(a + b) / 2 * 1.02 + rng.uniform(-0.12, 0.12), rng.uniform(-0.3, 0.12) + 0.5 * abs(a + b) / 2])
        roof = -1.05 * math.sqrt(max(0.0, 1 - ((a + b) / 2.6) ** 2)) - 0.12
        lock = np.vstack(
            [
                _smooth([[a * 0.8, roof], [a * 1.05, (roof + tip[1]) / 2], tip]),
                _smooth([tip, [b * 1.05, (roof + tip[1]) / 2], [b * 0.8, roof]]),
            ]
        )
        canvas.fill(place(lock), hair, 0.006)
        for _ in range(4):
            x = rng.uniform(a, b)
            canvas.stroke(
                place(_smooth([[x * 0.85, roof + 0.1], [x, (roof + tip[1]) / 2], tip])),
                _darker(hair, rng.uniform(0.5, 0.85)),
                0.003,
            )
    crown = np.vstack(
        [_arc(1.22, 1.3, math.pi * 1.03, math.pi * 1.97), _smooth([[1.1, -0.62], [0, -0.95], [-1.1, -0.62]])]
    )
    canvas.fill(place(crown), hair, 0.008)
    shine = np.minimum(hair.astype(int) + 70, 255)
    canvas.stroke(place(_arc(0.85, 0.28, math.pi * 1.15, math.pi * 1.8) + [0, -0.78]), shine, 0.018)


def _eye(canvas: _Canvas, place: Callable[[ArrayLike], np.ndarray], side: int, iris: np.ndarray) -> None:
    at = np.array([side * 0.45, 0.18])
    canvas.fill(place(at + _arc(0.24, 0.27, 0, 2 * math.pi)), (252, 252, 255), 0.004)
    for grade in range(6):  # the iris, lighter towards its bottom
        shrink = 1 - 0.12 * grade
        ring = at + [0, 0.02 + 0.025 * grade] + _arc(0.16 * shrink, 0.22 * shrink, 0, 2 * math.pi)
        canvas.fill(place(ring), np.minimum(iris + 22 * grade, 255), 0.003 if grade == 0 else 0)
    canvas.fill(place(at + [0, 0.03] + _arc(0.07, 0.1, 0, 2 * math.pi)), (16, 14, 24), 0)
    canvas.fill(place(at + [-0.06, -0.09] + _arc(0.05, 0.06, 0, 2 * math.pi)), (255, 255, 255), 0)
    canvas.fill(place(at + [0.06, 0.13] + _arc(0.025, 0.03, 0, 2 * math.pi)), (255, 255, 255), 0)
    canvas.stroke(place(at + _arc(0.26, 0.29, math.pi * 1.05, math.pi * 1.95)), (24, 18, 26), 0.018)
    canvas.stroke(place(at + [0, -0.42] + _arc(0.26, 0.08, math.pi * 1.1, math.pi * 1.9)), (40, 30, 34), 0.009)


def _arc(rx: float, ry: float, start: float, stop: float) -> np.ndarray:
    t = np.linspace(start, stop, 48)
    return np.stack([rx * np.cos(t), ry * np.sin(t)], 1)


def _smooth(points: Sequence, count: int = 40) -> np.ndarray:
    """A curve through the points (Catmull-Rom)."""
    p = np.asarray(points, float)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, len(p) - 3, count)
    i = np.minimum(t.astype(int), len(p) - 4)
    u = (t - i)[:, None]
    a, b, c, d = (p[i + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)


def _darker(colour: _Colour, factor: float) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.asarray(colour) * factor, 0, 255))
