"""Seeing what a network computes from the whole picture: means, variances and norms over height and width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Pooled:
    """What is to be used instead: mean and variance (N, G), the latter over all values and not one fewer; values: how
    many they are of.
    """

    mean: Tensor
    variance: Tensor
    values: int


Take = Callable[[Tensor], Pooled | None]


class PictureSums(TorchFunctionMode):
    """Within `with`, `take` is asked before each mean, variance or norm that the network takes over height and width.

    take: called with features (N, G, c, h, w), of which the network wants mean and variance over (c, h, w); returns
    what the network is given instead, None for its own. Seen are F.adaptive_avg_pool2d to one pixel, torch.mean, var,
    std and var_mean over both sides of (N, C, H, W) or (N, H, W, C), F.group_norm and F.instance_norm, in modules and
    functions alike; not what is inside a scripted or compiled network.
    """

    def __init__(self, take: Take):
        super().__init__()
        self.take = take

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        seen = _SEEN.get(function)
        instead = seen(self.take, *args, **kwargs) if seen else None
        return function(*args, **kwargs) if instead is None else instead


def frame_factor(features: Sequence[int], picture: Sequence[int]) -> float | None:
    """How many pixels of features (h, w) lie along one of the picture's, 2 or 1/4 say; the network may have added up
    to 64 pixels at its border. None where features of that shape are not the picture's: windows, what is pooled.
    """
    for factor in _FACTORS:
        added = [side / factor - of for side, of in zip(features, picture, strict=True)]
        if max(features) > 1 and all(-1 / factor < more <= 64 for more in added):
            return factor
    return None


_FACTORS = (8, 4, 3, 2, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


def _pool(take: Take, x: Tensor, output_size: Any = None) -> Tensor | None:
    if output_size not in (1, (1, 1), [1, 1]) or x.ndim != 4:
        return None
    found = take(x[:, :, None])
    return None if found is None else found.mean[..., None, None].to(x.dtype)  # (N, C, 1, 1)


def _moments(take: Take, x: Tensor, dim: Any, keepdim: bool) -> tuple[Tensor, Tensor, int] | None:
    """Mean, variance and number of values over the dimensions `dim`, in the shape that they are to have."""
    if x.ndim != 4 or dim is None or isinstance(dim, bool):
        return None
    dims = sorted(d % 4 for d in ([dim] if isinstance(dim, int) else dim))
    if dims == [2, 3]:
        found = take(x[:, :, None])  # (N, C, 1, h, w)
    elif dims == [1, 2]:
        found = take(x.permute(0, 3, 1, 2)[:, :, None])
    elif dims == [1, 2, 3]:
        found = take(x[:, None])  # (N, 1, C, h, w)
    else:
        return None
    if found is None:
        return None
    shape = [1 if d in dims else side for d, side in enumerate(x.shape)]
    if not keepdim:
        shape = [side for d, side in enumerate(x.shape) if d not in dims]
    return found.mean.reshape(shape), found.variance.reshape(shape), found.values


def _mean(take: Take, x: Tensor, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor | None:
    found = _moments(take, x, dim, keepdim)
    return None if found is None else found[0].to(more.get("dtype") or x.dtype)


def _var(
    take: Take, x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Tensor | None:
    found = _var_mean(take, x, dim, unbiased, keepdim, correction=correction)
    return None if found is None else found[0]


def _std(take: Take, *args: Any, **kwargs: Any) -> Tensor | None:
    variance = _var(take, *args, **kwargs)
    return None if variance is None else variance.sqrt()


def _var_mean(
    take: Take, x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor] | None:
    found = _moments(take, x, dim, keepdim)
    if found is None:
        return None
    mean, variance, values = found
    fewer = int(unbiased) if correction is None else correction
    return (variance * values / max(values - fewer, 1)).to(x.dtype), mean.to(x.dtype)


def _group_norm(
    take: Take, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor | None:
    if x.ndim != 4:
        return None
    found = take(x.unflatten(1, (num_groups, -1)))  # (N, G, c, h, w)
    if found is None:
        return None
    each = x.shape[1] // num_groups
    mean, factor = (
        t.repeat_interleave(each, 1)[..., None, None].to(x.dtype) for t in (found.mean, (found.variance + eps).rsqrt())
    )
    y = (x - mean) * factor
    weight, bias = (None if t is None else t.view(-1, 1, 1).to(x.dtype) for t in (weight, bias))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _instance_norm(
    take: Take,
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    return _group_norm(take, x, x.shape[1], weight, bias, eps) if use_input_stats else None


_SEEN: dict[Callable, Callable[..., Any]] = {
    F.adaptive_avg_pool2d: _pool,
    torch.mean: _mean,
    torch.Tensor.mean: _mean,
    torch.var: _var,
    torch.Tensor.var: _var,
    torch.std: _std,
    torch.Tensor.std: _std,
    torch.var_mean: _var_mean,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
}
