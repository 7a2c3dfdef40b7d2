"""Pictures, whole and as crops: tensors (C, H, W) in [0, 1], C 1 or 3."""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.style import mark_seams
from srlib.tiling.seams import Seams


def to_array(picture: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3) uint8."""
    picture = picture.detach().float().cpu().clamp(0, 1)
    return (picture.expand(3, -1, -1).permute(1, 2, 0) * 255 + 0.5).byte().numpy()


def picture_grid(pictures: dict[str, Tensor], columns: int = 4, width: float = 3.0) -> Figure:
    """Pictures of any sizes under their titles, nearest-neighbour, so that pixels stay pixels."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(p.shape[-2] / p.shape[-1] for p in pictures.values())
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, (width * min(tallest, 1.6) + 0.45) * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(to_array(picture), interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure


def crops(
    pictures: dict[str, Tensor],
    top: int,
    left: int,
    size: int,
    seams: Seams | None = None,
    *,
    title: str = "",
    columns: int = 5,
) -> Figure:
    """The same square of each picture side by side; ticks mark the seams that cross it."""
    columns = min(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.axis("on")
        axis.imshow(to_array(picture[:, top : top + size, left : left + size]), interpolation="nearest")
        axis.set_title(name, fontsize=9, pad=12)
        rows_in, columns_in = seams or ([], [])
        inside = (
            [c - top for c in rows_in if top < c < top + size],
            [c - left for c in columns_in if left < c < left + size],
        )
        mark_seams(axis, inside)
    figure.suptitle(title, fontsize=10)
    return figure


def busiest(picture: Tensor, size: int) -> tuple[int, int, int]:
    """(top, left, size) of the square with the most gradient energy, where detail can be judged."""
    grey = picture.mean(0)
    energy = grey[1:, 1:].sub(grey[:-1, 1:]).square() + grey[1:, 1:].sub(grey[1:, :-1]).square()
    size = min(size, *energy.shape)
    means = F.avg_pool2d(energy[None, None], size, stride=4)[0, 0]
    best = int(means.argmax())
    return best // means.shape[1] * 4, best % means.shape[1] * 4, size


def upscale_nearest(picture: Tensor, scale: int) -> Tensor:
    """(C, H, W) -> (C, H*scale, W*scale), to show an LR picture at the HR picture's size."""
    return torch.repeat_interleave(torch.repeat_interleave(picture, scale, -1), scale, -2)
