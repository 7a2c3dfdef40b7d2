"""PLKSR (Lee et al., 2024) and RealPLKSR: in each block one convolution with a very large kernel, on some channels.

RealPLKSR ends each block in a group norm: mean and variance of the whole map.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.dysample import sampled
from srlib.adapters.layers import chain, group_norm, normed, planes, reach_of


def adapt(net: Any) -> Adapted:
    """PLKSR or RealPLKSR with a walk."""
    end = net.to_img  # or DySample
    scale = end.upscale_factor if isinstance(end, nn.PixelShuffle) else end.scale
    return Adapted(net, _steps, scale=scale, channels=net.feats[0].in_channels)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    first, *blocks, last = net.feats  # among the blocks, last, may be a dropout
    x = chain(picture, [first], run)
    for block in blocks:
        if hasattr(block, "lk"):
            x = _block(block, x, run)

    def close(x: Tensor, picture: Tensor) -> Tensor:
        return last(x) + net.repeat_op(picture)

    if not isinstance(net.to_img, nn.PixelShuffle):
        return sampled(net.to_img, run(planes(close), x, picture, reach=1), run, out)
    return run(planes(lambda x, picture: net.to_img(close(x, picture))), x, picture, reach=1, out=out)


def _block(block: Any, x: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same, written over x. Three steps, as only the large kernel's looks far."""
    mixer = block.channel_mixer if hasattr(block, "channel_mixer") else block.channe_mixer
    before = getattr(block, "layer_norm", nn.Identity())
    mixed = run(planes(lambda x: mixer(before(x))), x, reach=reach_of(mixer))
    few = block.lk.idx
    kernels = [layer for layer in block.lk.modules() if isinstance(layer, nn.Conv2d)]
    far = run(planes(lambda m: block.lk(m.clone())), mixed[..., :few], reach=max(map(reach_of, kernels)))
    norm = getattr(block, "norm", None)
    reach = reach_of(block.attn)
    if not isinstance(norm, nn.GroupNorm):
        return run(planes(partial(_refined, block, few)), mixed, far, x, reach=reach, out=x)
    y = run(planes(partial(_refined, block, few)), mixed, far, reach=reach)
    return run(_joined, y, x, given=group_norm(y, norm, run), out=x)


def _refined(block: Any, few: int, mixed: Tensor, far: Tensor, x: Tensor | None = None) -> Tensor:
    y = block.refine(block.attn(torch.cat([far, mixed[:, few:]], 1)))
    return y if x is None else y + x


def _joined(y: Tensor, x: Tensor, given: Tensor) -> Tensor:
    return normed(y, given) + x
