"""DRCT (Hsu et al., CVPR workshops 2024): in each group five Swin blocks, each of which sees all maps before it."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import reach_of
from srlib.adapters.windows import swin


def adapt(net: Any) -> Adapted | None:
    """DRCT with a walk; None for absolute positions, windows cut down at training, and no upsampler."""
    window = net.window_size
    uncut = all(group.swin2.window_size == window for group in net.layers)
    if net.ape or not uncut or net.upsampler != "pixelshuffle":
        return None
    channels = net.conv_first.in_channels
    return Adapted(net, _steps, scale=net.upscale, channels=channels, window=window, multiple=window)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    norm = net.patch_embed.norm or nn.Identity()

    def shallow(picture: Tensor) -> Tensor:  # -> (B, C, H, W)
        picture = picture.permute(0, 3, 1, 2)
        return net.conv_first((picture - net.mean.to(picture)) * net.img_range)

    def tail(x: Tensor, picture: Tensor) -> Tensor:
        x = net.conv_after_body(net.norm(x).permute(0, 3, 1, 2)) + shallow(picture)
        x = net.conv_last(net.upsample(net.conv_before_upsample(x)))
        return (x / net.img_range + net.mean.to(x)).permute(0, 2, 3, 1)

    x = run(lambda picture: norm(shallow(picture).permute(0, 2, 3, 1)), picture, reach=1)
    for group in net.layers:
        x = _group(group, x, run)
    ends = (net.conv_after_body, net.conv_before_upsample, net.upsample, net.conv_last)
    return run(tail, x, picture, reach=reach_of(*ends), out=out)


def _group(group: Any, x: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same, written over x; beside it the group keeps four maps of few channels."""
    maps = [x]
    for i in range(1, 5):
        block, adjust = getattr(group, f"swin{i}"), getattr(group, f"adjust{i}")
        maps.append(run(partial(_grown, block=block, adjust=adjust), *maps, shift=block.shift_size))
    last = partial(_last, block=group.swin5, adjust=group.adjust5)
    return run(last, *maps, shift=group.swin5.shift_size, out=x)


def _grown(*maps: Any, block: Any, adjust: nn.Conv2d) -> Tensor:
    """Maps (B, H, W, *), of a shifted step then what wrapped -> (B, H, W, new channels)."""
    return F.leaky_relu(_adjusted(*maps, block=block, adjust=adjust), 0.2)


def _last(*maps: Any, block: Any, adjust: nn.Conv2d) -> Tensor:
    return _adjusted(*maps, block=block, adjust=adjust) * 0.2 + maps[0]


def _adjusted(*maps: Any, block: Any, adjust: nn.Conv2d) -> Tensor:
    wrapped = () if isinstance(maps[-1], Tensor) else maps[-1:]
    maps = maps[: len(maps) - len(wrapped)]
    x = swin(torch.cat(maps, -1) if len(maps) > 1 else maps[0], *wrapped, block=block)
    return F.linear(x, adjust.weight[:, :, 0, 0], adjust.bias)
