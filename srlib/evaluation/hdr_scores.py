"""Scores of HDR pictures against their ground truth, as that field takes them, and baselines without a network."""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from pytorch_msssim import ssim
from torch import Tensor

from srlib.data.hdr import PEAK, log_mapped
from srlib.evaluation.counted import Pairs
from srlib.evaluation.metrics import WINDOW

MU = 5000.0
PU21_PEAK = 256.0  # dB are relative to it: the reference implementation's; others take 595.39, which adds 7.33 dB
# PU21, "banding + glare" (Mantiuk and Azimi, 2021), and the range of light in cd/m2 that it is for.
_PU21 = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142)
_PU21_RANGE = (0.005, 10000.0)

Map = Callable[[Tensor], Tensor]  # log-mapped (1, 3, H, W) -> the same
Oracle = Callable[[Tensor, Tensor], Tensor]  # and the ground truth


def light_of(mapped: Tensor) -> Tensor:
    """The inverse of data.hdr.log_mapped, cd/m2, in fp64; nothing below 0."""
    return torch.expm1(mapped.double() * math.log1p(PEAK)).clamp(min=0)


def mu_law(x: Tensor) -> Tensor:
    """log(1 + MU x) / log(1 + MU) of x in [0, 1]."""
    return torch.log1p(MU * x) / math.log1p(MU)


def pu21(light: Tensor) -> Tensor:
    """Perceptually uniform values of light in cd/m2, cut off at 0.005 and 10000: 0 to 595.39, about 256 at 100."""
    p1, p2, p3, p4, p5, p6, p7 = _PU21
    y = light.clamp(*_PU21_RANGE) ** p4
    return p7 * (((p1 + p2 * y) / (1 + p3 * y)) ** p5 - p6)


def hdr_scores(light: Tensor, truth: Tensor) -> dict[str, float]:
    """light, truth: (1, 3, H, W) in cd/m2. PSNR in dB and SSIM (11x11 Gaussian window; NaN below it) over RGB, without
    border:

    PSNR-mu, SSIM-mu: of the mu-law of light / PEAK, cut off at 1. PSNR-L: of light / PEAK, cut off at 1, itself.
    PU21-PSNR: of pu21, up to 10000 cd/m2, relative to PU21_PEAK.
    """
    if light.shape != truth.shape:
        raise ValueError(f"light {tuple(light.shape)} and truth {tuple(truth.shape)} differ in shape")
    a, b = (part.double().clamp(min=0) for part in (light, truth))
    low = [(part / PEAK).clamp(max=1) for part in (a, b)]
    curved = [mu_law(part) for part in low]
    return {
        "PU21-PSNR": _psnr(pu21(a), pu21(b), PU21_PEAK),
        "PSNR-mu": _psnr(curved[0], curved[1], 1.0),
        "PSNR-L": _psnr(low[0], low[1], 1.0),
        "SSIM-mu": ssim(*curved, data_range=1.0).item() if min(a.shape[-2:]) >= WINDOW else math.nan,
    }


def _psnr(a: Tensor, b: Tensor, peak: float) -> float:
    error = (a - b).square().mean().item()
    return 10 * math.log10(peak**2 / error) if error else math.inf


@torch.no_grad()
def evaluate_hdr(ways: Mapping[str, Map], pairs: Pairs, oracles: Mapping[str, Oracle] | None = None) -> pd.DataFrame:
    """One row a picture and way: hdr_scores. pairs: items {"lr", "hr": (3, H, W), log-mapped, "name"}. oracles: ways
    that are shown the ground truth, too, and are called so.
    """
    rows = []
    for index in range(len(pairs)):
        item = pairs[index]
        x, truth = item["lr"][None], item["hr"][None]
        made = {way: mapping(x) for way, mapping in ways.items()}
        made |= {f"{way} (oracle)": told(x, truth) for way, told in (oracles or {}).items()}
        for way, mapped in made.items():
            scores = hdr_scores(light_of(mapped), light_of(truth))
            rows.append({"picture": item["name"], "way": way, **scores})
    return pd.DataFrame(rows)


def inverse_mapping(x: Tensor) -> Tensor:
    """The LDR picture linearised by its dgain and gamma, as the input already is: what was clipped stays so."""
    return x


class ExpansionCurve:
    """One curve for all pictures: by how much light is brightened, by how near it is to the picture's white, fitted to
    training pairs. What an inverse tone mapping without a network can do; it needs no more than the picture.

    bins: of the curve, even in the square root of light. each: pixels taken of a picture.
    """

    def __init__(self, pairs: Iterable[dict], bins: int = 64, each: int = 16384):
        sums, counts = np.zeros(bins), np.zeros(bins)
        for item in pairs:
            step = max(1, item["lr"][0].numel() // each)
            seen, wanted = (light_of(item[n].flatten()[::step]).numpy() for n in ("lr", "hr"))
            gain = np.log((wanted + 1) / (seen + 1))  # which least squares of the log-mapped picture asks for
            place = (np.sqrt(seen / max(seen.max(), 1e-6)) * (bins - 1)).round().astype(int)
            np.add.at(sums, place, gain)
            np.add.at(counts, place, 1)
        known = np.flatnonzero(counts)
        self.gains = np.interp(np.arange(bins), known, sums[known] / counts[known])

    def __call__(self, x: Tensor) -> Tensor:
        """Log-mapped (1, 3, H, W) -> the same."""
        light = light_of(x)[0].numpy()
        place = np.sqrt(light / max(light.max(), 1e-6)) * (len(self.gains) - 1)
        gain = np.interp(place, np.arange(len(self.gains)), self.gains)
        return torch.from_numpy(log_mapped(np.maximum((light + 1) * np.exp(gain) - 1, 0)))[None]
