"""Artifacts put into clean patches, and where they are: what the artifact detector learns from.

A picture here is (H, W, 3) float32 in [0, 1]. An artifact takes it, a strength from 0, the weakest that a person still
sees on a sharp picture, to 1, and the generator that draws what is left open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from srlib.files import digest
from srlib.tiling.seams import Seams

CLASSES = ("blocks", "ringing", "blur", "banding", "seam")
CELL = 8  # output pixels: the side of a square of the answer's grid
_VISIBLE = 1.0 / 255  # change of a cell below which nobody, detector included, is asked about it


@dataclass(frozen=True)
class SeamExample:
    """A picture upscaled in tiles without context and whole, both (3, H, W) in [0, 1], and where the seams are."""

    tiled: Tensor
    whole: Tensor
    seams: Seams


def blur(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian of sigma 1.2 to 3.5 pixels, or, as often, motion over 5 to 18 pixels in a random direction."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(picture, (0, 0), 1.2 + 2.3 * strength, borderType=cv2.BORDER_REFLECT)
    length = 5 + 13 * strength
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, 64)
    kernel = np.zeros((21, 21))
    np.add.at(
        kernel, (np.rint(10 + steps * np.sin(angle)).astype(int), np.rint(10 + steps * np.cos(angle)).astype(int)), 1
    )
    return _filtered(picture, kernel)


def ringing(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Ideal circular low-pass (a sinc in two dimensions), cut off at 0.5 pi (strength 0) to 0.25 pi (strength 1)."""
    from scipy.special import j1  # half a second to import, for the detector's training only

    cutoff = _cutoff(strength)
    y, x = np.mgrid[-10:11, -10:11]
    r = np.hypot(x, y)
    r[10, 10] = 1
    kernel = cutoff * j1(cutoff * r) / (2 * np.pi * r)
    kernel[10, 10] = cutoff**2 / (4 * np.pi)
    return _filtered(picture, kernel)


def _cutoff(strength: float) -> float:
    return np.pi * (0.5 - 0.25 * strength)


