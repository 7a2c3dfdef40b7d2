"""DiffIR's prior: some hundred numbers about a whole picture, and the four steps that guess them without the truth.

The encoder (CPEN) is convolutions at a quarter of the picture's size and a mean over it. The diffusion over its answer
is short and its steps are deterministic (DiffIR, Xia et al., ICCV 2023, section 3.3).

Shapes in comments: B batch, H W height and width, P numbers of the prior.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1  # of all leaky units


class PriorEncoder(nn.Module):
    """A picture, or several one after the other along the channels, in `size` numbers.

    channels: of the input; blocks: residual pairs of convolutions. Parameter names are those of published checkpoints.
    """

    def __init__(self, channels: int, size: int, blocks: int):
        super().__init__()
        width = size // 4
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        widths = (width, 2 * width, 2 * width, 4 * width)
        tail = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in (conv(a, b), nn.LeakyReLU(SLOPE))]
        residual = [Residual(width) for _ in range(blocks)]
        self.E = nn.Sequential(conv(16 * channels, width), nn.LeakyReLU(SLOPE), *residual, *tail)
        last = nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(SLOPE), last, nn.LeakyReLU(SLOPE))
        nn.init.ones_(last.bias)  # a prior of about ones: see transposed.py
        self.blocks = blocks

    def forward(self, x: Tensor, run: Callable[..., Any]) -> Tensor:
        """x: (B, H, W, channels), H and W multiples of 4 -> (B, P)."""
        x = run(self._first, x, reach=4)
        for block in self.E[2 : 2 + self.blocks]:
            x = run(partial(_channels_last, block), x, reach=2)
        return run(partial(_channels_last, self.E[2 + self.blocks :]), x, reach=3, sums=_total, then=self._numbers)

    def _first(self, x: Tensor) -> Tensor:
        """(B, H, W, channels) -> (B, H/4, W/4, P/4)."""
        return self.E[:2](F.pixel_unshuffle(x.permute(0, 3, 1, 2), 4)).permute(0, 2, 3, 1)

    def _numbers(self, total: Tensor, pixels: int) -> Tensor:
        """(B, P), summed over so many pixels -> (B, P)."""
        return self.mlp((total / pixels).to(next(self.mlp.parameters())))


class Residual(nn.Module):
    """x + conv(leaky(conv x)), (B, C, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x + self.body(x)


class Denoiser(nn.Module):
    """Guesses a prior out of noise and of what the condition says, in `steps` steps.

    Each step guesses the prior itself from what the last one left, and goes the mean of DDPM's posterior towards it
    (Ho et al., 2020, equation 7, without its noise); sqrt(beta) rises linearly from sqrt(0.1) to sqrt(0.99).
    """

    fixed: Tensor

    def __init__(self, size: int, blocks: int, steps: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(2 * size + 1, size), nn.LeakyReLU(SLOPE)]
        layers += [_Layer(size) for _ in range(blocks)]
        self.resmlp = nn.Sequential(*layers)
        self.steps = steps
        fixed = torch.randn(size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed", fixed, persistent=False)
        beta = torch.linspace(0.1**0.5, 0.99**0.5, steps, dtype=torch.float64).square()
        left = (1 - beta).cumprod(0)  # of the signal after each step
        before = torch.cat([torch.ones(1, dtype=torch.float64), left[:-1]])
        guessed, kept = beta * before.sqrt() / (1 - left), (1 - before) * (1 - beta).sqrt() / (1 - left)
        self.weights = [(guess.item(), keep.item()) for guess, keep in zip(guessed, kept, strict=True)]

    def forward(self, condition: Tensor, start: Tensor) -> Tensor:
        """condition, start (noise): (B, P) -> the guessed prior (B, P)."""
        prior = start
        for step in reversed(range(self.steps)):
            time = torch.full_like(condition[:, :1], step / (10 * self.steps))
            guess = self.resmlp(torch.cat([condition, time, prior], 1))
            of_guess, of_prior = self.weights[step]
            prior = of_guess * guess + of_prior * prior
        return prior

    def noise(self, like: Tensor) -> Tensor:
        """Where the steps begin, (B, P) of N(0, 1): in training drawn anew, else the same for all pictures, so that
        an answer is a function of its picture.
        """
        if self.training:
            return torch.randn_like(like)
        return self.fixed.to(like).expand_as(like)


class _Layer(nn.Module):
    """A linear layer and a leaky unit, under the published names."""

    def __init__(self, size: int):
        super().__init__()
        self.resmlp = nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        return self.resmlp(x)


def _channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C')."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _total(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C), in fp32."""
    return x.sum((1, 2), dtype=torch.float32)
