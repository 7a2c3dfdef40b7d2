"""Every loss term, learnable weights, and their sum. Pictures are (B, C, H, W) in [0, 1], C 1 or 3."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
import torch.nn.functional as F
from kornia.filters import laplacian, spatial_gradient
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchvision.models import ResNet, VGG19_Weights, vgg19
from torchvision.models.resnet import Bottleneck

from srlib.checkpoints import read

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
    the window's size.
    """
    side = min(prediction.shape[-2:])
    if side < 11:
        raise ValueError(f"MS-SSIM needs patches of at least 11 pixels a side, not {side}: set its weight to 0")
    levels = sum(side >= least for least in (11, 22, 44, 99, 176))
    betas = _MS_SSIM_WEIGHTS[:levels]
    betas = tuple(b / sum(betas) for b in betas)
    return 1 - multiscale_structural_similarity_index_measure(
        prediction, target, data_range=1.0, betas=betas, normalize="relu"
    )


def ragan_d(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The discriminator's relativistic average loss (Jolicoeur-Martineau, 2019), mean over the scales' maps."""
    pairs = [(r - _mean(f), f - _mean(r)) for r, f in zip(real, fake, strict=True)]
    return sum(_bce(r, 1) + _bce(f, 0) for r, f in pairs) / (2 * len(pairs))


def ragan_g(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The generator's: as ragan_d with the labels exchanged; gradients reach it through both halves."""
    pairs = [(r - _mean(f), f - _mean(r)) for r, f in zip(real, fake, strict=True)]
    return sum(_bce(r, 0) + _bce(f, 1) for r, f in pairs) / (2 * len(pairs))


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _mean(logits: Tensor) -> Tensor:
    """E over the batch of all processes; the gradient passes through."""
    mean = logits.mean()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        mean = dist_functional.all_reduce(mean) / dist.get_world_size()
    return mean


def artifact_class_loss(detector: nn.Module, prediction: Tensor) -> Tensor:
    """Cross entropy of the detector's dense answer (B, K, h, w) against "clean": no artifact anywhere."""
    logits = detector(prediction)
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def artifact_feature_loss(detector: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the detector's features of prediction and target, mean over its layers."""
    with torch.no_grad():
        wanted = detector.features(target)
    pairs = list(zip(detector.features(prediction), wanted, strict=True))
    return sum(F.l1_loss(a, b) for a, b in pairs) / len(pairs)


class PerceptualLoss(nn.Module):
    """Weighted L1 between features of a frozen network; gradients reach the prediction through it.

    network: maps normalised pictures to {layer: features}; weights: {layer: weight}. vgg19_loss and
    anime_loss build the usual two; HybridPerceptual mixes them.
    """

    def __init__(self, network: Callable[[Tensor], dict[str, Tensor]], weights: dict[str, float]):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.weights = weights
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(target)
        found = self._features(prediction)
        return sum(weight * F.l1_loss(found[layer], wanted[layer]) for layer, weight in self.weights.items())

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        return self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.std)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        return super().train(False)  # batch statistics and dropout stay as they were trained


class HybridPerceptual(nn.Module):
    """The mean of several perceptual losses, such as vgg19_loss and anime_loss, half each (APISR, 2024)."""

    def __init__(self, *losses: nn.Module):
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return sum(loss(prediction, target) for loss in self.losses) / len(self.losses)


class _Vgg19(nn.Module):
    """Features of torchvision's VGG-19 before activation, by the names of the paper."""

    LAYERS = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}

    def __init__(self):
        super().__init__()
        self.features = vgg19(weights=None).features[:35]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # the tap holds the value before it

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        taps = {number: name for name, number in self.LAYERS.items()}
        found = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in taps:
                found[taps[number]] = x
        return found


def vgg19_loss(weights: Path | str | None = None) -> PerceptualLoss:
    """VGG-19, conv1_2 and conv2_2 at 0.1, conv3_4, conv4_4, conv5_4 at 1, before activation.

    weights: a local file of torchvision's vgg19 (.pth or .safetensors), or None to let torchvision download
    it. Raises ValueError for a file that is something else, RuntimeError when the download fails.
    """
    network = _Vgg19()
    if weights:
        state, _ = read(weights)
        _fill(network, {k: v for k, v in state.items() if k in network.state_dict()}, weights, "vgg19")
    else:
        try:
            state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
        except OSError as error:
            raise RuntimeError(
                f"VGG-19's weights could not be downloaded ({error}): "
                f"give a local copy of {VGG19_Weights.IMAGENET1K_V1.url}"
            ) from error
        network.load_state_dict({k: v for k, v in state.items() if k in network.state_dict()})
    return PerceptualLoss(network, {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1})


class _AnimeResNet(nn.Module):
    """Features of a ResNet-50, by torchvision's names: after conv1, and after chosen blocks."""

    def __init__(self):
        super().__init__()
        self.net = ResNet(Bottleneck, [3, 4, 6, 3])
        self.net.fc = nn.Identity()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {"conv1": self.net.conv1(x)}
        x = self.net.maxpool(F.relu(self.net.bn1(found["conv1"])))
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for number, block in enumerate(getattr(self.net, stage)):
                x = block(x)
                found[f"{stage}[{number}]"] = x
        return found


