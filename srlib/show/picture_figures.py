"""Pictures, whole and as crops: tensors (C, H, W) in [0, 1], C 1 or 3."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from srlib.evaluation.metrics import psnr_y
from srlib.show.panels import panel_size, seams_within, show_picture
from srlib.show.style import plain, wrapped
from srlib.tiling.seams import Seams

_CROP = 2.6  # inches of a crop's side
_GAIN = 8  # of |tiled - whole|: white is 255 / 8 levels


def to_array(picture: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3) uint8."""
    picture = picture.detach().float().cpu().clamp(0, 1)
    return (picture.expand(3, -1, -1).permute(1, 2, 0) * 255 + 0.5).byte().numpy()


def picture_grid(pictures: dict[str, Tensor], columns: int = 4, width: float = 3.0) -> Figure:
    """Pictures of any sizes under their titles, nearest-neighbour, so that pixels stay pixels."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(panel_size(p.shape[-2:], width)[1] for p in pictures.values())
    titles = [wrapped(title, width * 0.95) for title in pictures]
    size = (width * columns, (tallest + 0.2 + 0.16 * max(title.count("\n") + 1 for title in titles)) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, title, picture in zip(axes.flat, titles, pictures.values(), strict=False):
        show_picture(axis, to_array(picture))
        axis.set_title(title, fontsize=9)
    return plain(figure)


def crops(pictures: dict[str, Tensor], top: int, left: int, size: int, *, title: str = "") -> Figure:
    """The same square of each picture, all of one size, side by side, after the last one whole with the square marked.

    With an entry "HR", the PSNR-Y of each other one but "LR" stands below, of this square.
    """
    figure, axes = plt.subplots(
        1, len(pictures) + 1, figsize=((_CROP + 0.1) * (len(pictures) + 1), _CROP + 0.9), layout="constrained"
    )
    hr = pictures.get("HR")
    _thumbnail(axes[0], hr if hr is not None else list(pictures.values())[-1], top, left, size)
    for axis, (name, picture) in zip(axes[1:], pictures.items(), strict=True):
        _crop(axis, name, picture, top, left, size, hr)
    figure.suptitle(wrapped(title, _CROP * len(axes), 10), fontsize=10)
    return plain(figure)


def seam_crops(
    references: dict[str, Tensor],
    results: Mapping[str, tuple[Tensor, Tensor]],
    top: int,
    left: int,
    size: int,
    seams: Seams,
    *,
    title: str = "",
) -> Figure:
    """The same square of each model's whole picture, below it of the tiled one, below that |tiled - whole| x 8.

    references: one or two for the first column, e.g. {"HR": ..., "bicubic": ...}; the first also whole, with the square
    marked. results: {model: (tiled, whole)}. The PSNR-Y of this square against an entry "HR" stands below each.
    """
    columns = len(results) + 1
    figure, axes = plt.subplots(
        3, columns, figsize=((_CROP + 0.1) * columns + 0.8, (_CROP + 0.7) * 3), squeeze=False, layout="constrained"
    )
    hr = references.get("HR")
    for axis, (name, picture) in zip(axes[:2, 0], references.items(), strict=False):
        _crop(axis, name, picture, top, left, size, hr)
    if len(references) < 2:
        axes[1, 0].set_axis_off()
    _thumbnail(axes[2, 0], next(iter(references.values())), top, left, size)
    inside = seams_within(seams, top, left, size)
    for (above, middle, below), (name, (tiled, whole)) in zip(axes.T[1:], results.items(), strict=True):
        _crop(above, f"{name} whole", whole, top, left, size, hr)
        _crop(middle, f"{name} tiled", tiled, top, left, size, hr, inside)
        difference = (tiled - whole)[:, top : top + size, left : left + size].abs().mean(0).cpu().numpy() * 255
        image = show_picture(below, difference, inside, cmap="inferno", vmin=0, vmax=255 / _GAIN)
        below.set_title(f"|tiled - whole| x {_GAIN}", fontsize=9, pad=10)
        below.set_xlabel(f"rms {np.sqrt((difference**2).mean()):.3g} levels", fontsize=8, labelpad=8)
    figure.colorbar(image, ax=list(axes[2, 1:]), shrink=0.8, label="8-bit levels", extend="max")
    figure.suptitle(wrapped(title, _CROP * columns, 10), fontsize=10)
    return plain(figure)


def _crop(
    axis: Axes,
    name: str,
    picture: Tensor,
    top: int,
    left: int,
    size: int,
    hr: Tensor | None,
    seams: Seams | None = None,
) -> None:
    square = picture[:, top : top + size, left : left + size]
    show_picture(axis, to_array(square), seams)
    axis.set_title(wrapped(name, _CROP * 0.95), fontsize=9, pad=10)
    if hr is not None and name not in ("HR", "LR") and hr.shape == picture.shape:  # LR is no result
        decibels = psnr_y(square[None].cpu(), hr[None, :, top : top + size, left : left + size].cpu(), 0).item()
        text = "equal to HR" if math.isinf(decibels) else f"this crop: {decibels:.2f} dB PSNR-Y"
        axis.set_xlabel(text, fontsize=8, labelpad=8)


def _thumbnail(axis: Axes, picture: Tensor, top: int, left: int, size: int) -> None:
    """The whole picture with a box around the square; ticks would be too close to one another."""
    show_picture(axis, to_array(picture), interpolation="antialiased")
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="white", lw=3))
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="#e31a1c", lw=1.5))
    axis.set_title("where it is", fontsize=9, pad=10)


def busiest(picture: Tensor, size: int) -> tuple[int, int, int]:
    """(top, left, size) of the square with the most gradient energy, where detail can be judged."""
    grey = picture.mean(0)
    if min(grey.shape) < 2:
        return 0, 0, 1
    energy = grey[1:, 1:].sub(grey[:-1, 1:]).square() + grey[1:, 1:].sub(grey[1:, :-1]).square()
    size = min(size, *energy.shape)
    means = F.avg_pool2d(energy[None, None], size, stride=4)[0, 0]
    best = int(means.argmax())
    return best // means.shape[1] * 4, best % means.shape[1] * 4, size


def upscale_nearest(picture: Tensor, scale: int) -> Tensor:
    """(C, H, W) -> (C, H*scale, W*scale), to show an LR picture at the HR picture's size."""
    return torch.repeat_interleave(torch.repeat_interleave(picture, scale, -1), scale, -2)
