"""Scores of restored pictures are the protocol's, and the baselines do what they say."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srlib.evaluation.hdr_scores import hdr_scores
from srlib.evaluation.restored import (
    ColourPolynomial,
    as_it_is,
    evaluate_restored,
    gray_world,
    rgb_scores,
    squashed,
)


def test_scores_are_scikit_images():
    torch.manual_seed(0)
    a = torch.rand(1, 3, 40, 56)
    b = (a + 0.05 * torch.randn_like(a)).clamp(0, 1)
    scores = rgb_scores(a, b)
    one, other = ((p[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for p in (a, b))
    assert scores["PSNR"] == pytest.approx(peak_signal_noise_ratio(other, one), abs=1e-6)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, map_ = structural_similarity(one, other, channel_axis=2, full=True, **options)
    assert scores["SSIM"] == pytest.approx(map_[5:-5, 5:-5].mean(), abs=2e-3)
    with pytest.raises(ValueError, match="differ in shape"):
        rgb_scores(a, b[..., :-1])


def test_a_colour_polynomial_undoes_what_is_one():
    torch.manual_seed(0)
    truth = [torch.rand(3, 20, 24) for _ in range(4)]
    pairs = [{"lr": (0.2 + 0.5 * t.flip(0)).clamp(0, 1), "hr": t, "name": str(i)} for i, t in enumerate(truth)]
    fitted = ColourPolynomial(pairs[:3], degree=1)
    assert (fitted(pairs[3]["lr"][None])[0] - truth[3]).abs().max() < 1e-5
    table = evaluate_restored({"input": as_it_is, "fitted": fitted}, pairs[3:])
    best = table.set_index(["way", "size"])["PSNR"]
    assert best["fitted", "256x256"] > 40 > best["input", "full"] and len(table) == 4
    assert len(evaluate_restored({"input": as_it_is}, pairs, full=False)) == 4


def test_gray_world_has_a_grey_mean_and_squashing_a_square():
    x = torch.rand(1, 3, 30, 50) * torch.tensor([0.2, 0.6, 0.5]).view(3, 1, 1)
    means = gray_world(x).mean((0, 2, 3))
    assert means.max() - means.min() < 0.02
    assert squashed(x).shape == (1, 3, 256, 256) and torch.equal(
        squashed(torch.full((1, 3, 9, 9), 0.5))[0, 0, 0, :2], torch.tensor([0.5, 0.5])
    )


@pytest.mark.parametrize("size", [(1, 1), (4, 300), (10, 10), (11, 11)])
def test_pictures_below_the_window_of_ssim_have_none(size):
    a, b = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(0))
    for scores, name in ((rgb_scores(a, b), "SSIM"), (hdr_scores(100 * a, 100 * b), "SSIM-mu")):
        assert np.isnan(scores.pop(name)) == (min(size) < 11) and np.isfinite(list(scores.values())).all()