def anime_loss(weights: Path | str) -> PerceptualLoss:
    """ResNet-50 trained on Danbooru pictures, layers and weights of APISR (CVPR 2024).

    weights: a local file of its state dict, under torchvision's names; its classifier is ignored.
    """
    network = _AnimeResNet()
    state, _ = read(weights)
    state = {f"net.{k.removeprefix('module.')}": v for k, v in state.items()}
    _fill(network, {k: v for k, v in state.items() if k in network.state_dict()}, weights, "resnet50")
    layers = {"conv1": 0.1, "layer1[2]": 20, "layer2[3]": 25, "layer3[5]": 1, "layer4[2]": 1}
    return PerceptualLoss(network, layers)


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path | str, kind: str) -> None:
    own = network.state_dict()
    missing = [k for k in own if "num_batches" not in k and (k not in state or state[k].shape != own[k].shape)]
    if missing:
        raise ValueError(f"{path} is no {kind} of torchvision's: {missing[0]} is missing or of another shape")
    network.load_state_dict(state, strict=False)


class LearnableWeights(nn.Module):
    """Learned weights of n losses: softmax over n parameters, so that they sum to 1.

    form: "plain" - the weighted sum. Its gradient moves all weight to the smallest loss, useful or not.
    "normalised" - each loss is divided by its running mean first, so that none is smallest by its scale.
    "entropy" - plain, minus `beta` times the weights' entropy, which holds them apart from 0 and 1.
    "uncertainty" - sum of exp(-s) L + s (Kendall et al., CVPR 2018); `shares` are exp(-s), rescaled to sum 1.
    """

    def __init__(self, n: int, form: str = "plain", *, beta: float = 0.1, momentum: float = 0.01):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"learnable weights {form!r}: choose one of {', '.join(FORMS)}")
        self.form, self.beta, self.momentum = form, beta, momentum
        self.raw = nn.Parameter(torch.zeros(n))
        self.register_buffer("running", torch.zeros(n))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def shares(self) -> Tensor:
        """(n,) the current weights, summing to 1, without gradient."""
        return F.softmax(-self.raw if self.form == "uncertainty" else self.raw, 0).detach()

    def forward(self, losses: Tensor) -> Tensor:
        """losses: (n,) -> scalar."""
        if self.form == "uncertainty":
            return ((-self.raw).exp() * losses + self.raw).sum()
        weights = F.softmax(self.raw, 0)
        if self.form == "normalised":
            if self.training:
                self.seen += 1  # at first the plain mean, so that no single batch sets the scale for long
                self.running.lerp_(losses.detach(), max(self.momentum, 1 / self.seen.item()))
            losses = losses / self.running.clamp_min(1e-12)
        total = (weights * losses).sum()
        if self.form == "entropy":
            total = total + self.beta * (weights * weights.log()).sum()
        return total


class TotalLoss(nn.Module):
    """The weighted sum of the terms; a term of weight 0 is not computed.

    Weights are non-negative floats by the names in TERMS. perceptual_network: (prediction, target) -> scalar.
    discriminator, detector: networks that judge the picture; they get no gradient here, the picture does.
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
        detector: nn.Module | None = None,
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
        self._networks = (perceptual_network, discriminator, detector)
        self.group = [n for n in ("pixel", "perceptual", "gradient", "ms_ssim") if n != "perceptual" or perceptual]
        self.learnable = LearnableWeights(len(self.group), learnable) if learnable else None

    def _apply(self, fn, recurse: bool = True) -> "TotalLoss":
        """What to(), cuda() and double() call: the networks go along, though they are not submodules."""
        for network in self._networks:
            if network is not None:
                network._apply(fn)
        return super()._apply(fn, recurse)

    def forward(
        self, prediction: Tensor, target: Tensor, original: Tensor | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Returns (total, terms): terms[name] is {"raw", "weighted"}, and "share" within a learnable group.

        original: what the discriminator takes for real when `target` is a sharpened picture.
        """
        perceptual_network, discriminator, detector = self._networks
        compute = {
            "pixel": lambda: charbonnier(prediction, target),
            "perceptual": lambda: perceptual_network(prediction, target),
            "adversarial": lambda: _adversarial(discriminator, prediction, target if original is None else original),
            "frequency": lambda: frequency_loss(prediction, target),
            "gradient": lambda: gradient_loss(prediction, target),
            "ms_ssim": lambda: ms_ssim_loss(prediction, target),
            "artifact_class": lambda: artifact_class_loss(detector, prediction),
            "artifact_feature": lambda: artifact_feature_loss(detector, prediction, target),
        }
        grouped = self.group if self.learnable else []
        wanted = [n for n in TERMS if n in grouped or self.weights[n]]
        with _frozen(discriminator), _frozen(detector):
            raw = {name: compute[name]() for name in wanted}
        total = sum(
            (self.weights[n] * raw[n] for n in wanted if n not in grouped), torch.zeros((), device=prediction.device)
        )
        terms = {n: {"raw": raw[n].detach(), "weighted": self.weights[n] * raw[n].detach()} for n in wanted}
        if self.learnable:
            total = total + self.weights["pixel"] * self.learnable(torch.stack([raw[n] for n in grouped]))
            for name, share in zip(grouped, self.learnable.shares, strict=True):
                weighted = self.weights["pixel"] * share * raw[name].detach()
                terms[name] = {"raw": raw[name].detach(), "weighted": weighted, "share": share}
        return total, terms


def _adversarial(discriminator: nn.Module, prediction: Tensor, original: Tensor) -> Tensor:
    with torch.no_grad():
        real = discriminator(original)
    return ragan_g(real, discriminator(prediction))


@contextmanager
def _frozen(network: nn.Module | None) -> Iterator[None]:
    """Within the block the network's parameters get no gradient; what they were is put back.

    Not torch.no_grad and not inference mode: the gradient must pass *through* the network.
    """
    parameters = [p for p in network.parameters() if p.requires_grad] if network is not None else []
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
