"""Every term's gradient is right, reaches the picture, and nothing it must not reach."""

import pytest
import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from torch import nn
from torchvision.models import resnet50, vgg19

from srlib.artifacts import ArtifactDetector
from srlib.discriminator import MultiScaleDiscriminator
from srlib.losses import (
    FORMS,
    HybridPerceptual,
    LearnableWeights,
    TotalLoss,
    anime_loss,
    artifact_class_loss,
    artifact_feature_loss,
    charbonnier,
    frequency_loss,
    gradient_loss,
    ms_ssim_loss,
    ragan_d,
    ragan_g,
    vgg19_loss,
)


def pair(size=24, dtype=torch.float64):
    return torch.rand(2, 3, size, size, dtype=dtype), torch.rand(2, 3, size, size, dtype=dtype)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(vgg19(weights=None).features.state_dict(prefix="features."), path)
    return path


@pytest.mark.parametrize("loss", [charbonnier, frequency_loss, gradient_loss, ms_ssim_loss], ids=lambda f: f.__name__)
def test_gradient_equals_finite_differences(loss):
    prediction, target = pair()
    prediction.requires_grad_(True)
    loss(prediction, target).backward()
    direction = torch.randn_like(prediction)
    with torch.no_grad():
        step = 1e-7
        difference = (loss(prediction + step * direction, target) - loss(prediction - step * direction, target)) / (
            2 * step
        )
    assert (prediction.grad * direction).sum().item() == pytest.approx(difference.item(), rel=1e-4)


@pytest.mark.parametrize("loss", [frequency_loss, gradient_loss, ms_ssim_loss])
def test_terms_vanish_for_equal_pictures_and_grow_with_noise(loss):
    target = torch.rand(1, 3, 64, 64)
    little, much = ((target + s * torch.randn_like(target)).clamp(0, 1) for s in (0.02, 0.2))
    assert loss(target, target).item() == pytest.approx(0, abs=1e-6)
    assert 0 < loss(little, target) < loss(much, target)


def test_charbonnier_by_hand():
    assert charbonnier(torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.2)).item() == pytest.approx(
        (0.09 + 1e-6) ** 0.5
    )


def test_ms_ssim_equals_the_usual_one_where_that_is_defined_and_works_on_small_patches():
    a = torch.rand(2, 3, 192, 192)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    assert ms_ssim_loss(a, b).item() == pytest.approx(1 - ms_ssim(a, b, data_range=1.0).item(), abs=1e-3)
    for size in (11, 22, 44, 64, 99, 128):
        assert 0 < ms_ssim_loss(a[..., :size, :size], b[..., :size, :size]) < 1
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ms_ssim_loss(a[..., :10, :], b[..., :10, :])


def test_ragan_by_hand():
    real, fake = [torch.tensor([[2.0, 0.0]])], [torch.tensor([[-1.0, 1.0]])]
    # E real = 1, E fake = 0: real - E fake = (2, 0); fake - E real = (-2, 0)
    soft = F.softplus(torch.tensor([2.0, -2.0, 0.0])).tolist()
    assert ragan_d(real, fake).item() == pytest.approx((soft[1] + soft[2]) / 2)
    assert ragan_g(real, fake).item() == pytest.approx((soft[0] + soft[2]) / 2)


def test_perceptual_taps_are_before_activation(vgg_file):
    loss = vgg19_loss(vgg_file)
    reference = vgg19(weights=None).features
    reference.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(vgg_file).items()})
    a, b = pair(32, torch.float32)
    expected, x, y = 0.0, *((p - loss.mean) / loss.std for p in (a, b))
    taps = {2: 0.1, 7: 0.1, 16: 1, 25: 1, 34: 1}
    for number, layer in enumerate(reference[:35]):
        x, y = layer(x), layer(y)
        if number in taps:
            expected = expected + taps[number] * F.l1_loss(x, y)
            x, y = x.clone(), y.clone()  # the next ReLU works in place
    assert loss(a, b).item() == pytest.approx(expected.item(), rel=1e-4)


def test_perceptual_trains_the_picture_and_not_itself(vgg_file, tmp_path):
    torch.save(resnet50(weights=None).state_dict(), tmp_path / "danbooru.pth")
    loss = HybridPerceptual(vgg19_loss(vgg_file), anime_loss(tmp_path / "danbooru.pth")).train()
    assert not any(m.training for m in loss.losses)
    a, b = pair(32, torch.float32)
    a.requires_grad_(True)
    loss(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.parameters())
    assert loss(a[:, :1], b[:, :1]).isfinite()  # grey


