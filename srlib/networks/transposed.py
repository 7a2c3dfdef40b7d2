"""Transposed attention: channels attend to channels, by a matrix that is computed from the whole picture.

The blocks of Restormer and Phaseformer (restormer.py) and of DiffIR (diffir.py). Each is a few steps, functions of
maps (B, H, W, C) that look at a bounded neighbourhood, and a sum over pixels between them; whoever runs them decides
how (walk.py).

Shapes in comments: B batch, H W height and width, C channels, h heads, c = C/h, G hidden channels, P of a prior.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """x + attention(norm x), then x + ffn(norm x); prior: numbers about the picture that scale and shift both norms."""

    def __init__(self, dim: int, heads: int, *, ffn: float, bias: bool, norm: str, attention: str, prior: int = 0):
        super().__init__()
        self.norm1 = Norm(dim, norm)
        self.attn = Attention(dim, heads, bias, attention, prior)
        self.norm2 = Norm(dim, norm)
        self.ffn = FeedForward(dim, int(dim * ffn), bias, prior)

    def forward(self, x: Tensor, run: Callable[..., Any], prior: Tensor | None = None) -> Tensor:
        """x: (B, H, W, C), prior: (B, P) -> as x."""
        norm1, norm2 = _modulated(self.norm1, self.attn, prior), _modulated(self.norm2, self.ffn, prior)
        matrix = self.attn.matrix(x, norm1, run)
        y = run(partial(self.attn.mixed, norm=norm1), x, reach=1, given=matrix)
        return run(partial(self.ffn, norm=norm2), y, reach=1, out=x)


def _kernel(prior: int, dim: int) -> nn.Sequential:
    """(B, P) -> (B, 2*C): what a norm's channels are multiplied by, and what is added.

    A prior of ones, which is about what its encoder begins with, changes nothing at first: the network begins as one
    without prior, where weights around 0 would switch its blocks off and it would take long to switch them on.
    """
    linear = nn.Linear(prior, 2 * dim, bias=False)
    with torch.no_grad():
        linear.weight *= 0.1
        linear.weight[:dim] += 1 / prior
    return nn.Sequential(linear)


def _modulated(norm: nn.Module, part: nn.Module, prior: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The norm as it is, or as the prior wants it for this part of the block."""
    if prior is None:
        return norm
    scale, shift = cast(nn.Module, part.kernel)(prior)[:, None, None].chunk(2, -1)  # (B, 1, 1, C)
    return lambda x: torch.addcmul(shift.to(x), norm(x), scale.to(x))


