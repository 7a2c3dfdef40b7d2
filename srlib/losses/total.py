"""Every loss term but the perceptual one (srlib.losses.perceptual), learnable weights, and their sums.

Pictures are (B, C, H, W) in [0, 1], C 1 or 3; every term is a scalar, a mean over the batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from kornia.filters import laplacian, spatial_gradient
from torch import Tensor, nn

if TYPE_CHECKING:
    from srlib.losses.detector import ArtifactDetector

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
FORMS = ("plain", "normalised", "entropy", "uncertainty")
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al., 2003


def charbonnier(prediction: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + eps^2): L1 that is smooth at zero (Lai et al., LapSRN, 2017). Returns a scalar."""
    return ((prediction - target).square() + eps**2).sqrt().mean()


def frequency_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the Laplacian responses (3x3, eight neighbours, divided by the sum of its magnitudes)."""
    return F.l1_loss(laplacian(prediction, 3), laplacian(target, 3))


def gradient_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the Sobel gradients, horizontal and vertical."""
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
    return _over_processes(logits.mean())


def _over_processes(x: Tensor) -> Tensor:
    """The mean of x over all processes, the same in each; x itself where there is only one."""
    alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    return x if alone else _AllMean.apply(x)


class _AllMean(torch.autograd.Function):
    """The mean over processes. Its gradient is the mean of all processes' gradients, as each one's loss depends on
    each one's x: averaged again, as DistributedDataParallel does, that is the gradient of the mean loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _AllMean.apply(gradient)


def artifact_class_loss(detector: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of the detector's dense answer (B, K, h, w) against "clean": no artifact anywhere.

    Each answer counts by how clean the detector finds the target there: a plain sky that it calls blurred in the
    target, too, is not to be filled with texture.
    """
    with torch.no_grad():
        clean = 1 - detector(target).sigmoid()
    logits = detector(prediction)
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), weight=clean)


def artifact_feature_loss(detector: "ArtifactDetector", prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the detector's features of prediction and target, mean over its layers."""
    with torch.no_grad():
        wanted = detector.features(target)
    pairs = list(zip(detector.features(prediction), wanted, strict=True))
    return sum((F.l1_loss(a, b) for a, b in pairs), prediction.new_zeros(())) / len(pairs)


class LearnableWeights(nn.Module):
    """Learned weights of n losses: softmax over n parameters, so that they sum to 1.

    form: "plain" - the weighted sum. Its gradient moves all weight to the smallest loss, useful or not.
    "normalised" - each loss is divided by its running mean first, so that none is smallest by its scale.
    "entropy" - plain, minus `beta` times the weights' entropy, which holds them apart from 0 and 1.
    "uncertainty" - sum of exp(-s) L + s (Kendall et al., CVPR 2018); `shares` are exp(-s), rescaled to sum 1.
    each: of how many losses each of the n is a weighted sum; "uncertainty" counts its s as often.
    momentum: of the running mean, which is taken over all processes and passes non-finite losses over.
    """

    running: Tensor  # (n,)
    seen: Tensor

    def __init__(self, n: int, form: str = "plain", *, each: int = 1, beta: float = 0.1, momentum: float = 0.01):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"learnable weights {form!r}: choose one of {', '.join(FORMS)}")
        self.form, self.each, self.beta, self.momentum = form, each, beta, momentum
        self.raw = nn.Parameter(torch.zeros(n))
        self.register_buffer("running", torch.zeros(n))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def shares(self) -> Tensor:
        """(n,) the current weights, summing to 1, without gradient."""
        return F.softmax(-self.raw if self.form == "uncertainty" else self.raw, 0).detach()

    def factors(self) -> Tensor:
        """(n,) what each loss is multiplied by: its weight, or that over the running mean, or exp(-s)."""
        if self.form == "uncertainty":
            return (-self.raw).exp()
        weights = F.softmax(self.raw, 0)
        return weights / self.running.clamp_min(1e-12) if self.form == "normalised" else weights

    def penalty(self) -> Tensor:
        """What the weights themselves add to the sum, a scalar: 0 for "plain" and "normalised"."""
        if self.form == "uncertainty":
            return self.each * self.raw.sum()
        if self.form == "entropy":
            return self.beta * (F.softmax(self.raw, 0) * F.log_softmax(self.raw, 0)).sum()
        return self.raw.new_zeros(())

    def forward(self, losses: Tensor) -> Tensor:
        """losses: (n,) -> scalar."""
        if self.form == "normalised" and self.training:
            self._follow(losses.detach())
        return (self.factors() * losses).sum() + self.penalty()

    @torch.no_grad()
    def _follow(self, losses: Tensor) -> None:
        losses = _over_processes(losses.to(self.running))
        finite = losses.isfinite().all()  # one NaN would stay in the mean for ever
        self.seen += finite
        rate = (1 / self.seen).clamp_min(self.momentum)  # the plain mean at first, so that no batch sets the scale
        self.running.copy_(torch.where(finite, self.running.lerp(losses, rate), self.running))


class TotalLoss(nn.Module):
    """The weighted sum of the terms; a term of weight 0 is not computed.

    Weights are non-negative floats by the names in TERMS. perceptual_network: (prediction, target) -> scalar.
    discriminator, detector: networks that judge the picture. They are called in eval mode and get no gradient, the
    picture does; afterwards they are as they were, the discriminator's spectral norm included.
    learnable: a form of LearnableWeights for the group {pixel, perceptual if there is a network, gradient,
    ms_ssim}, which then counts as one term of weight `pixel`; None keeps fixed weights.
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
        detector: "ArtifactDetector | None" = None,
        learnable: str | None = None,
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
        self.config = {**self.weights, "learnable": learnable or "none"}

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
            "pixel": lambda: charbonnier(prediction, target),
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