def banding(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Each colour on 20 (strength 0) to 4 (strength 1) levels; half the time smoothed first: contours, not noise."""
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    levels = round(20 * (4 / 20) ** strength)
    return (np.rint(picture * (levels - 1)) / (levels - 1)).astype(np.float32)


def blocks(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG at quality 45 (strength 0) to 5 (strength 1), its 8x8 grid at a random place."""
    height, width = picture.shape[:2]
    top, left = rng.integers(0, 8, 2)
    padded = np.pad(_as_bytes(picture), ((top, 8), (left, 8), (0, 0)), mode="edge")
    return _compressed(padded, round(45 - 40 * strength))[top : top + height, left : left + width]


# in the order in which they come about: a blurred picture is compressed, not the reverse
ARTIFACTS: dict[str, Callable] = {"blur": blur, "ringing": ringing, "banding": banding, "blocks": blocks}


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    """[0, 1] -> uint8."""
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _compressed(levels: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) float32 in [0, 1], through JPEG."""
    encoded = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # None for broken bytes, and these are whole
    return decoded[..., ::-1].astype(np.float32) / 255


def _filtered(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT).clip(0, 1)


def variation(rng: np.random.Generator, side: int, *, worn: bool = True) -> Callable[[np.ndarray], np.ndarray]:
    """How a clean picture may look as well: a function of (side, side, 3) pictures in [0, 1], the same for each.

    Colours exchanged, or none; gamma, contrast, tint. worn: a third get weak contrast and a slope of brightness, as
    a sky has, and some what photographs bring along and nobody minds: doubled pixels, JPEG at 75 and better, grain.
    """
    order, gamma, tint = rng.permutation(3), np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(0.85, 1, 3).astype(np.float32)
    grey, sky, doubled, compressed, grainy = rng.random(5) < (0.4, 0.33 * worn, 0.1 * worn, 0.3 * worn, 0.3 * worn)
    contrast = np.exp(rng.uniform(np.log(0.05), np.log(0.6))) if sky else rng.uniform(0.6, 1)
    slope = rng.uniform(-0.5, 0.5, 2) * (1 - contrast) * sky
    low = rng.uniform(0, 1 - contrast - np.abs(slope).sum()) - np.minimum(slope, 0).sum()
    y, x = np.linspace(0, slope[0], side)[:, None, None], np.linspace(0, slope[1], side)[:, None]
    ground = (low + y + x).astype(np.float32)
    down, right = rng.integers(0, 2, 2)
    quality = int(rng.integers(75, 99))
    grain = rng.uniform(0, 4 / 255) * grainy * rng.standard_normal((side, side, 1), np.float32)

    def varied(picture: np.ndarray) -> np.ndarray:
        picture = picture.mean(2, keepdims=True).repeat(3, 2) if grey else picture[..., order]
        picture = cv2.pow(np.ascontiguousarray(picture), gamma)
        picture = (np.float32(contrast) * picture + ground) * tint
        if doubled:
            half = cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
            picture = cv2.resize(half, (side, side), interpolation=cv2.INTER_NEAREST)
            picture = cv2.copyMakeBorder(picture, int(down), 0, int(right), 0, cv2.BORDER_REPLICATE)[:side, :side]
        if compressed:
            picture = _compressed(_as_bytes(picture), quality)
        return (picture + grain.astype(np.float32)).clip(0, 1)

    return varied


class ArtifactPatches(Dataset):
    """Patches with artifacts, and where they are; every one is made from its key alone.

    clean: pictures (3, H, W) in [0, 1]; seams: SeamExamples, of these pictures or others; patch: side in pixels, a
    multiple of 8. vary: for training; pictures are also downscaled by 1.5 and 2, turned, and changed by `variation`,
    seams made weaker and stronger. only: a class that every patch gets, or "clean".
    origin: what the seams were made of, to name them by instead of by their content.
    Raises ValueError for a patch that is no multiple of 8, or larger than a picture. `key` names the content.

    [number, draw], whatever follows them in the key, is {"lr": (3, p, p) in [0, 1], "hr": (2, K, p/8, p/8), "name":
    what was put in, such as "blur 0.4"}. hr[0] is 1 where a class is, hr[1] where it can be told whether it is
    (_labels); elsewhere nobody is asked, in training or evaluation. 3 patches in 10 are cut from tiled pictures, if
    there are any; 4 in 10, mostly others, get one or two artifacts, over the whole patch or a rectangle of it.
    """

    length = 4096  # patches of an epoch: there is no end of them

    def __init__(
        self,
        clean: Sequence[Tensor],
        seams: Sequence[SeamExample],
        patch: int,
        *,
        vary: bool = True,
        only: str | None = None,
        origin: str = "",
    ):
        if patch % CELL:
            raise ValueError(f"patch {patch} must be a multiple of the detector's cell, {CELL} pixels")
        pictures = [*clean, *(p for s in seams for p in (s.tiled, s.whole))]
        for height, width in (p.shape[-2:] for p in pictures):
            if min(height, width) < patch:
                raise ValueError(f"a {width}x{height} picture is smaller than the patch, {patch} pixels")
        self.patch, self.vary, self.only = patch, vary, only
        self.clean = [_sizes(as_image(p), patch) if vary else [as_image(p)] for p in clean]
        self.seams = [(as_image(s.tiled), as_image(s.whole), s.seams) for s in seams]
        named = clean if origin else pictures
        content = [f"{p.shape} {digest(p.numpy().tobytes())}" for p in named]
        self.key = digest([*content, str([s.seams for s in seams]), f"{patch} {vary} {only} {origin}"])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple) -> dict:
        rng = np.random.default_rng([int(key[0]), int(key[1])])
        draw = rng.random()
        picture, on_seam, seam, names = self._before(rng, draw)
        weakest = {name: _shown(name, picture, apply(picture, 0.0, rng), 0.0) for name, apply in ARTIFACTS.items()}
        shown, changes, covered = {}, {}, {}
        for name in self._choice(rng, draw):
            strength, region = rng.random(), np.ones((self.patch, self.patch), np.float32)
            if not self.only and rng.random() < 0.4:
                region = _rectangle(self.patch, rng)
            after = ARTIFACTS[name](picture, strength, rng)
            shown[name] = _shown(name, picture, after, strength)
            after = np.where(region[..., None] > 0, after, picture)
            changes[name], covered[name] = _change(picture, after), _by_cell(region)
            picture, names = after, [*names, f"{name} {strength:.1f}"]
        labels = _labels(on_seam, seam, weakest, shown, changes, covered)
        if not self.vary or rng.random() < 0.5:  # no sign of an artifact: files have whole levels, results may not
            picture = _as_bytes(picture).astype(np.float32) / 255
        if self.vary:
            turns, mirror = int(rng.integers(4)), 1 - 2 * int(rng.integers(2))
            picture, labels = np.rot90(picture, turns)[:, ::mirror], np.rot90(labels, turns, (2, 3))[..., ::mirror]
        lr, hr = np.ascontiguousarray(picture.transpose(2, 0, 1)), np.ascontiguousarray(labels)
        return {"lr": torch.from_numpy(lr), "hr": torch.from_numpy(hr), "name": ", ".join(names) or "clean"}

    def _before(self, rng: np.random.Generator, draw: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """A patch before artifacts are put in, the cells a seam touches, the seam's change of each, and the name."""
        if self.seams and (self.only == "seam" or self.only is None and draw < 0.3):
            tiled, whole, lines = self.seams[rng.integers(len(self.seams))]
            top, left, box = place(tiled, self.patch, rng, lines)
            picture, without = tiled[box], whole[box]
            if self.vary:
                picture = (without + rng.uniform(0.6, 1.6) * (picture - without)).clip(0, 1)
                varied = variation(rng, self.patch, worn=False)
                picture, without = varied(picture), varied(without)
            return picture, _cells_on(lines, top, left, self.patch), _by_cell(np.abs(picture - without)), ["seam"]
        if self.seams and self.only is None and draw < 0.45:  # what the network makes is no artifact in itself
            whole, worn = self.seams[rng.integers(len(self.seams))][1], False
        else:
            sizes, worn = self.clean[rng.integers(len(self.clean))], True
            whole = sizes[rng.integers(len(sizes))]
        picture = whole[place(whole, self.patch, rng)[2]]
        if self.vary:
            picture = variation(rng, self.patch, worn=worn)(picture)
        cells = np.zeros((self.patch // CELL, self.patch // CELL))
        return picture, cells > 0, cells, []

    def _choice(self, rng: np.random.Generator, draw: float) -> list[str]:
        """Which artifacts a patch gets, in the order in which they come about."""
        if self.only:
            return [self.only] if self.only in ARTIFACTS else []
        if draw < 0.2 or rng.random() > 0.55:
            return []
        chosen = rng.choice(list(ARTIFACTS), rng.choice([1, 2], p=[0.7, 0.3]), replace=False)
        return [name for name in ARTIFACTS if name in chosen]


def _labels(
    on_seam: np.ndarray,
    seam: np.ndarray,
    weakest: Mapping[str, np.ndarray],
    shown: Mapping[str, np.ndarray],
    changes: Mapping[str, np.ndarray],
    covered: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(2, K, n, n) float32: where a class is, and where it can be told whether it is. All arguments are by cell (n, n).

    on_seam: touched by a seam; seam: what that changed there; weakest: what would be seen of each artifact at its
    weakest on the patch before any is put in; shown: what is seen of those put in; changes: all that they changed;
    covered: 0 to 1, by how much. What is seen is the change, but of ringing only the ripples: the rest is blur.
    Whether a cell has an artifact can be told where all of this holds:

    1. The weakest form would be seen: nobody can tell whether a plain sky was blurred. That depends on the patch
       before, so which cells are asked about says nothing about the answer.
    2. It is covered wholly or not at all and, if it is, the artifact is seen.
    3. No later artifact changed it by more than half of what is seen of the weakest form: strong compression hides
       a slight blur.
    4. For blur: ringing did not change it visibly, for a sinc takes away the detail that a blur takes away, so that
       either answer would be right. (A blurred cell is asked about ringing: it has none.)

    Every cell off the seams is asked about seams; one on them if the seam is seen, and no later change is larger.
    """
    target = np.zeros((len(CLASSES), *on_seam.shape), np.float32)
    asked = np.zeros(target.shape, bool)
    later = np.zeros(on_seam.shape)
    for name in reversed(ARTIFACTS):
        k = CLASSES.index(name)
        asked[k] = (weakest[name] > _VISIBLE) & (weakest[name] >= 2 * later)
        if name in changes:
            target[k] = covered[name] == 1
            asked[k] &= (covered[name] == 0) | (covered[name] == 1) & (shown[name] > _VISIBLE)
            later = np.maximum(later, changes[name])
    if "ringing" in changes:
        asked[CLASSES.index("blur")] &= changes["ringing"] <= _VISIBLE
    k = CLASSES.index("seam")
    target[k] = on_seam
    asked[k] = ~on_seam | (seam > _VISIBLE) & (seam >= later)
    return np.stack([target * asked, asked.astype(np.float32)])


def _shown(name: str, before: np.ndarray, after: np.ndarray, strength: float) -> np.ndarray:
    """(p/8, p/8): what is seen of an artifact that made `after` out of `before`."""
    if name == "ringing":  # a sinc is a blur and ripples
        sigma = 1.3 / _cutoff(strength)  # the Gaussian blur most like it, by trial, on edges and on noise
        before = cv2.GaussianBlur(before, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return _change(before, after)


def _change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(p/8, p/8): mean absolute change of a cell's steps between neighbouring pixels, in [0, 1].

    Not of the values: when a plain area, or each of two, gets another colour, nothing is to be seen.
    """
    change = cv2.copyMakeBorder(after - before, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    here = change[:-1, :-1]
    return _by_cell(cv2.absdiff(change[1:, :-1], here) + cv2.absdiff(change[:-1, 1:], here)) / 2


def _by_cell(values: np.ndarray) -> np.ndarray:
    """(p, p) or (p, p, 3) -> (p/8, p/8) means."""
    n = values.shape[0] // CELL
    means = cv2.resize(values, (n, n), interpolation=cv2.INTER_AREA)
    return means if values.ndim == 2 else means.mean(2)


def _sizes(picture: np.ndarray, patch: int) -> list[np.ndarray]:
    """The picture, and downscaled by 1.5 and 2 where a patch still fits: sharper than a photo is at its full size."""
    height, width = picture.shape[:2]
    downscaled = [(round(width / factor), round(height / factor)) for factor in (1.5, 2)]
    return [picture, *(cv2.resize(picture, s, interpolation=cv2.INTER_AREA) for s in downscaled if min(s) >= patch)]


def place(
    picture: np.ndarray, patch: int, rng: np.random.Generator, seams: Seams | None = None
) -> tuple[int, int, tuple[slice, slice]]:
    """Top, left and slices of a random patch; with seams given, of one that a seam crosses."""
    limits = np.array([s - patch for s in picture.shape[:2]])
    corner = rng.integers(0, limits + 1)
    if seams is not None:
        axis = int(rng.integers(2)) if seams[0] and seams[1] else int(not seams[0])
        if seams[axis]:
            c = seams[axis][rng.integers(len(seams[axis]))]
            corner[axis] = np.clip(c - rng.integers(4, patch - 4), 0, limits[axis])
    top, left = map(int, corner)
    return top, left, (slice(top, top + patch), slice(left, left + patch))


def as_image(picture: Tensor) -> np.ndarray:
    """(3, H, W) tensor -> (H, W, 3) float32."""
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy(), np.float32)


def _cells_on(seams: Seams, top: int, left: int, patch: int) -> np.ndarray:
    """(p/8, p/8): cells with a pixel that touches a seam."""
    on = np.zeros((patch // CELL, patch // CELL), bool)
    for axis, (lines, start) in enumerate(zip(seams, (top, left), strict=True)):
        for c in lines:
            for pixel in (c - 1 - start, c - start):
                if 0 <= pixel < patch:
                    on[(pixel // CELL, slice(None)) if axis == 0 else (slice(None), pixel // CELL)] = True
    return on


def _rectangle(patch: int, rng: np.random.Generator) -> np.ndarray:
    """(p, p) float32: 1 in a random rectangle."""
    region = np.zeros((patch, patch), np.float32)
    height, width = rng.integers(patch // 3, patch, 2)
    top, left = rng.integers(0, patch - height + 1), rng.integers(0, patch - width + 1)
    region[top : top + height, left : left + width] = 1
    return region
