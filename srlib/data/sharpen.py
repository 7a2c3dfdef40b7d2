"""Sharpened training targets for line art (after APISR, Wang et al., CVPR 2024).

Pictures are (B, C, H, W) in [0, 1], C 1 or 3, before and after.
"""

import cv2
import numpy as np
import torch
from torch import Tensor


def unsharp(x: Tensor, radius: int = 51, weight: float = 0.5, threshold: float = 10) -> Tensor:
    """Unsharp mask: x + weight * (x - blurred) where |x - blurred| exceeds `threshold` levels of 255.

    radius: size of the Gaussian in pixels, odd; its sigma follows OpenCV's rule for that size. The mask is blurred by
    the same Gaussian, so that its edge does not show. In a small picture the Gaussian is smaller.
    """
    size = min(radius, 2 * min(x.shape[-2:]) - 1) | 1
    residual = x - _blur(x, size)
    mask = _blur((residual.abs() * 255 > threshold).to(x.dtype), size)
    return x + mask * ((x + weight * residual).clamp(0, 1) - x)


def sharpen_lines(x: Tensor) -> Tensor:
    """Unsharp mask once everywhere, three times on the lines, which `line_mask` finds in the sharpest picture."""
    base = unsharp(x)
    sharpest = unsharp(unsharp(base))
    return torch.where(line_mask(sharpest), sharpest, base)


def line_mask(
    x: Tensor,
    *,
    sigma: float = 0.6,
    k: float = 2.5,
    gamma: float = 0.97,
    epsilon: float = -15,
    phi: float = 1e9,
    smallest: int = 32,
) -> Tensor:
    """(B, 1, H, W) bool: dark lines by an extended difference of Gaussians (Winnemöller et al., 2012).

    On grey in 0..255, G(sigma) - gamma * G(k sigma) is compared with epsilon: a line is darker than its
    surroundings by that much. phi is the slope of the soft threshold, so steep by default that the mask is
    binary. Flat ground g answers 0.03 g, never negative, so only dark lines and the dark side of a hard edge
    are marked: on ground 204 a 1-3 pixel line 102 levels darker answers -35 to -27, one 26 darker -4 to -2.
    8-connected components below `smallest` pixels are dropped. APISR's script instead divides by the
    picture's own maximum before the comparison, which marks fainter lines and depends on the crop.
    """
    grey = x.mean(1, keepdim=True) * 255
    narrow, wide = (_gaussian(grey, s) for s in (sigma, k * sigma))
    soft = 1 + torch.tanh(phi * (narrow - gamma * wide - epsilon)).clamp_max(0)  # 1 on ground, 0 on lines
    masks = [_without_specks(m, smallest) for m in (soft < 0.5).cpu().numpy()]
    return torch.from_numpy(np.stack(masks)).to(x.device)


def _without_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """(1, H, W) bool without its 8-connected components of fewer than `smallest` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask[0].astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= smallest
    large[0] = False  # the ground
    return large[labels][None]


def _blur(x: Tensor, size: int) -> Tensor:
    return _gaussian_of(x, size, 0.3 * ((size - 1) / 2 - 1) + 0.8) if size > 1 else x


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    return _gaussian_of(x, min(2 * round(4 * sigma) + 1, 2 * min(x.shape[-2:]) - 1), sigma)


def _gaussian_of(x: Tensor, size: int, sigma: float) -> Tensor:
    from kornia.filters import gaussian_blur2d  # here, for kornia takes a second to import

    return gaussian_blur2d(x, (size, size), (sigma, sigma), border_type="reflect")


SHARPENERS = {"none": None, "unsharp": unsharp, "lines": sharpen_lines}
