"""Two-pass tiling: means over the whole picture, gathered over all tiles first, then used in every tile."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Means:
    """Within `with`, every nn.AdaptiveAvgPool2d(1) of `model` first gathers, after `use()` hands out, the mean
    over all tiles' cores.

    plan: a tiling.TilePlan. pictures: how many are tiled at once, B. Before each call of the model `numbers` is
    set to the tiles' numbers; the model's input is (len(numbers)*B, ...), tile by tile. The first pass itself
    runs with each tile's own means, which is why the result is near-exact and not exact. Raises ValueError when
    the model has no such layer.
    """

    def __init__(self, model: nn.Module, plan: Any, pictures: int):
        modules = model.modules() if isinstance(model, nn.Module) else ()
        self.pools = [m for m in modules if isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1))]
        if not self.pools:
            name = type(model).__name__
            raise ValueError(f"two_pass finds no nn.AdaptiveAvgPool2d(1) in {name}: nothing to share, use 'local'")
        self.plan, self.pictures = plan, pictures
        self.sums: list[Tensor] = []  # one (B, C) for each pooling, in the order of the calls
        self.counts: list[int] = []
        self.gathering = True
        self.numbers: Sequence[int] = ()

    @property
    def numbers(self) -> Sequence[int]:
        """Of the tiles in the next call of the model; set before each."""
        return self._numbers

    @numbers.setter
    def numbers(self, numbers: Sequence[int]) -> None:
        self._numbers, self._call = numbers, 0

    def use(self) -> None:
        """From now on hand out what was gathered."""
        self.gathering = False

    def __enter__(self) -> "Means":
        self.handles = [pool.register_forward_hook(self._hook) for pool in self.pools]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hook(self, _pool: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        call, self._call = self._call, self._call + 1
        if not self.gathering:
            mean = self.sums[call] / self.counts[call]
            return mean.repeat(len(self.numbers), 1)[..., None, None].to(output.dtype)  # (T*B, C, 1, 1)
        if call == len(self.sums):
            self.sums.append(output.new_zeros((), dtype=torch.float64))
            self.counts.append(0)
        for tile, number in zip(inputs[0].split(self.pictures), self.numbers, strict=True):
            row, column = divmod(number, len(self.plan.x.origins))
            core = tile[..., _core(self.plan.y, row, tile.shape[-2]), _core(self.plan.x, column, tile.shape[-1])]
            self.sums[call] = self.sums[call] + core.double().sum((2, 3))
            self.counts[call] += core.shape[2] * core.shape[3]
        return output


def _core(axis: Any, i: int, size: int) -> slice:
    """Where core i lies in features of that size; the last core has the picture's padding, too."""
    stop = axis.padded if i + 1 == len(axis.origins) else axis.cores[i + 1]
    return slice((axis.cores[i] - axis.origins[i]) * size // axis.read, (stop - axis.origins[i]) * size // axis.read)
