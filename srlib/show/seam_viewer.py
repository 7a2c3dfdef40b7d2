"""The seam viewer: two sides, each a model tiled in its own way, compared pixel by pixel.

In the browser (seam_viewer.js beside this file): the wipe, zoom, blink, the difference. Here: the pictures and figures.
The same module shows pictures that lie in an HTML page, without a kernel.
"""

import base64
import json
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from srlib.data.png import png
from srlib.files import atomic, printable
from srlib.networks.eraser import TiledSR
from srlib.show import picture_figures, seam_figures
from srlib.show.panels import levels_between, seams_within, show_difference, show_picture
from srlib.show.sides import KINDS, Pair, Results, Side, matters, offered, own_picture
from srlib.show.style import plain, wrapped
from srlib.tiling.seams import Piece, Seams, worst_seam

_MODULE = Path(__file__).with_suffix(".js")
_INLINED = 512  # output pixels of a side, at most, of a picture that is put into a page
_GAIN = 16  # of the difference: 255 / 16 levels are the ends of its scale


class SeamViewer(anywidget.AnyWidget):
    """Two sides, A and B; in JupyterLab `display(viewer)`.

    pictures: {name: (lr (C, h, w), hr (C, H, W) or None)}, in [0, 1]. models: {name: TiledSR} of one scale; if one has
    an eraser, "tiled" is with it, and a side can show its tiles "not erased", too. tiles, halos: the choices in LR
    pixels; of each model those on its window's grid. crop: LR pixels of the middle square of pictures that are added.

    `viewer.show("moon", a={"tile": 16}, b={"shows": "whole"})` sets what is shown, by the fields of Side, and
    `viewer.result("a")` is then the picture with its figures. `viewer.figure()` is a static twin for a saved notebook,
    and `viewer.html()` the same viewer without a kernel, for a page that is sent on.
    Raises ValueError for models of several scales, and, from `show`, for what cannot be shown.
    """

    _esm = _MODULE
    choices = traitlets.Dict().tag(sync=True)  # what can be asked for
    asked = traitlets.Dict().tag(sync=True)  # by the browser: {"picture", "a", "b", "serial"}
    shown = traitlets.Dict().tag(sync=True)  # the answer
    looked_at = traitlets.Dict().tag(sync=True)  # a square to go to: {"top", "left", "size"}

    def __init__(
        self,
        pictures: Mapping[str, Pair],
        models: Mapping[str, TiledSR],
        *,
        tiles: Sequence[int] = (16, 32, 64),
        halos: Sequence[int] = (0, 8, 16),
        crop: int = 256,
    ):
        super().__init__()
        named = {printable(name): pair for name, pair in pictures.items()}
        self.results, self.crop = Results(named, {printable(name): model for name, model in models.items()}), crop
        models = self.results.models
        self._offered = {name: offered(model, tuple(tiles), tuple(halos)) for name, model in models.items()}
        self.picture, first = next(iter(named)), next(iter(models))
        choices = self._offered[first]["tile"]
        half = min(named[self.picture][0].shape[-2:]) // 2  # so that there is a seam to be seen
        tile = max([t for t in choices[: len(choices) // 2 + 1] if t <= half], default=choices[0])
        self.a, self.b = Side(model=first, tile=tile), Side("whole", first, tile)
        self.box = (0, 0, 96)
        self._offer()
        self.show()
        self.jump_to_worst(self.box[2])
        self.observe(self._answer, names="asked")
        self.on_msg(self._take)

    def show(
        self, picture: str | None = None, a: Mapping[str, Any] | None = None, b: Mapping[str, Any] | None = None
    ) -> None:
        """Show this picture; a, b: what is to change of a side, by the fields of Side."""
        picture = self.picture if picture is None else printable(picture)
        if picture not in self.results.pictures:
            raise ValueError(f"no picture {picture!r}; there are {', '.join(self.results.pictures)}")
        self._set(picture, self._changed(self.a, a or {}), self._changed(self.b, b or {}))

    def _changed(self, side: Side, changes: Mapping[str, Any]) -> Side:
        """The side with the changes; what another model does not offer becomes the nearest that it does."""
        if unknown := set(changes) - set(asdict(side)):
            raise ValueError(f"a side has no {', '.join(sorted(unknown))}; it has {', '.join(asdict(side))}")
        side = replace(side, **changes)
        side = replace(side, model=printable(side.model))
        if side.model not in self._offered:
            raise ValueError(f"no model {side.model!r}; there are {', '.join(self._offered)}")
        choices = self._offered[side.model]
        for name, value in asdict(side).items():
            if name == "model" or value in choices[name]:
                continue
            if name in changes and name in side.matters or name == "shows" and name in changes:
                raise ValueError(f"{side.model}: {name} {value!r} is none of {', '.join(map(str, choices[name]))}")
            near = min(choices[name], key=lambda v: abs(v - value)) if isinstance(value, int) else choices[name][0]
            side = replace(side, **{name: near})
        return side

    def _set(self, picture: str, a: Side, b: Side, serial: int = 0) -> None:
        """Compute first: what cannot be shown changes nothing."""
        sides = {name: self._told(picture, side) for name, side in (("a", a), ("b", b))}
        self.picture, self.a, self.b = picture, a, b
        height, width = self.result("a").picture.shape[-2:]
        top, left, size = self.box
        within = (max(0, min(top, height - size)), max(0, min(left, width - size)), size)
        if within != self.box:
            self.look_at(*within)
        settings = {"picture": picture, "a": asdict(a), "b": asdict(b)}
        self.shown = {"serial": serial, "settings": settings, "title": picture, **sides}

    def _told(self, picture: str, side: Side) -> dict[str, Any]:
        """A side as the browser gets it; its picture is a PNG."""
        result = self.results.of(picture, side)
        parts, content = self.results.parts(side), self.results.png(picture, side)
        return _told(parts, result.rows, content, result.seams, result.worst, result.profile)

    def _offer(self) -> None:
        """All that the browser's menus hold."""
        truth = {name: hr is not None for name, (_, hr) in self.results.pictures.items()}
        ways = {way for choices in self._offered.values() for way in choices["statistics"]}
        counts = {kind: {way: list(matters(kind, way)) for way in ways} for kind in KINDS}
        self.choices = {"pictures": truth, "models": self._offered, "matters": counts}

    def _answer(self, change: dict[str, Any]) -> None:
        """The browser has asked for something else: compute it, or say there why it cannot be."""
        asked = change["new"]
        serial = asked.get("serial", 0)
        try:
            picture = asked["picture"]
            a, b = (
                self._changed(getattr(self, name), {k: v for k, v in asked[name].items() if v != vars(old)[k]})
                for name, old in (("a", self.a), ("b", self.b))
            )
            a, b = (replace(s, shows="whole") if s.shows == "HR" and not self._truth(picture) else s for s in (a, b))
            self._set(picture, a, b, serial)
        except Exception as error:
            self.shown = {**self.shown, "serial": serial, "error": str(error) or type(error).__name__}
            raise  # for the log

    def _truth(self, picture: str) -> bool:
        return self.results.pictures[picture][1] is not None

    def _take(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        """A file that was uploaded in the browser."""
        try:
            self.add_file(Path(content["upload"]).name, bytes(buffers[0]))
        except Exception as error:
            self.shown = {**self.shown, "serial": content.get("serial", 0), "error": str(error)}
            raise
        self.shown = {**self.shown, "serial": content.get("serial", 0)}

    def add_file(self, path: Path | str, content: bytes | None = None, *, truth: bool = False) -> None:
        """Show a picture file of one's own: its middle square of `crop` LR pixels. content: the file's bytes, if they
        have been read. truth: the file is the ground truth, and is downscaled first. ValueError when it is no picture.
        """
        name, model = printable(Path(path).name), self.results.models[self.a.model]
        pair = own_picture(path, model, crop=self.crop, content=content, truth=truth)
        self.results.forget(name)
        self.results.pictures[name] = pair
        self._offer()
        a, b = (replace(s, shows="whole") if s.shows == "HR" and not truth else s for s in (self.a, self.b))
        self._set(name, a, b)
        self.jump_to_worst(self.box[2])

    def result(self, side: str) -> Any:
        """The Result of side "a" or "b": its picture (C, H, W), figures, seams, worst pieces of seams."""
        return self.results.of(self.picture, {"a": self.a, "b": self.b}[side])

    def look_at(self, top: int, left: int, size: int) -> None:
        """Go to this square of the output, also in `figure` and `html`."""
        self.box = (top, left, size)
        self.looked_at = {"top": top, "left": left, "size": size}

    def jump_to_worst(self, size: int = 96) -> tuple[int, int]:
        """Go to the square of so many output pixels around the seam with the most error, of side A if that is tiled;
        returns its (top, left).
        """
        side = next((s for s in (self.a, self.b) if "tile" in s.matters), self.a)
        result = self.results.of(self.picture, side)
        whole = self.results.of(self.picture, Side("whole", side.model)).picture if side.matters else result.picture
        top, left = worst_seam(result.picture, whole, result.seams, size)
        self.look_at(top, left, size)
        return top, left

    def figure(self) -> Figure:
        """The static twin: the square that is looked at, left of the line A and right of it B; A - B; the error by
        distance from the seams of what is tiled. Above it the sides and their figures.
        """
        top, left, size = self.box
        square = (slice(None), slice(top, top + size), slice(left, left + size))
        a, b = (self.result(name).picture[square] for name in "ab")
        arrays, split = [picture_figures.to_array(p) for p in (a, b)], a.shape[-1] // 2
        figure, (wipe, middle, right) = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
        show_picture(wipe, np.concatenate([arrays[0][:, :split], arrays[1][:, split:]], 1))
        wipe.axvline(split - 0.5, color="white", lw=2)
        wipe.set_title("left of the line A, right of it B", fontsize=9, pad=10)
        tiled = self.result("a" if "tile" in self.a.matters else "b")
        inside = seams_within(tiled.seams, top, left, size)
        show_difference(middle, levels_between(a, b), 255 / _GAIN, inside)
        middle.set_title("A - B; ticks: seams", fontsize=9, pad=10)
        lines = {(n, ""): self.result(n.lower()).profile for n in "AB" if self.result(n.lower()).profile is not None}
        colours, _ = seam_figures.draw_profiles(right, {key: line for key, line in lines.items() if line is not None})
        if len(colours) > 1:
            right.legend(handles=[plt.Line2D([], [], color=c, lw=2, label=n) for n, c in colours.items()], fontsize=8)
        figure.suptitle("\n".join([wrapped(self.picture, 12, 10, 1), *map(self._caption, "ab")]), fontsize=10)
        return plain(figure)

    def _caption(self, name: str) -> str:
        side: Side = getattr(self, name)
        rows = dict(self.result(name).rows)
        said = [f"{figure} {rows[figure]}" for figure in ("TC", "SGR", "PSNR-Y") if figure in rows]
        return wrapped(f"{name.upper()}: {', '.join([*self.results.parts(side), *said])}", 13, 10, 1)

    def html(self, sides: Iterable[Mapping[str, Any]] = ()) -> str:
        """The viewer as HTML that needs no kernel and fetches nothing: both sides, and further ones to choose from.

        sides: as of `show`, changes of A. Of a picture larger than 512 output pixels a side, the square of that size
        around what is looked at.
        """
        wanted = [s.settled for s in (self.a, self.b, *(self._changed(self.a, changes) for changes in sides))]
        top, left, size = self.box
        height, width = self.result("a").picture.shape[-2:]
        y, x = (
            max(0, min(at + size // 2 - _INLINED // 2, side - _INLINED)) for at, side in ((top, height), (left, width))
        )
        told = [self._inlined(side, y, x) for side in dict.fromkeys(wanted)]
        part = "" if max(height, width) <= _INLINED else f", {_INLINED} pixels of {width}x{height}"
        data = {
            "still": True,
            "looked_at": {"top": top - y, "left": left - x, "size": size},
            "shown": {
                "serial": 0,
                "title": self.picture + part,
                "results": told,
                "a": 0,  # of the results
                "b": int(wanted[0] != wanted[1]),
            },
        }
        name = f"seams-{uuid.uuid4().hex[:12]}"
        text = json.dumps(data).replace("</", "<\\/")
        return (
            f'<div id="{name}">Here two results can be wiped, zoomed and compared, once this notebook is trusted '
            '(in JupyterLab the command "Trust Notebook"), or in its report.</div>\n'
            f'<script type="application/json" id="{name}-data">{text}</script>\n'
            f'<script type="module">{_MODULE.read_text()}\nstandalone("{name}")</script>'
        )

    def _inlined(self, side: Side, y: int, x: int) -> dict[str, Any]:
        result = self.results.of(self.picture, side)
        part = picture_figures.to_array(result.picture[:, y : y + _INLINED, x : x + _INLINED])
        seams = seams_within(result.seams, y, x, _INLINED)
        worst = [_moved(piece, y, x) for piece in result.worst]
        worst = [p for p in worst if 0 < p.at < _INLINED and p.stop > 0 and p.start < _INLINED]
        encoded = base64.b64encode(png(part)).decode()
        return _told(self.results.parts(side), result.rows, encoded, seams, worst, result.profile)

    def write_page(self, path: Path | str, sides: Iterable[Mapping[str, Any]] = ()) -> Path:
        """`html` as a page of its own, written atomically."""
        page = f"<!doctype html>\n<meta charset='utf-8'>\n<title>Seams</title>\n{self.html(sides)}\n"
        with atomic(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return Path(path)


def _moved(piece: Piece, y: int, x: int) -> Piece:
    """Counted from another corner."""
    across, along = (y, x) if piece.along == "row" else (x, y)
    return piece._replace(at=piece.at - across, start=piece.start - along, stop=piece.stop - along)


def _told(
    parts: list[str],
    rows: list[tuple[str, str]],
    encoded: bytes | str,
    seams: Seams,
    worst: Iterable[Piece],
    profile: Tensor | None,
) -> dict[str, Any]:
    """What the browser is told of a side; NaN, which JSON does not have, as null."""
    levels = [] if profile is None else [float(v) * 255 for v in profile[:13]]
    return {
        "parts": parts,
        "rows": [list(row) for row in rows],
        "png": encoded,
        "id": f"{zlib.crc32(encoded if isinstance(encoded, bytes) else encoded.encode()):08x}",  # of its content
        "seams": [list(axis) for axis in seams],
        "worst": [piece._asdict() | {"rms": piece.rms * 255} for piece in worst],
        "profile": [v if v == v else None for v in levels],
    }
