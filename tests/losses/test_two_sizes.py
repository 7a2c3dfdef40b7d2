"""Two answers, one ground truth: the larger one's target is the ground truth enlarged."""

import pytest
import torch
import torch.nn.functional as F

from srlib.losses.two_sizes import TwoSizes
from srlib.losses.weights import FORMS


@pytest.mark.parametrize("form", FORMS)
def test_perfect_answers_cost_nothing_but_the_penalty_and_weights_get_gradients(form):
    torch.manual_seed(0)
    loss, truth = TwoSizes(form), torch.rand(2, 3, 48, 48)
    twice = F.interpolate(truth, scale_factor=2, mode="bilinear")
    _, terms = loss([truth, twice], truth, truth)
    assert set(terms) == {f"{name}_{n}" for name in ("pixel", "gradient", "ms_ssim", "output") for n in (1, 2)}
    assert terms["gradient_1"]["raw"] < 1e-6 and terms["pixel_2"]["raw"] <= 1.01e-3 and terms["ms_ssim_2"]["raw"] < 1e-5
    low, high = (torch.rand_like(p, requires_grad=True) for p in (truth, twice))
    total, terms = loss([low, high], truth)
    total.backward()
    assert terms["pixel_1"]["raw"] > 0.1 and low.grad.abs().max() > 0 and high.grad.abs().max() > 0
    weights = list(loss.parameters())
    assert len(weights) == 3 and all(w.grad is not None and w.grad.abs().max() > 0 for w in weights)


def test_an_answer_of_another_size_is_refused():
    with pytest.raises(ValueError, match="output 2 is"):
        TwoSizes()([torch.rand(1, 3, 48, 48)] * 2, torch.rand(1, 3, 48, 48))
