"""Sums over a picture or over overlapping windows of it, added up chunk by chunk, and what is computed from them.

A network that was trained on patches has seen sums over patches only; over windows of their size instead of the whole
picture its answer can be better (Chu et al., Improving Image Restoration by Revisiting Global Information Aggregation,
ECCV 2022, "TLC"). Where windows overlap each pixel is given the mean of what they give. The windows' borders cut the
picture into cells, so that every pixel is summed once, whatever the overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """One axis of `size` pixels in windows of `span` that cover it evenly, the first from 0 on, the last to the end."""

    size: int
    span: int

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Begin and end of each."""
        span = min(self.span, self.size)
        count = -(-self.size // span)
        starts = [round(i * (self.size - span) / max(count - 1, 1)) for i in range(count)]
        return [(start, start + span) for start in starts]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Begin and end of the parts that lie in the same windows."""
        borders = sorted({border for window in self.windows for border in window})
        return list(zip(borders[:-1], borders[1:], strict=True))

    @property
    def inside(self) -> Tensor:
        """(windows, cells), 1 where a cell lies in a window, else 0."""
        rows = [[float(a <= begin and end <= b) for begin, end in self.cells] for a, b in self.windows]
        return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class Cells:
    """What each cell of a picture is given."""

    y: Axis
    x: Axis
    values: list[list[Tensor]]


def parts(size: int, step: int, axis: Axis | None = None) -> Iterator[tuple[int, int, int]]:
    """(begin, end, number of the cell) of parts of at most `step` pixels, none across two cells of `axis`."""
    for number, (begin, end) in enumerate(axis.cells if axis else [(0, size)]):
        for start in range(begin, end, step):
            yield start, min(start + step, end), number


class Total:
    """Sums being added up, over the whole picture or, with two axes, cell by cell."""

    def __init__(self, axes: tuple[Axis, Axis] | None):
        self.axes = axes
        self.sums: dict[tuple[int, int], Tensor] = {}
        self.pixels: dict[tuple[int, int], int] = {}

    def add(self, i: int, j: int, part: Tensor, pixels: int) -> None:
        """The sums of some pixels of cell i, j."""
        part = part.double()
        self.sums[i, j] = self.sums[i, j] + part if (i, j) in self.sums else part
        self.pixels[i, j] = self.pixels.get((i, j), 0) + pixels

    def result(self, then: Callable[[Tensor, int], Tensor]) -> Tensor | Cells:
        """then(sum, pixels), or for each cell the mean of it over the windows that hold the cell."""
        if self.axes is None:
            return then(self.sums[0, 0], self.pixels[0, 0])
        (y, x), device = self.axes, self.sums[0, 0].device
        rows, columns = y.inside.to(device), x.inside.to(device)
        shape = (rows.shape[1], columns.shape[1])
        sums = torch.stack([self.sums[key] for key in sorted(self.sums)]).unflatten(0, shape)
        windows = torch.einsum("ni,mj,ij...->nm...", rows, columns, sums)
        spans = [[(b - a) * (d - c) for c, d in x.windows] for a, b in y.windows]
        values = torch.stack(
            [
                torch.stack([then(part, n) for part, n in zip(*row, strict=True)])
                for row in zip(windows, spans, strict=True)
            ]
        )
        rows, columns = (m / m.sum(0) for m in (rows, columns))
        cells = torch.einsum("ni,mj,nm...->ij...", rows.to(values), columns.to(values), values)
        return Cells(y, x, [list(row) for row in cells])