def test_foreign_weights_are_refused(tmp_path, vgg_file):
    with pytest.raises(ValueError, match="is no resnet50"):
        anime_loss(vgg_file)
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth is no vgg19"):
        vgg19_loss(tmp_path / "x.pth")


def test_detector_terms_train_the_picture():
    detector = ArtifactDetector(channels=8)
    a, b = pair(32, torch.float32)
    for loss in (artifact_class_loss(detector, a.requires_grad_(True)), artifact_feature_loss(detector, a, b)):
        (gradient,) = torch.autograd.grad(loss, a)
        assert gradient.abs().sum() > 0
    assert artifact_feature_loss(detector, b, b).item() == 0


@pytest.mark.parametrize(
    "term", ["pixel", "adversarial", "frequency", "gradient", "ms_ssim", "artifact_class", "artifact_feature"]
)
def test_each_term_of_the_total_reaches_the_picture_and_no_network(term):
    networks = {"discriminator": MultiScaleDiscriminator(channels=4), "detector": ArtifactDetector(channels=8)}
    loss = TotalLoss(**{"pixel": 0.0, term: 0.7}, **networks)
    a, b = pair(64, torch.float32)
    total, terms = loss(a.requires_grad_(True), b)
    total.backward()
    assert a.grad.abs().sum() > 0
    assert list(terms) == [term] and total.item() == pytest.approx(0.7 * terms[term]["raw"].item())
    for network in networks.values():
        assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not list(loss.parameters()) and not loss.state_dict()


def test_total_is_the_sum_and_the_discriminator_sees_the_original():
    discriminator = MultiScaleDiscriminator(channels=4).eval()
    seen = []
    discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    loss = TotalLoss(pixel=1.0, frequency=0.5, adversarial=0.1, discriminator=discriminator)
    prediction, target = pair(64, torch.float32)
    original = torch.rand_like(target)
    total, terms = loss(prediction, target, original)
    assert total.item() == pytest.approx(sum(t["weighted"].item() for t in terms.values()), rel=1e-5)
    assert seen[0] is original and seen[1] is prediction


def test_missing_networks_and_negative_weights_are_refused():
    with pytest.raises(ValueError, match="adversarial is 0.1, but its network"):
        TotalLoss(adversarial=0.1)
    with pytest.raises(ValueError, match="frequency is -1"):
        TotalLoss(frequency=-1)
    with pytest.raises(ValueError, match="'plane': choose one of plain"):
        TotalLoss(learnable="plane")


def learned(form: str, steps: int = 400) -> torch.Tensor:
    """Shares after learning on four constant losses of very different size, which no picture can improve."""
    module = LearnableWeights(4, form)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = torch.tensor([0.5, 0.1, 0.02, 0.004])
    for _ in range(steps):
        optimizer.zero_grad()
        module(losses).backward()
        optimizer.step()
    assert module.shares.sum().item() == pytest.approx(1)
    return module.shares


def test_plain_weights_collapse_onto_the_smallest_loss_and_the_remedies_do_not():
    plain = learned("plain")
    assert plain.argmax() == 3 and plain[0] < 0.01
    assert learned("normalised") == pytest.approx([0.25] * 4, abs=0.01)
    assert learned("entropy").min() > 0.004 > learned("plain", 2000).min()
    # uncertainty settles at exp(-s) = 1 / L: each loss then counts alike, and the picture's gradient is balanced
    shares = learned("uncertainty", 3000)
    assert (shares * torch.tensor([0.5, 0.1, 0.02, 0.004])).std() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_learnable_weights_are_trained_saved_and_logged(form):
    loss = TotalLoss(learnable=form, frequency=0.5)
    a, b = pair(32, torch.float32)
    loss(b, a)
    total, terms = loss(a.requires_grad_(True), 0.9 * b)
    total.backward()
    assert loss.group == ["pixel", "gradient", "ms_ssim"]
    assert set(terms) == {"pixel", "gradient", "ms_ssim", "frequency"} and "share" not in terms["frequency"]
    assert [len(p) for p in loss.parameters()] == [3] and next(loss.parameters()).grad.abs().sum() > 0
    other = TotalLoss(learnable=form)
    other.load_state_dict(loss.state_dict())
    if form == "normalised":
        assert torch.equal(other.learnable.running, loss.learnable.running) and other.learnable.running.any()


def test_detector_and_discriminator_are_module_arguments_not_children():
    detector = ArtifactDetector(channels=8)
    loss = TotalLoss(artifact_class=0.1, detector=detector)
    assert not [m for m in loss.modules() if isinstance(m, nn.Conv2d)]
    loss.double()  # as to("cuda") would: the networks go along
    assert all(p.dtype == torch.float64 for p in detector.parameters())
