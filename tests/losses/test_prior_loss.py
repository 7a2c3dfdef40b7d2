"""DiffIR's second stage learns the first stage's prior, and the picture where it makes one."""

import pytest
import torch

from srlib.losses.prior_loss import PriorLoss, WithTruth
from srlib.losses.total import TotalLoss
from srlib.networks.diffir import DiffIR, second_stage

TINY = {"dim": 8, "blocks": (1, 1), "heads": (1, 2), "refinement": 0, "prior": 8, "encoder_blocks": 0}


@pytest.fixture
def both():
    torch.manual_seed(0)
    first = DiffIR(stage=1, **TINY)
    return first, second_stage(first).train()


def test_the_prior_alone(both):
    first, second = both
    second.answer = "prior"
    loss = PriorLoss(first)
    x, truth = torch.rand(2, 2, 3, 16, 16)
    total, terms = loss(second(x), (x, truth), truth)
    expected = (second(x).detach() * 0 + first.prior(x, truth=truth)).abs().mean()
    assert total.item() != expected and terms["prior"]["raw"] == total
    assert loss(first.prior(x, truth=truth), (x, truth))[0] == 0
    total.backward()
    assert second.condition.mlp[0].weight.grad.abs().sum() > 0 and second.denoise.resmlp[0].weight.grad.abs().sum() > 0
    assert second.G.output.weight.grad is None  # it did not run
    assert all(p.grad is None for p in first.parameters()) and not list(loss.parameters())


def test_picture_and_prior(both):
    first, second = both
    second.answer = "both"
    loss = PriorLoss(first, TotalLoss(pixel=1.0), weight=0.5)
    x, truth = torch.rand(2, 2, 3, 16, 16)
    picture, prior = second(x)
    total, terms = loss((picture, prior), (x, truth), truth)
    alone, _ = TotalLoss(pixel=1.0)(picture, truth, truth)
    error = (prior - first.prior(x, truth=truth)).abs().mean()
    assert total.item() == pytest.approx((alone + 0.5 * error).item())
    assert set(terms) == {"prior", "pixel"}
    total.backward()
    assert second.G.output.weight.grad.abs().sum() > 0
    assert loss.config["prior"] == 0.5 and loss.networks[0] is first


def test_the_teacher_goes_along_and_must_be_a_first_stage(both):
    first, second = both
    PriorLoss(first).double()
    assert first.E.mlp[0].weight.dtype == torch.float64
    with pytest.raises(ValueError, match="DiffIR's first stage"):
        PriorLoss(second)


def test_items_carry_the_truth():
    items = [{"lr": torch.zeros(3, 4, 4), "hr": torch.ones(3, 4, 4), "name": "a"}]
    one, two = WithTruth(items, 1)[0], WithTruth(items, 2)[0]
    assert one["lr"][1] is items[0]["hr"] and "target" not in one
    assert two["lr"] is items[0]["lr"] and two["target"] == (items[0]["lr"], items[0]["hr"])
    assert len(WithTruth(items, 1)) == 1
