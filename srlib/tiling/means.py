"""Two-pass tiling: statistics over the whole picture, gathered over all tiles first, then used in every tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srlib.tiling.picture_sums import PictureSums, Pooled, frame_factor


@dataclass
class _Sums:
    """Of one statistic: (B, G) sums of values and of squares, in float64, and how many values."""

    total: Tensor
    squares: Tensor
    values: int = 0

    def pooled(self, times: int) -> Pooled | None:
        """Mean and variance (times*B, G); None of no values, where cores were smaller than a pixel of the features."""
        if not self.values:
            return None
        mean = self.total / self.values
        variance = (self.squares / self.values - mean.square()).clamp_min(0)
        return Pooled(mean.repeat(times, 1), variance.repeat(times, 1), self.values)


class Means(PictureSums):
    """Within `with`, every mean, variance and norm over height and width (PictureSums) that the model computes first
    gathers, after `use()` is given, what it is over all tiles' cores; after `again()` both.

    plan: a tiling.TilePlan. pictures: how many are tiled at once, B. Before each call of the model `numbers` is
    set to the tiles' numbers; the model's input is (len(numbers)*B, ...), tile by tile. The first pass itself
    runs with each tile's own statistics, which is why the result is near-exact and not exact; a further pass that
    gathers with those of the one before comes nearer.
    """

    def __init__(self, plan: Any, pictures: int):
        super().__init__(self._take)
        self.plan, self.pictures = plan, pictures
        self.sums: list[_Sums] = []  # in the order of the calls
        self.given: list[_Sums] = []  # of the pass before
        self.gathering = True
        self.numbers: Sequence[int] = ()

    @property
    def numbers(self) -> Sequence[int]:
        """Of the tiles in the next call of the model; set before each."""
        return self._numbers

    @numbers.setter
    def numbers(self, numbers: Sequence[int]) -> None:
        self._numbers, self._call = numbers, 0

    def check(self, model: Any) -> None:
        """After a call of the model: ValueError when it took no such statistics, so that there is nothing to share."""
        if not self.sums:
            raise ValueError(
                f"two_pass finds no mean, variance or norm over the picture in {type(model).__name__}: nothing to "
                "share, use 'local'"
            )

    def use(self) -> None:
        """From now on hand out what was gathered."""
        self.gathering, self.given = False, self.sums

    def again(self) -> None:
        """From now on hand out what was gathered, and gather anew."""
        self.given, self.sums = self.sums, []

    def _take(self, x: Tensor) -> Pooled | None:
        """x: (T*B, G, c, h, w)."""
        factor = frame_factor(x.shape[-2:], (self.plan.y.read, self.plan.x.read))
        if factor is None or len(x) != len(self.numbers) * self.pictures:
            return None
        call, self._call = self._call, self._call + 1
        if self.gathering:
            self._gather(x, call, factor)
        if not self.given:
            return None
        if call >= len(self.given):
            raise ValueError("two_pass: the network takes more means than in the first pass; use 'local'")
        return self.given[call].pooled(len(self.numbers))

    def _gather(self, x: Tensor, call: int, factor: float) -> None:
        if call == len(self.sums):
            nothing = x.new_zeros((self.pictures, x.shape[1]), dtype=torch.float64)
            self.sums.append(_Sums(nothing, nothing))
        sums = self.sums[call]
        for tile, number in zip(x.split(self.pictures), self.numbers, strict=True):
            row, column = divmod(number, len(self.plan.x.origins))
            rows, columns = _core(self.plan.y, row, factor), _core(self.plan.x, column, factor)
            core = tile[..., rows, columns]
            if not (values := core.shape[2:].numel()):
                continue
            moments = torch.var_mean(core if core.itemsize > 2 else core.float(), (2, 3, 4), correction=0)
            variance, mean = (moment.double() for moment in moments)
            sums.total = sums.total + mean * values
            sums.squares = sums.squares + (variance + mean.square()) * values
            sums.values += values


def _core(axis: Any, i: int, factor: float) -> slice:
    """Where core i lies in features with so many pixels a pixel; the last core has what lies behind it, too: the
    picture's padding, and what the network itself adds.
    """
    start = int((axis.cores[i] - axis.origins[i]) * factor)
    last = i + 1 == len(axis.origins)
    return slice(start, None if last else int((axis.cores[i + 1] - axis.origins[i]) * factor))
