"""PU21 has its published values; scores are what their formulas say; the curve learns what the inverse cannot."""

import math

import pytest
import torch

from srlib.data.hdr import PEAK
from srlib.evaluation.hdr_scores import (
    ExpansionCurve,
    evaluate_hdr,
    hdr_scores,
    inverse_mapping,
    light_of,
    mu_law,
    pu21,
)


def test_pu21_has_its_published_values():
    light = torch.tensor([0.005, 0.1, 1, 10, 100, 1000, 4000, 10000], dtype=torch.float64)
    values = [0, 5.71707, 36.54391, 123.64748, 256.38390, 420.09692, 527.49390, 595.39392]
    assert pu21(light).tolist() == pytest.approx(values, abs=2e-5)
    assert torch.equal(pu21(torch.tensor([0.0, 1e6])), pu21(torch.tensor([0.005, 1e4])))


def test_scores_are_what_their_formulas_say():
    truth = torch.full((1, 3, 16, 16), 0.2 * PEAK, dtype=torch.float64)
    light = torch.full_like(truth, 0.1 * PEAK)
    scores = hdr_scores(light, truth)
    assert scores["PSNR-L"] == pytest.approx(20)  # an error of 0.1
    error = math.log(1001 / 501) / math.log(5001)
    assert scores["PSNR-mu"] == pytest.approx(-20 * math.log10(error), abs=1e-6)
    difference = (pu21(truth) - pu21(light)).mean().item()
    assert scores["PU21-PSNR"] == pytest.approx(20 * math.log10(256 / difference), abs=1e-6)
    assert scores["SSIM-mu"] < 1
    assert mu_law(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_beyond_the_peak_only_pu21_looks():
    truth, light = torch.full((1, 3, 16, 16), 5000.0), torch.full((1, 3, 16, 16), 2000.0)
    scores = hdr_scores(light, truth)
    assert scores["PSNR-mu"] == scores["PSNR-L"] == math.inf and scores["PU21-PSNR"] < 20
    with pytest.raises(ValueError, match="differ in shape"):
        hdr_scores(light, truth[:, :, 1:])


def test_log_mapping_is_undone():
    light = torch.tensor([0.0, 1.0, 1000.0, 50000.0], dtype=torch.float64)
    assert light_of(torch.log1p(light) / math.log1p(PEAK)).tolist() == pytest.approx(light.tolist())
    assert light_of(torch.tensor([-0.1])).item() == 0


def test_the_curve_brightens_what_was_clipped_in_training():
    pairs = []
    for seed in range(3):
        light = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 300
        bright = torch.where(light > 200, 3 * light, light)
        seen = bright.clamp(max=200)
        mapped = [torch.log1p(part) / math.log1p(PEAK) for part in (seen, bright)]
        pairs.append({"lr": mapped[0], "hr": mapped[1], "name": str(seed)})
    curve = ExpansionCurve(pairs[:2])
    table = evaluate_hdr({"inverse": inverse_mapping, "curve": curve}, pairs[2:]).set_index("way")
    assert table.loc["curve", "PU21-PSNR"] > table.loc["inverse", "PU21-PSNR"] + 3
    dark = torch.full((1, 3, 4, 4), 0.2)
    dark[..., 0] = 0.8
    assert (curve(dark) - dark)[..., 1:].abs().max() < 0.01
