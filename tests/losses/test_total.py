"""Every term's gradient is right, reaches the picture, and nothing it must not reach."""

import pytest
import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from small_networks import strong
from torch import nn

from srlib.losses.detector import ArtifactDetector
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.terms import (
    artifact_class_loss,
    artifact_feature_loss,
    charbonnier,
    frequency_loss,
    gradient_loss,
    ms_ssim_loss,
    ragan_d,
    ragan_g,
)
from srlib.losses.total import TERMS, DualLoss, TotalLoss
from srlib.losses.weights import FORMS, LearnableWeights
from srlib.networks.eraser import TiledSR


def pair(size=24, dtype=torch.float64):
    return torch.rand(2, 3, size, size, dtype=dtype), torch.rand(2, 3, size, size, dtype=dtype)


class Looks(nn.Module):
    """A perceptual network of one layer, random and frozen."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).requires_grad_(False)

    def forward(self, prediction, target):
        return F.l1_loss(self.conv(prediction).tanh(), self.conv(target).tanh())


def single(term: str, weight: float = 0.7):
    """A TotalLoss of this term alone, and the networks it may use."""
    networks = {
        "perceptual_network": Looks(),
        "discriminator": MultiScaleDiscriminator(channels=4),
        "detector": ArtifactDetector(channels=8),
    }
    return TotalLoss(**{"pixel": 0.0, term: weight}, **networks), networks.values()


@pytest.mark.parametrize("term", TERMS)
def test_gradient_equals_finite_differences(term):
    loss = single(term)[0].double()
    prediction, target = pair(64)
    loss(prediction.requires_grad_(True), target)[0].backward()
    direction, step = torch.randn_like(prediction), 1e-7
    with torch.no_grad():
        ahead, behind = (loss(prediction + s * direction, target)[0] for s in (step, -step))
    difference = (ahead - behind).item() / (2 * step)
    assert (prediction.grad * direction).sum().item() == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_each_term_trains_the_tiled_generator_and_no_network_that_judges(term):
    model = TiledSR(
        strong(embed_dim=16, depths=(1,), num_heads=(2,), window_size=8),
        use_tiling=True,
        tile_size=16,
        tile_pad=8,
        channels=8,
        blocks=1,
        gains=[[8, 0.1]],
    ).train()
    nn.init.normal_(model.out_conv.weight, std=0.05)  # at zero, as it starts, it hides the eraser behind it
    loss, networks = single(term)
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in networks]
    prediction = model(torch.rand(1, 3, 48, 48))
    target = prediction.detach() + 0.1 * torch.randn_like(prediction)  # MS-SSIM wants likeness
    total, terms = loss(prediction, target)
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert list(terms) == [term] and total.item() == pytest.approx(0.7 * terms[term]["raw"].item())
    for network, state in zip(networks, before, strict=True):
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert not list(loss.parameters()) and not loss.state_dict()


def test_networks_that_judge_are_left_as_they_were():
    discriminator = MultiScaleDiscriminator(channels=4).train()
    discriminator.nets[1].eval().requires_grad_(False)
    modes = [m.training for m in discriminator.modules()]
    trained = [p.requires_grad for p in discriminator.parameters()]
    during = []
    discriminator.register_forward_hook(lambda m, x, y: during.extend(n.training for n in m.modules()))
    state = {k: v.clone() for k, v in discriminator.state_dict().items()}
    loss = TotalLoss(adversarial=0.1, discriminator=discriminator)
    a, b = pair(64, torch.float32)
    first, second = (loss(a, b)[0].item() for _ in range(2))
    assert first == second and during and not any(during)
    assert all(torch.equal(v, state[k]) for k, v in discriminator.state_dict().items())
    with pytest.raises(RuntimeError):
        loss(a[:, :2], b)
    assert [m.training for m in discriminator.modules()] == modes
    assert [p.requires_grad for p in discriminator.parameters()] == trained
    discriminator(a)  # its own step: the power iteration goes on
    moved = {k.split(".")[1] for k, v in discriminator.state_dict().items() if not torch.equal(v, state[k])}
    assert moved == {"0", "2"}


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


def test_detector_terms_train_the_picture():
    detector = ArtifactDetector(channels=8)
    a, b = pair(32, torch.float32)
    for loss in (artifact_class_loss(detector, a.requires_grad_(True), b), artifact_feature_loss(detector, a, b)):
        (gradient,) = torch.autograd.grad(loss, a)
        assert gradient.abs().sum() > 0
    assert artifact_feature_loss(detector, b, b).item() == 0


def test_what_the_target_has_itself_is_no_artifact():
    class Bright(nn.Module):
        """Surely finds what is above one half."""

        def forward(self, x):
            return (x.mean(1, keepdim=True) - 0.5) * 1000

    target = torch.zeros(1, 3, 4, 4)
    target[..., 2:] = 1
    found = target.clone()
    found[..., :2, 0] = 0.55
    assert artifact_class_loss(Bright(), target, target).item() == pytest.approx(0, abs=1e-6)
    assert artifact_class_loss(Bright(), found, target).item() == pytest.approx(50 * 2 / 16, rel=1e-4)


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
    contributions = sum(t["weighted"] for t in terms.values())
    assert total.item() == pytest.approx((contributions + loss.learnable.penalty()).item(), rel=1e-5)
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


def test_a_non_finite_loss_does_not_stay_in_the_running_mean():
    module = LearnableWeights(2, "normalised")
    bad = torch.tensor([float("nan"), 1.0])
    assert module(bad).isnan() and module.seen == 0 and module(torch.tensor([float("inf"), 1.0])).isinf()
    assert module(torch.tensor([4.0, 1.0])).item() == pytest.approx(1)
    assert module(bad).isnan()  # so that the step is skipped
    module(torch.tensor([2.0, 3.0]))
    assert module.running.tolist() == pytest.approx([3, 2]) and module.seen == 2
    module.eval()(torch.tensor([9.0, 9.0]))
    assert module.running.tolist() == pytest.approx([3, 2])


def two_pictures(sizes=(24, 48)):
    return tuple(list(p) for p in zip(*(pair(size) for size in sizes), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("looks", [None, Looks])
def test_dual_loss_is_that_composed_by_hand(form, looks):
    network = looks and looks()
    loss = DualLoss(form, perceptual_network=network).double()
    parts = [charbonnier, *([network] if network else []), gradient_loss, ms_ssim_loss]
    names = ["pixel", *(["perceptual"] if network else []), "gradient", "ms_ssim"]
    for p in loss.parameters():
        nn.init.normal_(p)
    inner, outer = [o.learnable.raw.detach() for o in loss.outputs], loss.between.raw.detach()

    def combined(raw, losses, mean, each=1):
        """(sum, penalty), by the formulas of LearnableWeights."""
        w = raw.exp() / raw.exp().sum()
        if form == "uncertainty":
            return (losses / raw.exp()).sum(), each * raw.sum()
        penalty = 0.1 * (w * w.log()).sum() if form == "entropy" else 0
        return (w * losses / (mean if form == "normalised" else 1)).sum(), penalty

    history, sums_before = [], []
    for _ in range(2):  # the second time, so that the running mean is of two
        prediction, target = two_pictures()
        raw = torch.stack(
            [torch.stack([f(p, t) for f in parts]) for p, t in zip(prediction, target, strict=True)]
        )  # (output, term)
        history.append(raw)
        total, terms = loss([p.requires_grad_(True) for p in prediction], target, original=target)
        means = torch.stack(history).mean(0)
        pairs = [combined(inner[i], raw[i], means[i]) for i in range(2)]
        sums = torch.stack([s for s, _ in pairs])
        sums_before.append(sums)
        top, penalty = combined(outer, sums, torch.stack(sums_before).mean(0), each=len(parts))
    assert total.item() == pytest.approx((top + penalty + sum(p for _, p in pairs)).item())

    assert list(terms) == [f"{n}_{i}" for i in (1, 2) for n in [*names, "output"]]
    assert all(set(t) == {"raw", "weighted", "share"} and not t["raw"].requires_grad for t in terms.values())
    for i in (1, 2):
        group = [terms[f"{n}_{i}"] for n in names]
        assert sum(t["share"] for t in group).item() == pytest.approx(1)
        assert [t["raw"].item() for t in group] == pytest.approx(raw[i - 1].tolist())
        assert sum(t["weighted"] for t in group).item() == pytest.approx(terms[f"output_{i}"]["weighted"].item())
    shares = torch.stack([terms[f"output_{i}"]["share"] for i in (1, 2)])
    assert shares.sum().item() == pytest.approx(1)
    assert torch.allclose(shares, F.softmax(-outer if form == "uncertainty" else outer, 0))
    assert sum(terms[f"output_{i}"]["weighted"] for i in (1, 2)).item() == pytest.approx(top.item())

    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in [*prediction, *loss.parameters()])
    assert [len(p) for p in loss.parameters()] == [len(parts)] * 2 + [2]
    other = DualLoss(form, perceptual_network=network).double()
    other.load_state_dict(loss.state_dict())
    with torch.no_grad():
        assert other.eval()(prediction, target)[0].item() == pytest.approx(total.item())


def test_uncertainty_at_two_levels_has_a_minimum():
    loss = DualLoss("uncertainty")
    prediction, target = ([p.float() for p in pictures] for pictures in two_pictures((12, 24)))
    prediction[0] = 0.99 * target[0]  # small losses: their logarithms are negative
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(300):
        total, terms = loss(prediction, target)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    # exp(-S) exp(-s) = 1 / L for every term of both outputs
    weighted = [t["weighted"].item() for name, t in terms.items() if not name.startswith("output")]
    assert weighted == pytest.approx([1] * 6, rel=0.05)


def test_dual_loss_names_what_does_not_fit():
    loss = DualLoss()
    prediction, target = two_pictures()
    for one in (prediction[0], torch.stack([target[0]] * 2)):
        with pytest.raises(ValueError, match="the model must return a sequence of two pictures, not a Tensor"):
            loss(one, target)
    with pytest.raises(ValueError, match="the model must return a sequence of two pictures, not 3"):
        loss([*prediction, target[0]], target)
    with pytest.raises(ValueError, match="its targets must be a sequence of two pictures, not 1"):
        loss(prediction, target[:1])
    with pytest.raises(ValueError, match=r"output 2 is \(2, 3, 48, 48\), but its target is \(2, 3, 24, 24\)"):
        loss(prediction, [target[0], target[0]])
    for form in ("plane", None):
        with pytest.raises(ValueError, match=f"{form!r}: choose one of plain"):
            DualLoss(form)


def test_the_pixel_term_may_be_the_squared_error():
    p, t = pair()
    p.requires_grad_()
    total, terms = TotalLoss(squared=True)(p, t)
    total.backward()
    assert torch.allclose(total, (p - t).square().mean()) and torch.equal(terms["pixel"]["raw"], total.detach())
    assert torch.allclose(p.grad, 2 * (p.detach() - t) / p.numel())
    assert TotalLoss(squared=True).config["squared"] and "squared" not in TotalLoss().config
