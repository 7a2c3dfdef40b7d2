"""A picture or a difference in one axes: pixel by pixel, of any shape, seams outside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from srlib.tiling.seams import Seams

_SEAMS = "#00b7c7"
_NARROWEST, _LOWEST = 0.7, 0.25  # width by height, height by width of the axes of a long and narrow picture


def panel_size(shape: Sequence[int], longest: float) -> tuple[float, float]:
    """(width, height) in inches of the axes of a picture of so many pixels (H, W): the longer side is `longest`."""
    ratio = min(max(shape[0] / shape[1], _LOWEST), 1 / _NARROWEST)
    return (longest, longest * ratio) if ratio <= 1 else (longest / ratio, longest)


def show_picture(axis: Axes, values: np.ndarray, seams: Seams | None = None, **options: Any) -> AxesImage:
    """A picture, pixel by pixel, with its seams as ticks outside, so that it stays uncovered. A long and narrow one
    gets empty margins, for its titles.

    values: (H, W), or (H, W, 3) uint8; options as of imshow.
    """
    image = axis.imshow(values, **{"interpolation": "nearest", **options})
    height, width = values.shape[:2]
    margins = max(0.0, height * _NARROWEST - width) / 2, max(0.0, width * _LOWEST - height) / 2
    axis.set(xlim=(-0.5 - margins[0], width - 0.5 + margins[0]), ylim=(height - 0.5 + margins[1], -0.5 - margins[1]))
    rows, columns = seams or ([], [])
    axis.set_yticks([c - 0.5 for c in rows], labels=[""] * len(rows))
    axis.set_xticks([c - 0.5 for c in columns], labels=[""] * len(columns))
    axis.tick_params(color=_SEAMS, length=7, width=2, top=True, right=True)
    return image


def seams_within(seams: Seams, top: int, left: int, size: int) -> Seams:
    """The seams that cross a square, counted from its corner."""
    rows, columns = ([c - at for c in cs if at < c < at + size] for cs, at in zip(seams, (top, left), strict=True))
    return rows, columns


def levels_between(a: Tensor, b: Tensor) -> np.ndarray:
    """a - b of pictures (C, H, W) in [0, 1] as (H, W) in 8-bit levels: of each pixel the channel that differs most."""
    difference = (a - b).detach().float().cpu() * 255
    return difference.gather(0, difference.abs().argmax(0, keepdim=True))[0].numpy()


def show_difference(
    axis: Axes, difference: np.ndarray, limit: float, seams: Seams | None = None, label: str = "8-bit levels"
) -> AxesImage:
    """A signed difference (H, W) in 8-bit levels, with its bar from -limit to limit: red is more, blue is less."""
    image = show_picture(axis, difference, seams, cmap="RdBu_r", vmin=-limit, vmax=limit)
    beyond = (bool((difference < -limit).any()), bool((difference > limit).any()))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    axis.figure.colorbar(image, ax=axis, shrink=0.8, label=label, extend=extend)
    return image
