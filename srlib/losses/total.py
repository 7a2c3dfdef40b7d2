"""TotalLoss, the weighted sum of the terms, and DualLoss, for models that return two pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from srlib.losses.detector import ArtifactDetector
from srlib.losses.terms import (
    artifact_class_loss,
    artifact_feature_loss,
    charbonnier,
    frequency_loss,
    gradient_loss,
    ms_ssim_loss,
    ragan_g,
)
from srlib.losses.weights import LearnableWeights

TERMS = (
    "pixel",
    "perceptual",
    "adversarial",
    "frequency",
    "gradient",
    "ms_ssim",
    "artifact_class",
    "artifact_feature",
)


class TotalLoss(nn.Module):
    """The weighted sum of the terms; a term of weight 0 is not computed.

    Weights are non-negative floats by the names in TERMS. perceptual_network: (prediction, target) -> scalar.
    discriminator, detector: networks that judge the picture. They are called in eval mode and get no gradient, the
    picture does; afterwards they are as they were, the discriminator's spectral norm included.
    learnable: a form of LearnableWeights for the group {pixel, perceptual if there is a network, gradient,
    ms_ssim}, which then counts as one term of weight `pixel`; None keeps fixed weights. squared: the pixel term is the
    mean squared error in the place of Charbonnier's.
    Raises ValueError for a negative weight, or one whose network is missing.
    """

    def __init__(
        self,
        *,
        pixel: float = 1.0,
        perceptual: float = 0.0,
        adversarial: float = 0.0,
        frequency: float = 0.0,
        gradient: float = 0.0,
        ms_ssim: float = 0.0,
        artifact_class: float = 0.0,
        artifact_feature: float = 0.0,
        perceptual_network: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        detector: ArtifactDetector | None = None,
        learnable: str | None = None,
        squared: bool = False,
    ):
        super().__init__()
        values = locals()
        self.weights = {name: float(values[name]) for name in TERMS}
        needs = {
            "perceptual": perceptual_network,
            "adversarial": discriminator,
            "artifact_class": detector,
            "artifact_feature": detector,
        }
        for name, weight in self.weights.items():
            if weight < 0:
                raise ValueError(f"loss weight {name} is {weight}; weights are 0 or more")
            if weight and name in needs and needs[name] is None:
                raise ValueError(f"loss weight {name} is {weight}, but its network was not given; set it to 0")
        # not registered: their parameters belong neither to this loss's optimizer nor to its state
        self.networks: tuple[Any, Any, Any] = (perceptual_network, discriminator, detector)
        self.group = [n for n in ("pixel", "perceptual", "gradient", "ms_ssim") if n != "perceptual" or perceptual]
        self.learnable = LearnableWeights(len(self.group), learnable) if learnable else None
        self.squared = squared
        self.config = {**self.weights, "learnable": learnable or "none"} | ({"squared": True} if squared else {})

    def _apply(self, fn: Any, recurse: bool = True) -> "TotalLoss":
        """What to(), cuda() and double() call: the networks go along, though they are not submodules."""
        for network in self.networks:
            if network is not None:
                network._apply(fn)
        return super()._apply(fn, recurse)

    def forward(
        self, prediction: Tensor, target: Tensor, original: Tensor | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Returns (total, terms): terms[name] is {"raw", "weighted"}, and "share" within a learnable group.

        weighted: what the term contributes to the total, the penalty of learnable weights apart.
        original: what the discriminator takes for real when `target` is a sharpened picture.
        """
        perceptual_network, discriminator, detector = self.networks
        compute = {
            "pixel": lambda: (mse_loss if self.squared else charbonnier)(prediction, target),
            "perceptual": lambda: perceptual_network(prediction, target),
            "adversarial": lambda: _adversarial(discriminator, prediction, target if original is None else original),
            "frequency": lambda: frequency_loss(prediction, target),
            "gradient": lambda: gradient_loss(prediction, target),
            "ms_ssim": lambda: ms_ssim_loss(prediction, target),
            "artifact_class": lambda: artifact_class_loss(detector, prediction, target),
            "artifact_feature": lambda: artifact_feature_loss(detector, prediction, target),
        }
        grouped = self.group if self.learnable else []
        wanted = [n for n in TERMS if n in grouped or self.weights[n]]
        with _frozen(*self.networks):
            raw = {name: compute[name]() for name in wanted}
        total = sum(
            (self.weights[n] * raw[n] for n in wanted if n not in grouped), torch.zeros((), device=prediction.device)
        )
        terms = {n: {"raw": raw[n].detach(), "weighted": self.weights[n] * raw[n].detach()} for n in wanted}
        if self.learnable:
            total = total + self.weights["pixel"] * self.learnable(torch.stack([raw[n] for n in grouped]))
            factors = self.weights["pixel"] * self.learnable.factors().detach()
            for name, factor, share in zip(grouped, factors, self.learnable.shares, strict=True):
                terms[name] |= {"weighted": factor * terms[name]["raw"], "share": share}
        return total, terms


