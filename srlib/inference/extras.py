"""What is asked of an upscaler besides: another size, the mean of eight flips, borders that wrap around."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from srlib.data.pictures import Picture
from srlib.data.resize import resize_integers
from srlib.inference.alpha import fill_hidden
from srlib.inference.upscale import upscale
from srlib.networks.eraser import TiledSR
from srlib.tiling.tiled import Report


@dataclass(frozen=True)
class Extras:
    """outscale: how many times as large as the input the output is, None for the network's own scale; width: or how
    many pixels wide, the height following. tta: the mean of eight flips and rotations. wrap: LR pixels of the other
    side that are put around the picture before the network, and cropped off afterwards, so that borders meet.

    Raises ValueError for values that are not possible.
    """

    outscale: float | None = None
    width: int | None = None
    tta: bool = False
    wrap: int = 0

    def __post_init__(self) -> None:
        if self.outscale is not None and self.width is not None:
            raise ValueError("outscale and width both say how large the output is: give one of them")
        if (self.outscale is not None and not 0 < self.outscale < 1000) or (self.width is not None and self.width < 1):
            raise ValueError("outscale must be between 0 and 1000, width at least 1 pixel")
        if self.wrap < 0:
            raise ValueError(f"wrap {self.wrap} must be at least 0 pixels")

    def factor(self, picture: Picture, scale: int) -> float:
        """How many times as large as the picture its output is, by a network of that scale."""
        if self.width is not None:
            return self.width / picture.rgb.shape[1]
        return scale if self.outscale is None else self.outscale


def upscale_with(model: TiledSR, picture: Picture, extras: Extras, **options: Any) -> tuple[Picture, Report]:
    """srlib.inference.upscale.upscale with these extras."""
    wrap, (height, width) = extras.wrap, picture.rgb.shape[:2]
    factor = extras.factor(picture, model.scale)
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    if wrap:
        picture = _each(picture, lambda planes: np.pad(planes, ((wrap, wrap), (wrap, wrap), (0, 0)), mode="wrap"))
    large, report = upscale(model, picture, tta=extras.tta, **options)
    if wrap:
        rows, columns = (slice(wrap * model.scale, (wrap + side) * model.scale) for side in (height, width))
        large = _each(large, lambda planes: np.ascontiguousarray(planes[rows, columns]))
        report.notes.append(f"borders wrap around: {wrap} pixels of the other side on each side, cropped off again")
    if large.rgb.shape[:2] != size:
        report.notes.append(f"then resized to {size[1]}x{size[0]}, bicubic")
        large = _resized(large, *size, wrap=bool(wrap))
    return large, report


def _each(picture: Picture, change: Any) -> Picture:
    """The picture with its colours and its alpha changed, each (H, W, C)."""
    alpha = None if picture.alpha is None else change(picture.alpha[..., None])[..., 0]
    return replace(picture, rgb=change(picture.rgb), alpha=alpha)


def _resized(picture: Picture, height: int, width: int, wrap: bool) -> Picture:
    """Colours under what does not show do not bleed into what does."""
    filled = None if picture.alpha is None else fill_hidden(picture.rgb, picture.alpha)
    shown = picture if filled is None else replace(picture, rgb=filled)
    small = _each(shown, lambda planes: resize_integers(planes, height, width, wrap=wrap))
    if filled is not None:
        assert picture.alpha is not None and small.alpha is not None
        small.rgb[small.alpha == 0] = picture.rgb[picture.alpha == 0][0]
    return small
