"""DAT (Chen et al., ICCV 2023): attention between pixels, in two kinds of rectangles, and between channels, in turns.

What comes from the whole map: the matrix of a channel block (products of queries and keys over all pixels), and in
every block a gate for each channel from a mean. A channel block's gate needs no second pass, as the mean of
matrix * values is matrix * the mean of the values.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import pooled, reach_of
from srlib.adapters.windows import hidden

# In comments: B batch, H W height and width, C channels, h heads, c = C/h.


def adapt(net: Any) -> Adapted:
    """DAT with a walk."""
    window = math.lcm(*_split(net))
    return Adapted(net, _steps, scale=net.upscale, channels=net.conv_first.in_channels, window=window, minimum=16)


def _split(net: Any) -> list[int]:
    return net.layers[0].blocks[0].attn.split_size


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    norm = net.before_RG[1]

    def head(picture: Tensor) -> Tensor:
        return norm(_shallow(net, picture.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    x = run(head, picture, reach=1)
    inside = torch.ones(1, 1, 1, 1, dtype=x.dtype, device=x.device).expand(*x.shape[:3], 1)
    for group in net.layers:
        x = _group(group, x, inside, run)
    ends = ("conv_after_body", "conv_before_upsample", "upsample", "conv_last")
    reach = reach_of(*(getattr(net, name) for name in ends if hasattr(net, name)))
    return run(partial(_tail, net), x, picture, reach=reach, out=out)


def _group(group: Any, x: Tensor, inside: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same, written over x."""
    y = x
    for block in group.blocks:
        y = (_channel_block if hasattr(block.attn, "temperature") else _spatial_block)(block, y, inside, run)

    def close(y: Tensor, x: Tensor) -> Tensor:
        return group.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + x

    return run(close, y, x, reach=reach_of(group.conv), out=x)


def _spatial_block(block: Any, x: Tensor, inside: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same. inside: (B, H, W, 1), ones; beyond the picture, where maps are extended, zeros."""
    attention = block.attn
    halves = []
    for branch, shift in zip(attention.attns, (attention.shift_size, attention.shift_size[::-1]), strict=True):
        shift = tuple(shift) if attention.attn_mask_0 is not None else 0
        step = partial(_attended, block=block, branch=branch, shift=shift)
        halves.append(run(step, x, inside, shift=shift, multiple=max(attention.split_size)))
    convolved = run(lambda x: _convolved(attention, _values(block, x)), x, reach=1)
    gate = pooled(convolved, attention.channel_interaction, run)

    def join(x: Tensor, one: Tensor, other: Tensor, convolved: Tensor, given: Tensor) -> Tensor:
        attended = torch.cat([one, other], -1)
        attended, convolved = attended * _gate(given, attended), convolved * _pixels(attention, attended)
        return _forward(block, x + attention.proj(attended + convolved))

    return run(join, x, *halves, convolved, reach=1, given=gate)


def _attended(
    x: Tensor,
    inside: Tensor,
    wrapped: tuple[bool, bool] = (False, False),
    *,
    block: Any,
    branch: Any,
    shift: Any,
) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C/2): half of the channels, through attention in this branch's rectangles."""
    B, H, W, C = x.shape
    some = slice(branch.idx * C // 2, (branch.idx + 1) * C // 2)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    weight = weight.unflatten(0, (3, C))[:, some].flatten(0, 1)
    bias = None if bias is None else bias.unflatten(0, (3, C))[:, some].flatten()
    qkv = F.linear(block.norm1(x), weight, bias) * inside  # the network extends these with zeros, and not x
    qkv = qkv.flatten(1, 2).unflatten(2, (3, -1)).permute(2, 0, 1, 3)  # (3, B, H*W, C/2)
    mask = hidden(x, branch.H_sp, branch.W_sp, shift, wrapped) if shift else None
    return branch(qkv, H, W, mask=mask)


def _channel_block(block: Any, x: Tensor, _inside: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same."""
    attention = block.attn
    heads, dtype = attention.num_heads, attention.temperature.dtype

    def project(x: Tensor) -> Tensor:
        return attention.qkv(block.norm1(x))

    def products(qkv: Tensor) -> Tensor:  # -> (B, h, c, c + 3): q k^T, the rows' squared norms, the values' sums
        q, k, v = qkv.flatten(1, 2).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 4, 1).to(dtype)  # (B, h, c, H*W)
        sums = [part.sum(-1, keepdim=True) for part in (q.square(), k.square(), v)]
        return torch.cat([q @ k.mT, *sums], -1)

    def then(sums: Tensor, pixels: int) -> Tensor:  # -> (B, C, C + 1): the matrix, and before its sigmoid the gate
        sums = sums.to(dtype)
        q, k = (sums[..., i].sqrt().clamp(min=1e-12) for i in (-3, -2))
        scores = sums[..., :-3] / (q[..., :, None] * k[..., None, :]) * attention.temperature
        matrix = scores.softmax(-1)  # (B, h, c, c)
        mean = (matrix @ (sums[..., -1:] / pixels)).flatten(1, 2)  # (B, C, 1)
        gate = attention.channel_interaction(mean[..., None])  # (B, C, 1, 1)
        whole = torch.stack([torch.block_diag(*blocks) for blocks in matrix])
        return torch.cat([whole, gate[..., 0]], -1)

    def join(x: Tensor, given: Tensor) -> Tensor:
        values = _values(block, x)
        attended = values @ given[:, None, :, :-1].mT.to(values)
        convolved = _convolved(attention, values)
        attended, convolved = (
            attended * _pixels(attention, convolved),
            convolved * given[:, None, None, :, -1].sigmoid(),
        )
        return _forward(block, x + attention.proj(attended + convolved))

    given = run(project, x, sums=products, then=then)
    return run(join, x, reach=2, given=given)


def _values(block: Any, x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same."""
    C, qkv = x.shape[-1], block.attn.qkv
    return F.linear(block.norm1(x), qkv.weight[2 * C :], None if qkv.bias is None else qkv.bias[2 * C :])


def _convolved(attention: Any, values: Tensor) -> Tensor:
    return attention.dwconv(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _pixels(attention: Any, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H, W, 1): a gate for each pixel."""
    return attention.spatial_interaction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).sigmoid()


def _gate(given: Tensor, x: Tensor) -> Tensor:
    """(B, C, 1, 1) -> (B, 1, 1, C)."""
    return given.permute(0, 2, 3, 1).sigmoid().to(x)


def _forward(block: Any, x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same, the feed-forward network's answer added; it looks at one pixel around each."""
    H, W = x.shape[1:3]
    return x + block.ffn(block.norm2(x).flatten(1, 2), H, W).unflatten(1, (H, W))


def _shallow(net: Any, picture: Tensor) -> Tensor:
    """(B, channels, H, W) -> (B, C, H, W); both ends need it, and it is cheaper to repeat than to keep."""
    return net.conv_first((picture - net.mean.to(picture)) * net.img_range)


def _tail(net: Any, x: Tensor, picture: Tensor) -> Tensor:
    """(B, H, W, C), (B, H, W, channels) -> (B, H*scale, W*scale, channels)."""
    x = net.conv_after_body(net.norm(x).permute(0, 3, 1, 2)) + _shallow(net, picture.permute(0, 3, 1, 2))
    classical = net.upsampler == "pixelshuffle"
    x = net.conv_last(net.upsample(net.conv_before_upsample(x))) if classical else net.upsample(x)
    return (x / net.img_range + net.mean.to(x)).permute(0, 2, 3, 1)