def _adversarial(discriminator: nn.Module, prediction: Tensor, original: Tensor) -> Tensor:
    with torch.no_grad():
        real = discriminator(original)
    return ragan_g(real, discriminator(prediction))


@contextmanager
def _frozen(*networks: nn.Module | None) -> Iterator[None]:
    """Within the block the networks judge and do not learn: in eval mode, so that no buffer moves (spectral norm
    iterates in the discriminator's own steps alone), and without gradients of parameters. What they were is put back.

    Not torch.no_grad and not inference mode: the gradient must pass *through* the networks.
    """
    modules = [m for network in networks if network is not None for m in network.modules()]
    parameters = {p for m in modules for p in m.parameters(recurse=False) if p.requires_grad}
    training = [m for m in modules if m.training]
    for m in training:
        m.training = False
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for m in training:
            m.training = True
        for p in parameters:
            p.requires_grad_(True)


class DualLoss(nn.Module):
    """Learnable weights at two levels, for a model that returns two pictures, which may differ in size.

    Each output has a group of losses (Charbonnier, perceptual if there is a network, gradient, 1 - MS-SSIM) with the
    weights of TotalLoss(learnable=form); the sums of the two groups are weighted likewise. form: see LearnableWeights.
    The penalties of all three are added as they are: weighted by the level above, "uncertainty" would have no
    minimum. perceptual_network: (prediction, target) -> scalar. Raises ValueError for another form.
    """

    def __init__(self, form: str = "plain", *, perceptual_network: nn.Module | None = None):
        super().__init__()
        given = float(perceptual_network is not None)
        losses = [TotalLoss(learnable=form, perceptual=given, perceptual_network=perceptual_network) for _ in range(2)]
        self.outputs = nn.ModuleList(losses)
        self.between = LearnableWeights(2, form, each=len(losses[0].group))
        self.networks = losses[0].networks
        self.config = {"learnable": form}

    def forward(
        self, prediction: Sequence[Tensor], target: Sequence[Tensor], original: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Returns (total, terms) as TotalLoss does. Terms are "pixel_1", "pixel_2" and so on, with their share in
        their output's group, and "output_1", "output_2", the groups' weighted sums; `weighted` is always what of the
        total comes from there, so an output's is the sum of its terms'.

        original: as the training loop gives it; nothing here looks at it. Raises ValueError unless prediction and
        target are two pictures each, of the same shapes.
        """
        for what, pictures in (("the model must return", prediction), ("its targets must be", target)):
            if not (isinstance(pictures, Sequence) and len(pictures) == 2):
                given = len(pictures) if isinstance(pictures, Sequence) else f"a {type(pictures).__name__}"
                raise ValueError(f"DualLoss: {what} a sequence of two pictures, not {given}")
        for number, (p, t) in enumerate(zip(prediction, target, strict=True), 1):
            if p.shape != t.shape:
                raise ValueError(f"DualLoss: output {number} is {tuple(p.shape)}, but its target is {tuple(t.shape)}")
        results = [loss(p, t) for loss, p, t in zip(self.outputs, prediction, target, strict=True)]
        penalties = torch.stack([cast(LearnableWeights, loss.learnable).penalty() for loss in self.outputs])
        sums = torch.stack([total for total, _ in results]) - penalties
        total = self.between(sums) + penalties.sum()
        terms = {}
        levels = zip(results, sums.detach(), self.between.factors().detach(), self.between.shares, strict=True)
        for number, ((_, own), raw, factor, share) in enumerate(levels, 1):
            for name, term in own.items():
                terms[f"{name}_{number}"] = term | {"weighted": factor * term["weighted"]}
            terms[f"output_{number}"] = {"raw": raw, "weighted": factor * raw, "share": share}
        return total, terms
