"""MoSR: gated convolution blocks after MambaOut (Yu and Wang, 2024)."""

from typing import Any

from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.dysample import sampled
from srlib.adapters.layers import planes, reach_of


def adapt(net: Any) -> Adapted:
    """MoSR with a walk."""
    shuffle = _shuffle(net)
    scale = shuffle.upscale_factor if shuffle else net.upsampler.scale
    return Adapted(net, _steps, scale=scale, channels=net.gblocks[0].in_channels)


def _shuffle(net: Any) -> nn.PixelShuffle | None:
    """None where the upsampler is DySample."""
    return next((layer for layer in net.upsampler.modules() if isinstance(layer, nn.PixelShuffle)), None)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    first, *blocks = net.gblocks
    rest = nn.Sequential(*(layer for layer in blocks if not hasattr(layer, "fc1")))
    x = run(planes(first), picture, reach=1)
    for block in blocks:
        if hasattr(block, "fc1"):
            x = run(planes(block), x, reach=reach_of(block))

    def close(x: Tensor, picture: Tensor) -> Tensor:
        return rest(x) + (net.shortcut(picture) - 0.5)

    reach = max(reach_of(rest), reach_of(net.shortcut.block))
    if _shuffle(net) is None:
        return sampled(net.upsampler, run(planes(close), x, picture, reach=reach), run, out)
    reach += reach_of(net.upsampler)
    return run(planes(lambda x, picture: net.upsampler(close(x, picture))), x, picture, reach=reach, out=out)
