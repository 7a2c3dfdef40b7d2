"""HAT's two kinds of attention in windows, and the layer behind them, as fast and as small as the device allows.
Imports nothing of the project.

Shapes in comments: B batch, H W height and width, m x n pixels of a window, G = B*nW windows of all pictures, h heads,
N queries and M keys of a window, d channels of a head, d' the same padded.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


class Tables(NamedTuple):
    """What all layers share: the row of the bias tables for each pair of query and key."""

    self_index: Tensor  # (N, N)
    overlap_index: Tensor  # (N, M)


class WindowAttention(nn.Module):
    """Self-attention inside each window with a learned bias by relative position."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.window = window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, wrapped: tuple[bool, bool] = (False, False), *, tables: Tables) -> Tensor:
        """x: (B, H, W, C) -> the same. wrapped: of a shifted map, whether its last rows and its last columns
        come from the picture's other end.

        There pixels must not see their new neighbours. The paper masks these in the logits; here such windows are
        cut in two (the corner in four), which is the same attention with less work and no mask to keep.
        """
        qkv = to_heads(x, self.qkv.weight, self.qkv.bias, 3 * self.heads)
        w = self.window
        bias = position_bias(self.relative_position_bias_table, tables.self_index)  # (h, N, N)
        bias = bias.unflatten(2, (w, w)).unflatten(1, (w, w))
        rows = []
        for band, m in _bands(qkv, 1, w, wrapped[0]):  # windows of m x n pixels
            row = []
            for part, n in _bands(band, 2, w, wrapped[1]):
                part = as_windows(part, m, n)
                some = bias[:, :m, :n, :m, :n].reshape(self.heads, m * n, m * n)
                row.append(
                    from_windows(attend(*split_windows(part, 3, self.heads), bias=some, scale=self.scale), part.shape)
                )
            rows.append(_joined(row, 2))
        return from_heads(_joined(rows, 1), self.proj, self.heads)


