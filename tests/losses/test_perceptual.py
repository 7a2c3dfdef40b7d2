"""Perceptual losses take their features where they should, and train the picture and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import resnet50, vgg19

from srlib.losses.perceptual import HybridPerceptual, anime_loss, vgg19_loss
from srlib.losses.total import TotalLoss


def pair(size=32, dtype=torch.float32):
    return torch.rand(2, 3, size, size, dtype=dtype), torch.rand(2, 3, size, size, dtype=dtype)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(vgg19(weights=None).features.state_dict(prefix="features."), path)
    return path


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("weights") / "danbooru.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    return path


def test_perceptual_taps_are_before_activation(vgg_file):
    loss = vgg19_loss(vgg_file)
    reference = vgg19(weights=None).features
    reference.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(vgg_file).items()})
    a, b = pair()
    expected, x, y = 0.0, *((p - loss.mean) / loss.std for p in (a, b))
    taps = {2: 0.1, 7: 0.1, 16: 1, 25: 1, 34: 1}
    for number, layer in enumerate(reference[:35]):
        x, y = layer(x), layer(y)
        if number in taps:
            expected = expected + taps[number] * F.l1_loss(x, y)
            x, y = x.clone(), y.clone()  # the next ReLU works in place
    assert loss(a, b).item() == pytest.approx(expected.item(), rel=1e-4)


def test_anime_taps_are_the_outputs_of_the_named_layers(resnet_file):
    reference = resnet50(weights=None).eval()
    reference.load_state_dict(torch.load(resnet_file))
    layers = {"conv1": 0.1, "layer1.2": 20, "layer2.3": 25, "layer3.5": 1, "layer4.2": 1}
    seen = []
    for name in layers:
        reference.get_submodule(name).register_forward_hook(lambda module, x, y: seen.append(y.clone()))
    loss = anime_loss(resnet_file)
    a, b = pair()
    for p in (a, b):
        reference((p - loss.mean) / loss.std)
    expected = sum(w * F.l1_loss(seen[i], seen[i + 5]).item() for i, w in enumerate(layers.values()))
    assert len(seen) == 10 and loss(a, b).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_resnet_by_fastais_names_gives_equal_features(resnet_file, tmp_path, prefix):
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = [(k.partition("."), v) for k, v in torch.load(resnet_file).items() if not k.startswith("fc.")]
    state = {f"{prefix}0.{numbers[first]}.{rest}": v for (first, _, rest), v in parts}
    torch.save(state | {f"{prefix}1.8.weight": torch.zeros(6000, 512)}, tmp_path / "fastai.pth")
    x, _ = pair()
    found, expected = (anime_loss(file)._features(x) for file in (tmp_path / "fastai.pth", resnet_file))
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_vgg_of_parallel_training_gives_equal_features(vgg_file, tmp_path):
    torch.save({f"module.{k}": v for k, v in torch.load(vgg_file).items()}, tmp_path / "parallel.pth")
    x, _ = pair()
    found, expected = (vgg19_loss(file)._features(x) for file in (tmp_path / "parallel.pth", vgg_file))
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_gradient_equals_finite_differences_and_is_the_pictures_alone(vgg_file, resnet_file):
    vgg, anime = vgg19_loss(vgg_file), anime_loss(resnet_file)
    for loss in (vgg, HybridPerceptual(vgg, anime)):
        loss.double().train()
        assert not any(m.training for network in (vgg.network, anime.network) for m in network.modules())
        prediction, target = pair(dtype=torch.float64)
        loss(prediction.requires_grad_(True), target).backward()
        direction, step = torch.randn_like(prediction), 1e-7
        with torch.no_grad():
            ahead, behind = (loss(prediction + s * direction, target) for s in (step, -step))
        difference = (ahead - behind).item() / (2 * step)
        assert (prediction.grad * direction).sum().item() == pytest.approx(difference, rel=1e-4)
        assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_every_layer_trains_the_picture(vgg_file, resnet_file):
    for loss in (vgg19_loss(vgg_file), anime_loss(resnet_file)):
        a, b = pair()
        features = loss._features(a.requires_grad_(True))
        for layer in loss.weights:
            (gradient,) = torch.autograd.grad(features[layer].sum(), a, retain_graph=True)
            assert gradient.abs().sum() > 0, layer
        assert loss(a[:, :1], b[:, :1]).isfinite()  # grey


def test_it_is_the_total_losses_perceptual_network(vgg_file):
    network = vgg19_loss(vgg_file)
    loss = TotalLoss(pixel=0.0, perceptual=0.5, perceptual_network=network)
    a, b = pair()
    total, terms = loss(a.requires_grad_(True), b)
    total.backward()
    assert total.item() == pytest.approx(0.5 * network(a, b).item()) and list(terms) == ["perceptual"]
    assert a.grad.abs().sum() > 0 and all(p.grad is None for p in network.parameters())
    loss.double()  # as to("cuda") would: the network goes along
    assert network.mean.dtype == torch.float64


def test_foreign_weights_are_refused(tmp_path, vgg_file):
    with pytest.raises(ValueError, match="is no resnet50.* or fastai's names: conv1.weight is missing"):
        anime_loss(vgg_file)
    torch.save({"0.0.weight": torch.zeros(64, 3, 7, 7), "1.0": torch.zeros(1)}, tmp_path / "body.pth")
    with pytest.raises(ValueError, match="body.pth is no resnet50.*bn1.weight is missing"):
        anime_loss(tmp_path / "body.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth is no vgg19"):
        vgg19_loss(tmp_path / "x.pth")
