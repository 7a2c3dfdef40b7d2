"""A picture's eight flips and rotations through the network, and the mean of what comes back."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srlib.networks.eraser import TiledSR
from srlib.tiling.canvas import Sink
from srlib.tiling.tiled import Execution, Report


def averaged(
    model: TiledSR, x: Tensor, *, out: Sink, how: Execution = Execution(), **options: Any
) -> tuple[None, Report]:
    """As model.tiled(x, out=out, how=how, **options), but the mean of eight answers, given to `out` at once.

    x: (B, C, H, W) on the CPU. Takes eight times as long, and the memory of two pictures (B, C, H*scale, W*scale) in
    fp32 more.
    """
    B, C, *sides = x.shape
    height, width = (side * model.scale for side in sides)
    total, reports = np.zeros((B, C, height, width), np.float32), []
    ways = list(itertools.product((False, True), repeat=3))
    for number, way in enumerate(ways):
        turned = torch.from_numpy(_turned(x.numpy(), *way).copy())
        answer = np.empty(_turned(total, *way).shape, np.float32)
        _, report = model.tiled(turned, out=answer, how=_part(how, number, len(ways)), **options)
        _turned(total, *way)[:] += answer
        reports.append(report)
    total /= len(ways)
    out(torch.from_numpy(total), 0)
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    seconds = sum(report.seconds for report in reports)
    return None, replace(reports[0], seconds=seconds, notes=["the mean of eight flips and rotations", *notes])


def _turned(array: np.ndarray, upside: bool, mirrored: bool, transposed: bool) -> np.ndarray:
    """A view of (..., H, W), flipped, then with rows and columns swapped."""
    view = array[..., :: -1 if upside else 1, :: -1 if mirrored else 1]
    return view.swapaxes(-1, -2) if transposed else view


def _part(how: Execution, number: int, count: int) -> Execution:
    """`how` for one of `count` runs: its progress is that of all."""
    progress = how.progress
    if progress is None:
        return how
    return replace(how, progress=lambda done, total: progress(number * total + done, count * total))
