"""SPAN (Wan et al., CVPR workshops 2024): six blocks of three convolutions and an attention without parameters."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import planes


def adapt(net: Any) -> Adapted:
    """SPAN with a walk."""
    scale = round((net.upsampler[0].out_channels // net.out_channels) ** 0.5)
    return Adapted(net, _steps, scale=scale, channels=net.in_channels)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    for layer in net.modules():
        if hasattr(layer, "update_params"):
            layer.update_params()  # three convolutions as one, here once and not for each chunk

    def head(picture: Tensor) -> Tensor:
        return _conv(net.conv_1, (picture - net.mean.to(picture)) * net.img_range if net.is_norm else picture)

    def tail(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        x, inner = _block(net.block_6, x)
        x = net.conv_cat(torch.cat([first, _conv(net.conv_2, x), second, inner], 1))
        return net.upsampler(x)

    first = run(planes(head), padded(x, 1), reach=1)
    x = second = run(planes(lambda x: _block(net.block_1, x)[0]), first, reach=3)
    for block in (net.block_2, net.block_3, net.block_4, net.block_5):
        x = run(planes(lambda x, block=block: _block(block, x)[0]), x, reach=3)
    return run(planes(tail), x, first, second, reach=5, out=out)


def _block(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> the block's answer, and its first convolution's, after the activation, that works in place."""
    first = block.act1(_conv(block.c1_r, x))
    third = _conv(block.c3_r, block.act1(_conv(block.c2_r, first)))
    return (third + x) * (torch.sigmoid(third) - 0.5), first


def _conv(layer: Any, x: Tensor) -> Tensor:
    x = layer.eval_conv(x)
    return F.leaky_relu(x, negative_slope=0.05) if layer.has_relu else x
