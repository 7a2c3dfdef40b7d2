"""The eraser's loss: in units of tiling's error, from the whole picture or the ground truth."""

import pytest
import torch

from srlib.losses.erasure import ErasureLoss
from srlib.losses.total import TotalLoss


def test_it_is_the_squared_error_in_units_and_a_unit_of_0_counts_nothing():
    whole = torch.rand(2, 3, 8, 8)
    prediction = (whole + 0.02).requires_grad_()
    unit = torch.tensor([0.01, 0.0]).view(2, 1, 1, 1)
    total, terms = ErasureLoss(0.5)(prediction, (whole, unit), torch.zeros_like(whole))
    assert total.item() == pytest.approx(0.5 * (2.0**2 / 2), rel=1e-3)  # of two pictures one counts
    assert terms["tiling_error"]["raw"].item() == pytest.approx(2.0, rel=1e-3)
    total.backward()
    assert prediction.grad[0].abs().min() > 0 and prediction.grad[1].abs().max() == 0


@pytest.mark.parametrize(("teacher", "expected"), [("whole", 0.1), ("ground_truth", 0.3)])
def test_the_other_terms_compare_with_the_teacher(teacher, expected):
    whole, truth = torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.2)
    loss = ErasureLoss(0.0, TotalLoss(pixel=1.0), teacher)
    total, terms = loss(torch.full((1, 3, 8, 8), 0.5), (whole, torch.ones(1, 1, 1, 1)), truth)
    assert total.item() == pytest.approx(expected, abs=1e-4) and list(terms) == ["pixel"]
    assert loss.config["teacher"] == teacher and loss.config["pixel"] == 1.0


def test_nothing_to_learn_from_and_unknown_teachers_are_refused():
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        ErasureLoss(0.0)
    with pytest.raises(ValueError, match="teacher 'hr' is none of whole, ground_truth"):
        ErasureLoss(teacher="hr")