class OverlapAttention(nn.Module):
    """Cross-attention from each window to a larger one around it; outside the picture keys are zero."""

    def __init__(self, dim: int, heads: int, window: int, key_window: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.window = window
        self.key_window = key_window
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window + key_window - 1) ** 2, heads))
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, run: Callable, tables: Tables) -> Tensor:
        """x: (B, H, W, C) -> the same."""
        margin = (self.key_window - self.window) // 2
        kv = run(self._keys_values, x)
        return run(partial(self._attend, tables=tables), x, kv, margin=margin, out=x)

    def _keys_values(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, 2*h*d'): each head's key, then each head's value."""
        C = x.shape[-1]
        return to_heads(self.norm1(x), self.qkv.weight[C:], self.qkv.bias[C:], 2 * self.heads)

    def _attend(self, x: Tensor, kv: Tensor, tables: Tables) -> Tensor:
        """x: (B, H, W, C), kv: (B, H + 2*margin, W + 2*margin, 2*h*d') -> as x."""
        C, w = x.shape[-1], self.window
        q = as_windows(to_heads(self.norm1(x), self.qkv.weight[:C], self.qkv.bias[:C], self.heads), w, w)
        kv = torch.cat(key_parts(kv, 1, w, self.key_window), 2)  # (B, H/w, kw, W + 2*margin, 2*h*d')
        kv = kv.unflatten(4, (2, self.heads, -1)).permute(4, 0, 1, 5, 2, 3, 6)  # (2, B, H/w, h, kw, W + 2*margin, d')
        kv = torch.cat([p.movedim(5, 3) for p in key_parts(kv, 5, w, self.key_window)], 6)
        k, v = kv.flatten(5, 6).flatten(1, 3)  # each (B*nW, h, kw*kw, d')
        bias = position_bias(self.relative_position_bias_table, tables.overlap_index)
        out = attend(split_windows(q, 1, self.heads).squeeze(0), k, v, bias=bias, scale=self.scale)
        x = x + from_heads(from_windows(out, q.shape), self.proj, self.heads)
        return x + self.mlp(x, self.norm2)


class Mlp(nn.Module):
    """fc2(gelu(fc1(norm x))), pixel by pixel."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.recompute = True
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Of norm(x). In training its hidden maps, the widest there are, are computed twice and not kept."""
        if self.recompute and torch.is_grad_enabled() and x.requires_grad:
            return checkpoint(self._forward, x, norm, use_reentrant=False, preserve_rng_state=False)
        return self._forward(x, norm)

    def _forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        x = F.gelu(linear(norm(x), self.fc1.weight, self.fc1.bias))
        return linear(x, self.fc2.weight, self.fc2.bias)


def as_windows(x: Tensor, m: int, n: int) -> Tensor:
    """(B, H, W, C) -> (B, H/m, m, W/n, n, C), a view."""
    return x.unflatten(2, (-1, n)).unflatten(1, (-1, m))


def key_parts(x: Tensor, dim: int, window: int, key_window: int) -> list[Tensor]:
    """What precedes, fills and follows each window along `dim`, k*window pixels and a margin at each end; the
    dimension becomes two, (k, pixels). Together: x.unfold(dim, key_window, window), but with a fast gradient.
    """
    margin = (key_window - window) // 2
    length = x.shape[dim] - 2 * margin
    parts = ((0, 0, margin), (margin, 0, window), (2 * margin, window - margin, margin))
    return [x.narrow(dim, at, length).unflatten(dim, (-1, window)).narrow(dim + 1, i, n) for at, i, n in parts]


def split_windows(x: Tensor, parts: int, heads: int) -> Tensor:
    """(B, H/m, m, W/n, n, parts*h*d) -> (parts, B*nW, h, m*n, d)."""
    x = x.unflatten(5, (parts, heads, -1)).permute(5, 0, 1, 3, 6, 2, 4, 7)  # (parts, B, H/m, W/n, h, m, n, d)
    return x.flatten(5, 6).flatten(1, 3)


def from_windows(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B*nW, h, m*n, d) -> (B, H, W, h*d); shape: that of as_windows, (B, H/m, m, W/n, n, ...)."""
    B, rows, m, columns, n = shape[:5]
    x = x.view(B, rows, columns, x.shape[1], m, n, x.shape[3]).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(B, rows * m, columns * n, -1)


def position_bias(table: Tensor, index: Tensor) -> Tensor:
    """table (rows, h), index (N, M) of its rows -> (h, N, M). A gather: its gradient is ten times indexing's speed."""
    return table.t().gather(1, index.flatten().expand(table.shape[1], -1)).unflatten(1, index.shape)


def to_heads(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """A linear layer (B, H, W, C) -> (B, H, W, heads*d') whose heads are padded with zeros from d channels to d'."""
    d = len(weight) // heads
    pad = -d % (8 if x.is_cuda else 4)  # what fused kernels take, or are fastest with; weights are cheap to pad
    if pad:
        weight = F.pad(weight.unflatten(0, (heads, d)), (0, 0, 0, pad)).flatten(0, 1)
        bias = F.pad(bias.unflatten(0, (heads, d)), (0, pad)).flatten()
    return linear(x, weight, bias)


def from_heads(x: Tensor, layer: nn.Linear, heads: int) -> Tensor:
    """The linear layer after the attention: (B, H, W, heads*d') -> (B, H, W, C)."""
    weight = layer.weight
    pad = (x.shape[3] - weight.shape[1]) // heads
    if pad:
        weight = F.pad(weight.unflatten(1, (heads, -1)), (0, pad)).flatten(1)
    return linear(x, weight, layer.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.linear of maps (B, H, W, C). In fp32 on a CPU a 1x1 convolution: oneDNN's can be twice as fast as the
    matrix product of MKL that F.linear takes there.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    if not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    return F.conv2d(x.permute(0, 3, 1, 2), weight[..., None, None], bias).permute(0, 2, 3, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k^T + bias) v: q (G, h, N, d), k and v (G, h, M, d), bias (h, N, M) -> as q.

    Scores do not overflow in fp16, however large q and k are.
    """
    if q.is_cuda and not torch.compiler.is_compiling() and len(q) > 65535:  # the kernels' largest batch
        parts = zip(*(x.split(65535) for x in (q, k, v)), strict=True)
        return torch.cat([attend(*part, bias=bias, scale=scale) for part in parts])
    trained = bias.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling() or q.device.type != "cpu" or not (trained or q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=scale)
    dtype = torch.float32 if q.dtype == torch.float16 else q.dtype
    with torch.autocast("cpu", enabled=False):
        return _CachedAttention.apply(*(x.to(dtype).contiguous() for x in (q, k, v)), bias, scale).to(q.dtype)


class _CachedAttention(torch.autograd.Function):
    """`attend` for CPUs, some windows at a time, so that their scores stay in the cache and are never kept.

    PyTorch's fused kernel there gives the bias no gradient, and is no faster in bf16 than in fp32.
    """

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, bias)
        ctx.scale = scale
        if q.dtype == torch.float32:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.detach()[None].to(q.dtype), scale=scale)
        out = torch.empty_like(q)
        for some, weights, _ in _portions(q, k, bias, scale):
            torch.bmm(weights, v.flatten(0, 1)[some], out=out.flatten(0, 1)[some])
        return out

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, bias = ctx.saved_tensors
        results = [torch.empty_like(x) for x in (q, k, v)]
        dbias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        g, Q, K, V, dQ, dK, dV = (x.flatten(0, 1) for x in (gradient.contiguous(), q, k, v, *results))
        for some, weights, d in _portions(q, k, bias, ctx.scale):
            torch.bmm(weights.mT, g[some], out=dV[some])
            torch.bmm(g[some], V[some].mT, out=d).mul_(weights)  # the weights' gradient, on its way to the scores'
            d.addcmul_(weights, d.sum(-1, keepdim=True), value=-1)
            dbias += d.unflatten(0, (-1, len(bias))).sum(0)
            torch.bmm(d, K[some], out=dQ[some])
            torch.bmm(d.mT, Q[some], out=dK[some])
        return results[0].mul_(ctx.scale), results[1].mul_(ctx.scale), results[2], dbias.to(bias.dtype), None


def _portions(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which of the G*h, their softmaxed scores (g*h, N, M), as much room to work in), about 2 MB of each at a time."""
    heads = len(bias)
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    step = min(heads * max(2**21 // (bias.numel() * q.element_size()), 1), len(q))
    room = [q.new_empty(step, *bias.shape[1:]) for _ in range(2)]
    for i in range(0, len(q), step):
        some = slice(i, min(i + step, len(q)))
        weights, scores = (r[: some.stop - i] for r in room)
        scores.unflatten(0, (-1, heads)).copy_(bias)
        yield some, torch.softmax(scores.baddbmm_(q[some], k[some].mT, alpha=scale), -1, out=weights), scores


def _bands(x: Tensor, dim: int, window: int, wrapped: bool) -> list[tuple[Tensor, int]]:
    """x along `dim` in parts, each with the side of its windows: the last window, wrapped, is halved."""
    if not wrapped:
        return [(x, window)]
    size = x.shape[dim]
    if size == window:
        return [(x, window // 2)]
    first, last = x.split([size - window, window], dim)
    return [(first, window), (last, window // 2)]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def relative_index(window: int, key_window: int) -> Tensor:
    """(window**2, key_window**2) row of the bias table for each pair of query and key pixel.

    For the larger key window some rows come out negative and so count from the table's end: that is how
    the published weights were trained.
    """
    queries = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # (N, 2): y, x
    keys = torch.cartesian_prod(torch.arange(key_window), torch.arange(key_window))
    relative = keys[None] - queries[:, None]
    if window == key_window:
        relative = -relative
        start = window - 1
    else:
        start = window - key_window + 1
    relative = relative + start
    return relative[..., 0] * (window + key_window - 1) + relative[..., 1]
