"""MoSR: gated convolution blocks after MambaOut (Yu and Wang, 2024)."""

from typing import Any

from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import planes, reach_of


def adapt(net: Any) -> Adapted | None:
    """MoSR with a walk; None with DySample, which looks as far as its input says."""
    shuffle = next((layer for layer in net.upsampler.modules() if isinstance(layer, nn.PixelShuffle)), None)
    if shuffle is None:
        return None
    return Adapted(net, _steps, scale=shuffle.upscale_factor, channels=net.gblocks[0].in_channels)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    first, *blocks = net.gblocks
    rest = nn.Sequential(*(layer for layer in blocks if not hasattr(layer, "fc1")))
    x = run(planes(first), picture, reach=1)
    for block in blocks:
        if hasattr(block, "fc1"):
            x = run(planes(block), x, reach=reach_of(block))

    def close(x: Tensor, picture: Tensor) -> Tensor:
        return net.upsampler(rest(x) + (net.shortcut(picture) - 0.5))

    reach = max(reach_of(rest), reach_of(net.shortcut.block)) + reach_of(net.upsampler)
    return run(planes(close), x, picture, reach=reach, out=out)
