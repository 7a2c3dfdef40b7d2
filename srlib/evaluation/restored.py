"""Scores of restored pictures of the input's own size, as that field takes them, and baselines without a network."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
import torch.nn.functional as F
from pytorch_msssim import ssim
from torch import Tensor

from srlib.evaluation.counted import Pairs
from srlib.evaluation.metrics import WINDOW

SIDE = 256  # pixels: what the field's scores of underwater pictures are taken at, squashed to a square
Restore = Callable[[Tensor], Tensor]  # (1, 3, H, W) in [0, 1] -> the same


def rgb_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM (11x11 Gaussian window; NaN below it) over RGB of pictures (1, 3, H, W), rounded to 8 bits,
    no border.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    a, b = (p.double().clamp(0, 1).mul(255).round() for p in (prediction, target))
    psnr = -10 * ((a - b).square().mean() / 255**2).log10()
    large = min(a.shape[-2:]) >= WINDOW
    return {"PSNR": psnr.item(), "SSIM": ssim(a, b, data_range=255).item() if large else math.nan}


def squashed(picture: Tensor, side: int = SIDE) -> Tensor:
    """(1, 3, H, W) -> (1, 3, side, side), whatever the picture's proportions."""
    return F.interpolate(picture, (side, side), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


@torch.no_grad()
def evaluate_restored(ways: Mapping[str, Restore], pairs: Pairs, *, full: bool = True) -> pd.DataFrame:
    """One row a picture, way and size ("256x256": input and ground truth squashed before; "full"): PSNR and SSIM.

    pairs: items {"lr": (3, H, W), "hr": the same size, "name"}. full: False takes the small size only.
    """
    rows = []
    for index in range(len(pairs)):
        item = pairs[index]
        x, target = item["lr"][None], item["hr"][None]
        sizes = {f"{SIDE}x{SIDE}": (squashed(x), squashed(target)), **({"full": (x, target)} if full else {})}
        for (size, (small, wanted)), (way, restore) in itertools.product(sizes.items(), ways.items()):
            rows.append({"picture": item["name"], "way": way, "size": size, **rgb_scores(restore(small), wanted)})
    return pd.DataFrame(rows)


def as_it_is(x: Tensor) -> Tensor:
    """The input itself."""
    return x


def gray_world(x: Tensor) -> Tensor:
    """Each channel scaled so that the picture's mean is grey (Buchsbaum, 1980)."""
    means = x.mean((2, 3), keepdim=True)
    return (x * means.mean(1, keepdim=True) / means.clamp(min=1e-3)).clamp(0, 1)


class ColourPolynomial:
    """One polynomial from colour to colour for all pictures, fitted to training pairs by least squares.

    degree: of the products of R, G and B; 3 has 20 terms. each: pixels taken of a picture.
    """

    def __init__(self, pairs: Iterable[dict], degree: int = 3, each: int = 4096):
        self.degree = degree
        inputs, targets = [], []
        for item in pairs:
            step = max(1, item["lr"][0].numel() // each)
            inputs.append(item["lr"].flatten(1)[:, ::step])
            targets.append(item["hr"].flatten(1)[:, ::step])
        terms = self._terms(torch.cat(inputs, 1).double())  # (pixels, terms)
        self.weights = torch.linalg.lstsq(terms, torch.cat(targets, 1).double().T).solution  # (terms, 3)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> the same."""
        answer = (self._terms(x[0].flatten(1).double()) @ self.weights).T.view(x.shape)
        return answer.clamp(0, 1).to(x)

    def _terms(self, colours: Tensor) -> Tensor:
        """(3, n) -> (n, terms)."""
        powers = [p for p in itertools.product(range(self.degree + 1), repeat=3) if sum(p) <= self.degree]
        return torch.stack([(colours ** torch.tensor(p).view(3, 1)).prod(0) for p in powers], 1)
