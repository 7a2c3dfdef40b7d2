"""SwinIR (Liang et al., 2021) and Swin2SR (Conde et al., 2022): groups of Swin blocks, each closed by a convolution."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import reach_of
from srlib.adapters.windows import swin


def adapt(net: Any) -> Adapted | None:
    """SwinIR or Swin2SR with a walk; None for rare kinds: absolute positions, folded pixels, two answers."""
    window = net.window_size
    blocks = [block for group in net.layers for block in group.residual_group.blocks]
    rare = net.ape or getattr(net, "start_unshuffle", 1) != 1 or any(block.window_size != window for block in blocks)
    if rare or net.upsampler in ("pixelshuffle_aux", "pixelshuffle_hf"):
        return None
    channels = net.conv_first.in_channels
    return Adapted(net, _steps, scale=net.upscale, channels=channels, window=window, minimum=max(16, window))


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, net.window_size)
    embed = getattr(net.patch_embed, "proj", nn.Identity())  # of Swin2SR
    norm = net.patch_embed.norm or nn.Identity()

    def head(picture: Tensor) -> Tensor:
        x = embed(_shallow(net, picture.permute(0, 3, 1, 2)))
        return norm(x.permute(0, 2, 3, 1))

    x = run(head, picture, reach=1)
    for group in net.layers:
        x = _group(group, x, run)
    ends = ("conv_after_body", "conv_before_upsample", "upsample", "conv_last")
    reach = reach_of(*(getattr(net, name) for name in ends if hasattr(net, name))) + 1  # nearest: 3 convolutions, 1 LR
    return run(partial(_tail, net), x, picture, reach=reach, out=out)


def _group(group: Any, x: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same, written over x."""
    y = None
    for block in group.residual_group.blocks:
        after = hasattr(block.attn, "logit_scale")  # of Swin2SR
        step = partial(swin, block=block, after=after)
        y = run(step, x if y is None else y, shift=block.shift_size, out=y)
    project = getattr(group.patch_embed, "proj", nn.Identity())

    def close(y: Tensor, x: Tensor) -> Tensor:
        return project(group.conv(y.permute(0, 3, 1, 2))).permute(0, 2, 3, 1) + x

    return run(close, y, x, reach=reach_of(group.conv), out=x)


def _shallow(net: Any, picture: Tensor) -> Tensor:
    """(B, channels, H, W) -> (B, C, H, W); both ends need it, and it is cheaper to repeat than to keep."""
    return net.conv_first((picture - net.mean.to(picture)) * net.img_range)


def _tail(net: Any, x: Tensor, picture: Tensor) -> Tensor:
    """(B, H, W, C), (B, H, W, channels) -> (B, H*scale, W*scale, channels)."""
    mean, picture = net.mean.to(picture), picture.permute(0, 3, 1, 2)
    x = net.conv_after_body(net.norm(x).permute(0, 3, 1, 2)) + _shallow(net, picture)
    if net.upsampler == "pixelshuffle":
        x = net.conv_last(net.upsample(net.conv_before_upsample(x)))
    elif net.upsampler == "pixelshuffledirect":
        x = net.upsample(x)
    elif net.upsampler == "nearest+conv":
        x = net.conv_before_upsample(x)
        for conv in (getattr(net, f"conv_up{i}", None) for i in (1, 2, 3)):
            if conv is not None:
                x = net.lrelu(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
        x = net.conv_last(net.lrelu(net.conv_hr(x)))
    else:
        x = net.conv_last(x) + (picture - mean) * net.img_range
    return (x / net.img_range + mean).permute(0, 2, 3, 1)
