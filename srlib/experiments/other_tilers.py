"""How other tools cut pictures into tiles, rebuilt from what they do, to measure it beside this project's ways.

Each takes a network (B, C, h, w) -> (B, C, h*scale, w*scale), a picture (B, C, H, W) and the tile's side in LR pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Span(NamedTuple):
    """What one tile reads along one axis, LR pixels, and the weight of each of its output pixels."""

    start: int
    stop: int
    weight: np.ndarray


@torch.no_grad()
def _by_spans(network: Callable[[Tensor], Tensor], x: Tensor, rows: Sequence[Span], columns: Sequence[Span]) -> Tensor:
    """Every tile alone through the network, and their weighted mean."""
    total: Tensor | None = None
    weights: Tensor | None = None
    scale = 1
    for row in rows:
        for column in columns:
            tile = network(x[..., row.start : row.stop, column.start : column.stop])
            if total is None or weights is None:
                scale = tile.shape[-1] // (column.stop - column.start)
                total = tile.new_zeros(*x.shape[:2], *(side * scale for side in x.shape[-2:]))
                weights = tile.new_zeros(total.shape[-2:])
            weight = torch.as_tensor(np.outer(row.weight, column.weight), dtype=tile.dtype, device=tile.device)
            place = slice(row.start * scale, row.stop * scale), slice(column.start * scale, column.stop * scale)
            total[..., place[0], place[1]] += tile * weight
            weights[place] += weight
    assert total is not None and weights is not None
    return total / weights


def _cores(edges: Sequence[int], context: int, scale: int, ramp: int = 0) -> list[Span]:
    """Tiles between `edges` that read `context` LR pixels more. Cropped to their cores; or with a ramp, blended over so
    many LR pixels to each side of an edge by half a sine wave.
    """
    spans = []
    for first, last in zip(edges, edges[1:], strict=False):
        start, stop = max(first - context, edges[0]), min(last + context, edges[-1])
        place = (np.arange((stop - start) * scale) + 0.5) / scale + start  # of each output pixel, LR pixels
        if ramp:
            rise = np.clip((place - first) / ramp, -1, 1) if first > edges[0] else np.ones_like(place)
            fall = np.clip((last - place) / ramp, -1, 1) if last < edges[-1] else np.ones_like(place)
            weight = (0.5 + 0.5 * np.sin(np.pi / 2 * rise)) * (0.5 + 0.5 * np.sin(np.pi / 2 * fall))
        else:
            weight = ((place >= first) & (place < last)).astype(float)
        spans.append(Span(start, stop, weight))
    return spans


def _edges(side: int, tile: int) -> list[int]:
    return [*range(0, side, tile), side]


def cropped(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: int, context: int = 10) -> Tensor:
    """Real-ESRGAN: tiles from the top left corner, 10 pixels of context, cropped."""
    return _by_spans(network, x, *(_cores(_edges(side, tile), context, scale) for side in x.shape[-2:]))


def blended(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: int, overlap: int = 16) -> Tensor:
    """chaiNNer: 16 pixels of overlap, of which the outer half is dropped and the inner blended by half a sine wave."""
    sides = x.shape[-2:]
    return _by_spans(network, x, *(_cores(_edges(side, tile), overlap, scale, ramp=overlap // 2) for side in sides))


def averaged(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: int, overlap: int = 32) -> Tensor:
    """SwinIR: tiles that overlap by 32 pixels, the last pushed back to end with the picture; all of them averaged."""
    spans = []
    for side in x.shape[-2:]:
        read = min(tile, side)
        starts = sorted({*range(0, side - read, max(read - overlap, 1)), side - read})
        spans.append([Span(start, start + read, np.ones(read * scale)) for start in starts])
    return _by_spans(network, x, *spans)


def sections(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: int, shave: int = 16) -> Tensor:
    """DAT and networks after it: as many equal sections as keep them below the tile's side, wherever that puts their
    borders; 16 pixels more on each side, cropped.
    """
    spans = []
    for side in x.shape[-2:]:
        count = -(-side // tile)
        spans.append(_cores([*(side // count * i for i in range(count)), side], shave, scale))
    return _by_spans(network, x, *spans)


TILERS = {
    "tiles + 10, cropped (Real-ESRGAN)": cropped,
    "tiles + 16, half-sine (chaiNNer)": blended,
    "overlap 32, averaged (SwinIR)": averaged,
    "sections + 16 (DAT)": sections,
}