class Attention(nn.Module):
    """Multi-Dconv head transposed attention (Restormer, section 3.1), folded with its output projection into one matrix
    (C, C) for each picture: out = project_out(softmax(q k^T * temperature) v) is linear in v.

    kind: "phase" keeps of q and k only the phases of their 2-D spectra (Phaseformer). Such maps have norm 1, and by
    Parseval q k^T is the mean over frequencies of cos(phase q - phase k): no inverse transform is needed.
    """

    def __init__(self, dim: int, heads: int, bias: bool, kind: str, prior: int = 0):
        super().__init__()
        self.kind = kind
        if prior:
            self.kernel = _kernel(prior, dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def matrix(self, x: Tensor, norm: Callable[[Tensor], Tensor], run: Callable[..., Any]) -> Any:
        """(B, H, W, C) -> what `mixed` is given: (B, C, C), from the whole picture."""
        dim, heads = x.shape[-1], len(self.temperature)
        if self.kind == "phase" and getattr(run, "spans", None):
            raise ValueError("phases are those of the whole picture: statistics over windows need attention 'channel'")
        if self.kind == "channel":
            step = partial(self.projected, norm=norm, first=0, last=2 * dim)
            return run(step, x, reach=1, sums=self._products, then=self._folded)
        products = []
        for first in range(0, dim, dim // heads):  # head by head: the spectra of all are large
            spectra = []
            for start in (first, dim + first):
                step = partial(self.projected, norm=norm, first=start, last=start + dim // heads)
                part = run(step, x, reach=1).to(self.qkv.weight.device)  # maps may lie elsewhere
                spectra.append(_phases(part, x.shape[1], x.shape[2]))
            q, k = spectra
            products.append(torch.einsum("bif,bjf->bij", q, k).double())
        return self._folded(F.pad(torch.stack(products, 1), (0, 2), value=1.0), 1)  # (B, h, c, c + 2)

    def projected(self, x: Tensor, norm: Callable[[Tensor], Tensor], first: int, last: int) -> Tensor:
        """(B, H, W, C) -> (B, H, W, last - first): these channels of q, k and v, one after the other."""
        weight, bias = self.qkv.weight[first:last, :, 0, 0], self.qkv.bias
        y = F.linear(norm(x), weight, None if bias is None else bias[first:last])
        weight, bias = self.qkv_dwconv.weight[first:last], self.qkv_dwconv.bias
        y = F.conv2d(
            y.permute(0, 3, 1, 2), weight, None if bias is None else bias[first:last], padding=1, groups=last - first
        )
        return y.permute(0, 2, 3, 1)

    def _products(self, qk: Tensor) -> Tensor:
        """(B, H, W, 2*C) -> (B, h, c, c + 2): q k^T, and the squared norms of q's and of k's rows; in fp32."""
        with torch.autocast(qk.device.type, enabled=False):
            q, k = qk.float().flatten(1, 2).unflatten(2, (2, len(self.temperature), -1)).permute(2, 0, 3, 4, 1)
            return torch.cat([q @ k.mT, q.square().sum(-1, True), k.square().sum(-1, True)], -1)  # of (B, h, c, H*W)

    def _folded(self, total: Tensor, _pixels: int) -> Tensor:
        """(B, h, c, c + 2) -> (B, C, C): softmax, and the output projection after it."""
        with torch.autocast(total.device.type, enabled=False):
            total = total.float()
            q, k = total[..., -2].sqrt().clamp(min=1e-12), total[..., -1].sqrt().clamp(min=1e-12)
            scores = total[..., :-2] / (q[..., :, None] * k[..., None, :]) * self.temperature.float()
            project = self.project_out.weight[:, :, 0, 0].float().unflatten(1, (len(self.temperature), -1))  # (C, h, c)
            return torch.einsum("ohi,bhij->bohj", project, scores.softmax(-1)).flatten(2)

    def mixed(self, x: Tensor, given: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """x (B, H, W, C) with the attention added; given: (B, C, C)."""
        dim = x.shape[-1]
        v = self.projected(x, norm, 2 * dim, 3 * dim).flatten(1, 2)  # (B, H*W, C)
        y = (v @ given.mT.to(v)).view_as(x)
        return x + y if self.project_out.bias is None else x + y + self.project_out.bias


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (Restormer, section 3.2)."""

    def __init__(self, dim: int, hidden: int, bias: bool, prior: int = 0):
        super().__init__()
        if prior:
            self.kernel = _kernel(prior, dim)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, H, W, C) -> the same, with the answer added."""
        y = F.linear(norm(x), self.project_in.weight[:, :, 0, 0], self.project_in.bias)
        y = self.dwconv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H, W, 2*G)
        gate, y = y.chunk(2, -1)
        return x + F.linear(F.gelu(gate) * y, self.project_out.weight[:, :, 0, 0], self.project_out.bias)


class Norm(nn.Module):
    """Layer norm over channels, of maps (B, H, W, C); "BiasFree" does not subtract the mean and has no bias."""

    def __init__(self, dim: int, kind: str):
        super().__init__()
        self.body = nn.ParameterDict({"weight": nn.Parameter(torch.ones(dim))})
        if kind == "WithBias":
            self.body["bias"] = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same."""
        weight = self.body["weight"]
        if "bias" in self.body:
            return F.layer_norm(x, weight.shape, weight, self.body["bias"], 1e-5)
        deviation = (x.float().var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
        return x * deviation.to(x) * weight


class Gate(nn.Module):
    """Efficient channel attention (ECA, Wang et al., CVPR 2020): a 1-D convolution along the channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        size = int(abs(math.log2(channels) / 2 + 0.5))
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, total: Tensor, pixels: int) -> Tensor:
        """total (B, C) over so many pixels -> (B, C) in (0, 1)."""
        return self.conv((total / pixels)[:, None].to(self.conv.weight))[:, 0].sigmoid()


def _phases(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, c) -> (B, c, 2*F): the unit phasors of each channel's spectrum, real parts and imaginary, weighted so
    that a product of two rows is the mean over all frequencies of the cosine of their phases' difference.
    """
    with torch.autocast(x.device.type, enabled=False):  # there is no transform of half precision at every size
        spectrum = torch.sgn(torch.fft.rfft2(x.float().permute(0, 3, 1, 2)))  # (B, c, H, W//2 + 1)
        weight = torch.full((width // 2 + 1,), 2.0, device=x.device)  # the other half of the spectrum is its mirror
        weight[0] = 1
        if width % 2 == 0:
            weight[-1] = 1
        phasors = torch.view_as_real(spectrum) * (weight / (height * width)).sqrt()[:, None]
        return phasors.flatten(2)
