"""RCAN (Zhang et al., ECCV 2018): residual blocks, each with a gate for its channels from the whole map's mean."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import planes, pooled, reach_of


def adapt(net: Any) -> Adapted:
    """RCAN with a walk."""
    fold = net.downscale_factor
    channels = next(layer for layer in net.head if isinstance(layer, nn.Conv2d)).in_channels // fold**2
    return Adapted(net, _steps, scale=net.scale, channels=channels, window=fold, minimum=fold)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    *groups, last = net.body

    def head(picture: Tensor) -> Tensor:
        return net.head(net.sub_mean(picture * net.rgb_range))

    def close(x: Tensor, first: Tensor) -> Tensor:
        return net.add_mean(net.tail(last(x) + first)) / net.rgb_range

    first = x = run(planes(head), padded(x, net.downscale_factor), reach=reach_of(net.head))
    for group in groups:
        x = _group(group, x, run)
    return run(planes(close), x, first, reach=reach_of(last, net.tail), out=out)


def _group(group: Any, x: Tensor, run: Run) -> Tensor:
    *blocks, last = group.body
    y = x
    for block in blocks:
        *layers, attention = block.body
        convs = nn.Sequential(*layers)
        local = run(planes(convs), y, reach=reach_of(convs))
        y = run(planes(_gated), local, y, given=pooled(local, attention.conv_du, run), out=local)
    return run(planes(partial(_closed, last)), y, x, reach=reach_of(last))


def _gated(local: Tensor, x: Tensor, given: Tensor) -> Tensor:
    return local * given.to(local) + x


def _closed(conv: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    return conv(y) + x
