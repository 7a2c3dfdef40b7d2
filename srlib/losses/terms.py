"""The loss terms, each a function of two pictures; the perceptual one is in perceptual.py.

Pictures are (B, C, H, W) in [0, 1], C 1 or 3; every term is a scalar, a mean over the batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srlib.losses.detector import ArtifactDetector
from srlib.losses.processes import over_processes

_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al., 2003


def charbonnier(prediction: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + eps^2): L1 that is smooth at zero (Lai et al., LapSRN, 2017). Returns a scalar."""
    return ((prediction - target).square() + eps**2).sqrt().mean()


def frequency_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the Laplacian responses (3x3, eight neighbours, divided by the sum of its magnitudes)."""
    from kornia.filters import laplacian  # a second to import, as in gradient_loss

    return F.l1_loss(laplacian(prediction, 3), laplacian(target, 3))


def gradient_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the Sobel gradients, horizontal and vertical."""
    from kornia.filters import spatial_gradient

    return F.l1_loss(spatial_gradient(prediction, "sobel"), spatial_gradient(target, "sobel"))


def ms_ssim_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang et al., 2003). Five scales need 176 pixels a side; smaller patches get as many as fit
    (4 from 99, 3 from 44, 2 from 22 pixels), their weights rescaled to sum 1. ValueError below 11 pixels,
    the window's size. A picture that at some scale is unlike its target (contrasts correlate negatively) counts
    1, as is usual, and gets no gradient: this term cannot train alone from noise.
    """
    side = min(prediction.shape[-2:])
    if side < 11:
        raise ValueError(f"MS-SSIM needs patches of at least 11 pixels a side, not {side}: set its weight to 0")
    levels = sum(side >= least for least in (11, 22, 44, 99, 176))
    betas = _MS_SSIM_WEIGHTS[:levels]
    betas = tuple(b / sum(betas) for b in betas)
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim  # takes seconds

    return 1 - ms_ssim(prediction, target, data_range=1.0, betas=betas, normalize="relu")


def ragan_d(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The discriminator's relativistic average loss (Jolicoeur-Martineau, 2019), mean over the scales' maps."""
    pairs = [(r - _mean(f), f - _mean(r)) for r, f in zip(real, fake, strict=True)]
    return sum((_bce(r, 1) + _bce(f, 0) for r, f in pairs), real[0].new_zeros(())) / (2 * len(pairs))


def ragan_g(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The generator's: as ragan_d with the labels exchanged; gradients reach it through both halves."""
    pairs = [(r - _mean(f), f - _mean(r)) for r, f in zip(real, fake, strict=True)]
    return sum((_bce(r, 0) + _bce(f, 1) for r, f in pairs), real[0].new_zeros(())) / (2 * len(pairs))


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _mean(logits: Tensor) -> Tensor:
    """E over the batch of all processes, which are of equal size; the gradient passes through."""
    return over_processes(logits.mean())


def artifact_class_loss(detector: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of the detector's dense answer (B, K, h, w) against "clean": no artifact anywhere.

    Each answer counts by how clean the detector finds the target there: a plain sky that it calls blurred in the
    target, too, is not to be filled with texture.
    """
    with torch.no_grad():
        clean = 1 - detector(target).sigmoid()
    logits = detector(prediction)
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), weight=clean)


def artifact_feature_loss(detector: ArtifactDetector, prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the detector's features of prediction and target, mean over its layers."""
    with torch.no_grad():
        wanted = detector.features(target)
    pairs = list(zip(detector.features(prediction), wanted, strict=True))
    return sum((F.l1_loss(a, b) for a, b in pairs), prediction.new_zeros(())) / len(pairs)
