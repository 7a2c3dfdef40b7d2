"""Erasing band by band: a sink that passes the stitched picture on, computed anew only in strips near seams."""

from collections.abc import Callable, Iterable
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from srlib.tiling.canvas import Sink, filtered
from srlib.tiling.plan import TilePlan
from srlib.tiling.seam_map import seam_map, strips

Rectangle = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), LR pixels
Erase = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # (stitched, lr, map of the seams, unit) -> stitched


class SeamStrips:
    """What TiledSR.tiled sends the stitched picture through: bands in, erased bands out to `sink`.

    erase: TiledSR.erase. x: (B, C, H, W), the LR picture, of which parts go to `device`. unit: of a plan's halo, as
    TiledSR.unit. radius, reach: LR pixels around a seam that are erased, and that the network looks at around each.
    chunk: about the side of the squares that go through it at once, in output pixels; so many rows wait for each other.
    Before the first band `start` is told the plan.
    """

    def __init__(
        self,
        erase: Erase,
        x: Tensor,
        *,
        scale: int,
        unit: Callable[[int], float],
        radius: int,
        reach: int,
        chunk: int,
        device: torch.device,
        sink: Sink,
    ):
        self.erase, self.x, self.scale, self.unit = erase, x, scale, unit
        self.radius, self.reach, self.device, self.direct = radius, reach, device, sink
        self.side = max(chunk // scale, 1)  # LR pixels
        height = x.shape[-2] * scale
        self.take = filtered(self._erased, reach * scale, height, sink, step=scale, least=max(chunk, scale))

    def start(self, plan: TilePlan) -> None:
        """The plan that the next bands, from row 0 on, were stitched by."""
        self.plan, self.seams, self.gain = plan, plan.seams(1), self.unit(plan.halo)

    def __call__(self, band: Tensor, top: int) -> None:
        if self.gain and any(self.seams):
            self.take(band, top)
        else:
            self.direct(band, top)

    def _erased(self, held: Tensor, first: int, top: int, bottom: int) -> Tensor:
        """held: (B, C, rows, W*scale) from row `first` on -> its rows top to bottom (B, C, bottom - top, W*scale)."""
        s, width = self.scale, self.x.shape[-1]
        out = held[:, :, top - first : bottom - first].clone()
        for square in self._squares(range(top // s, bottom // s), range(width)):
            (y, y1), (x, x1) = square
            out[:, :, y * s - top : y1 * s - top, x * s : x1 * s] = self._piece(held, first, square)
        return out

    def _squares(self, rows: range, columns: range) -> list[Rectangle]:
        """What of this part of the picture is computed: strips near seams, or, where seams lie so close that the strips
        with what is looked at around them are more than everything, everything.
        """
        places: dict[str, Any] = {"radius": self.radius, "gap": 2 * self.reach}
        near = self._cut(strips(self.seams, rows, columns, **places))
        everything = self._cut([((rows.start, rows.stop), (columns.start, columns.stop))])
        return min(near, everything, key=lambda squares: sum(self._pixels(square) for square in squares))

    def _cut(self, rectangles: Iterable[Rectangle]) -> list[Rectangle]:
        """Into equal parts of about `side`, at most half as much more."""
        return [
            (rows, columns)
            for (tall, wide) in rectangles
            for rows, columns in product(_parts(*tall, self.side), _parts(*wide, self.side))
        ]

    def _pixels(self, square: Rectangle) -> int:
        """What the network goes through for one."""
        rows, columns = self._around(square)
        return len(rows) * len(columns)

    def _around(self, square: Rectangle) -> tuple[range, range]:
        """Rows and columns of a square with the `reach` around it that there is."""
        (top, bottom), (left, right) = square
        height, width = self.x.shape[-2:]
        rows = range(max(top - self.reach, 0), min(bottom + self.reach, height))
        return rows, range(max(left - self.reach, 0), min(right + self.reach, width))

    def _piece(self, held: Tensor, first: int, square: Rectangle) -> Tensor:
        """One square, computed with `reach` around it -> (B, C, (y1 - y)*scale, (x1 - x)*scale), on held's device."""
        s, ((y, y1), (x, x1)), (rows, columns) = self.scale, square, self._around(square)
        stitched = held[:, :, rows.start * s - first : rows.stop * s - first, columns.start * s : columns.stop * s]
        lr = self.x[:, :, rows.start : rows.stop, columns.start : columns.stop]
        stitched, lr = stitched.to(self.device), lr.to(self.device)
        places: dict[str, Any] = {"radius": self.radius, "context": self.plan.halo, "device": self.device}
        erased = self.erase(stitched, lr, seam_map(self.seams, rows, columns, **places), self.gain)
        top, left = (y - rows.start) * s, (x - columns.start) * s
        return erased[:, :, top : top + (y1 - y) * s, left : left + (x1 - x) * s].to(held)


def _parts(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    number = max(round((stop - start) / side), 1)
    ends = [start + (stop - start) * i // number for i in range(number + 1)]
    return list(pairwise(ends))
