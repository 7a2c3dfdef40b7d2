"""What the adapters share: steps made of layers, how far layers look, and sums over a picture."""

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from srlib.adapters.adapted import Run


def planes(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step on maps (B, H, W, C), out of a function on (B, C, H, W)."""

    def step(*maps: Tensor, **given: Any) -> Tensor:
        return function(*(m.permute(0, 3, 1, 2) for m in maps), **given).permute(0, 2, 3, 1)

    return step


def reach_of(*layers: nn.Module) -> int:
    """Pixels to each side that layers one after the other look at: convolutions, and what changes the size."""
    reach, scale = Fraction(0), Fraction(1)
    for layer in (part for whole in layers for part in whole.modules()):
        if isinstance(layer, nn.Conv2d):
            reach += max(k // 2 * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)) / scale
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
        elif isinstance(layer, nn.PixelUnshuffle):
            scale /= layer.downscale_factor
        elif isinstance(layer, nn.Upsample):
            scale *= Fraction(layer.scale_factor)  # type: ignore[arg-type]
    return math.ceil(reach)


def chain(x: Tensor, layers: Iterable[nn.Module], run: Run, most: int = 4) -> Tensor:
    """The map (B, H, W, C) through layers that keep its size, as many in one step as look at `most` pixels together.

    A step repeats what lies within its reach around each chunk, and each step writes a map: both cost.
    """
    some: list[nn.Module] = []
    for layer in layers:
        if some and reach_of(*some, layer) > most:
            x, some = run(planes(nn.Sequential(*some)), x, reach=reach_of(*some)), []
        some.append(layer)
    return run(planes(nn.Sequential(*some)), x, reach=reach_of(*some)) if some else x


def pooled(x: Tensor, layers: nn.Module, run: Run) -> Any:
    """What `layers` make of the whole map's mean (B, C, 1, 1), to be given to a step."""
    dtype = next(layers.parameters()).dtype
    return run(same, x, sums=total, then=lambda sums, pixels: layers((sums / pixels).to(dtype)[..., None, None]))


def same(x: Tensor) -> Tensor:
    """The step that changes nothing, where only sums are wanted."""
    return x


def total(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C): the sum over pixels, in fp64."""
    return x.sum((1, 2), dtype=torch.float64)


def added(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two maps."""
    return x + y


def group_norm(x: Tensor, norm: nn.GroupNorm, run: Run) -> Any:
    """(B, H, W, C) -> what `normed` is given: (B, 2, C), factor and offset of each channel from the whole map."""

    def moments(part: Tensor) -> Tensor:  # -> (B, 2, groups)
        grouped = part.unflatten(-1, (norm.num_groups, -1)).double()
        return torch.stack([grouped.sum((1, 2, 4)), grouped.square().sum((1, 2, 4))], 1)

    def then(sums: Tensor, pixels: int) -> Tensor:
        per = norm.num_channels // norm.num_groups
        mean, squares = (sums / (pixels * per)).repeat_interleave(per, -1).unbind(1)  # each (B, C)
        factor = norm.weight.double() * (squares - mean.square() + norm.eps).rsqrt()
        return torch.stack([factor, norm.bias.double() - mean * factor], 1).to(norm.weight.dtype)

    return run(same, x, sums=moments, then=then)


def normed(x: Tensor, given: Tensor) -> Tensor:
    """(B, H, W, C) with each channel's factor and offset, given: (B, 2, C)."""
    factor, offset = given.to(x)[:, :, None, None].unbind(1)  # (B, 1, 1, C)
    return torch.addcmul(offset, x, factor)
