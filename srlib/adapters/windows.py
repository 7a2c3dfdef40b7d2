"""Attention in windows, of a chunk of a map: windows cut and joined, and who is no neighbour in a shifted map."""

from typing import Any

import torch
from torch import Tensor

# In comments: B batch, H W height and width of the map or chunk, C channels, m x n pixels of a window, nW windows of a
# map, N = m*n.


def cut(x: Tensor, m: int, n: int) -> Tensor:
    """(B, H, W, C) -> (B*nW, N, C)."""
    x = x.unflatten(2, (-1, n)).unflatten(1, (-1, m))  # (B, H/m, m, W/n, n, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join(windows: Tensor, like: Tensor, m: int, n: int) -> Tensor:
    """(B*nW, N, C) -> (B, H, W, C) of the size of `like`."""
    B, H, W = like.shape[:3]
    return windows.view(B, H // m, W // n, m, n, -1).transpose(2, 3).reshape(B, H, W, -1)


def strangers(x: Tensor, m: int, n: int, shift: tuple[int, int], wrapped: tuple[bool, bool]) -> Tensor | None:
    """Which pixels of a shifted chunk (B, H, W, C) must not see each other: (nW, N, N), or None where all may.

    wrapped: whether the last `shift` rows, columns come from the picture's other end.
    """
    if not any(wrapped):
        return None
    H, W = x.shape[1:3]
    rows, columns = torch.zeros(H, 1, device=x.device), torch.zeros(1, W, device=x.device)
    if wrapped[0]:
        rows[H - shift[0] :] = 2
    if wrapped[1]:
        columns[:, W - shift[1] :] = 1
    region = cut((rows + columns)[None, :, :, None], m, n)  # (nW, N, 1)
    return region != region.mT


def hidden(x: Tensor, m: int, n: int, shift: tuple[int, int], wrapped: tuple[bool, bool]) -> Tensor | None:
    """The same as a mask to add to logits: -100, as these networks have it, where pixels must not see each other."""
    apart = strangers(x, m, n, shift, wrapped)
    return None if apart is None else apart.to(x.dtype) * -100.0


def swin(x: Tensor, wrapped: tuple[bool, bool] = (False, False), *, block: Any, after: bool = False) -> Tensor:
    """A Swin transformer block as a step: (B, H, W, C) -> the same. after: norms come after attention and MLP (v2)."""
    w, shift = block.window_size, block.shift_size
    attention, norm1, norm2 = block.attn, block.norm1, block.norm2
    mask = hidden(x, w, w, (shift, shift), wrapped)
    y = join(attention(cut(x if after else norm1(x), w, w), mask=mask), x, w, w)
    x = x + (norm1(y) if after else y)
    return x + (norm2(block.mlp(x)) if after else block.mlp(norm2(x)))
