"""SCUNet (Zhang et al., 2022): a U-net whose blocks are half a Swin block, half two convolutions."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import planes
from srlib.adapters.windows import cut, join, strangers

_GRID = 64  # pixels that the network pads to: windows of 8 at an eighth of the size


def adapt(net: Any) -> Adapted:
    """SCUNet with a walk."""
    return Adapted(net, _steps, scale=1, channels=net.m_head[0].in_channels, window=_GRID, minimum=40)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    x = run(planes(net.m_head), padded(x, _GRID), reach=1)
    skips = []
    for stage in (net.m_down1, net.m_down2, net.m_down3):
        skips.append(x)
        *blocks, down = stage
        x = run(planes(down), _blocks(blocks, x, run))
    skips.append(x)
    x = _blocks(net.m_body, x, run)
    for stage in (net.m_up3, net.m_up2, net.m_up1):
        up, *blocks = stage
        x = run(planes(lambda x, skip, up=up: up(x + skip)), x, skips.pop())
        x = _blocks(blocks, x, run)
    return run(planes(lambda x, skip: net.m_tail(x + skip)), x, skips.pop(), reach=1, out=out)


def _blocks(blocks: Any, x: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same."""
    for block in blocks:
        attention = block.trans_block.msa
        shift = 0 if attention.type == "W" else attention.window_size // 2
        attended = run(partial(_attended, block=block), x, shift=shift)
        x = run(partial(_joined, block), x, attended, reach=2)
    return x


def _attended(x: Tensor, wrapped: tuple[bool, bool] = (False, False), *, block: Any) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C/2): the second half of the channels, through the Swin block."""
    inner, first = block.trans_block, block.conv_dim
    x = F.linear(x, block.conv1_1.weight[first:, :, 0, 0], block.conv1_1.bias[first:])
    x = x + _attention(inner.msa, inner.ln1(x), wrapped)
    return x + inner.mlp(inner.ln2(x))


def _attention(msa: Any, x: Tensor, wrapped: tuple[bool, bool]) -> Tensor:
    """(B, H, W, C) -> the same. Shapes below: G windows of all pictures, N pixels of each, h heads of d channels."""
    w = msa.window_size
    qkv = cut(msa.embedding_layer(x), w, w)  # (G, N, 3*h*d)
    q, k, v = qkv.unflatten(2, (3, -1, msa.head_dim)).permute(2, 0, 3, 1, 4)  # each (G, h, N, d)
    bias = msa.relative_embedding()[None].to(q)  # (1, h, N, N)
    apart = strangers(x, w, w, (w // 2, w // 2), wrapped)  # (nW, N, N)
    if apart is not None:
        bias = bias.masked_fill(apart.repeat(len(x), 1, 1)[:, None], float("-inf"))  # (G, h, N, N)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(q), -1, -1, -1), scale=msa.scale)
    return msa.linear(join(y.transpose(1, 2).flatten(2), x, w, w))


def _joined(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """(B, H, W, C), (B, H, W, C/2) -> (B, H, W, C): the first half through two convolutions, beside the second."""
    half, whole = block.conv_dim, block.conv1_2
    y = F.linear(x, block.conv1_1.weight[:half, :, 0, 0], block.conv1_1.bias[:half])
    y = y + block.conv_block(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return x + F.linear(torch.cat([y, attended], -1), whole.weight[:, :, 0, 0], whole.bias)
