"""The seam metrics say what they should."""

import math

import pytest
import torch

from srlib.tiling.seams import (
    consistency,
    seam_gradient_ratio,
    seam_profile,
    seam_report,
    step_ratios,
    worst_pieces,
    worst_seam,
)


def test_metrics_by_hand():
    whole = torch.zeros(1, 1, 4, 8)
    whole[..., 4:] = 0.1  # the whole picture steps by 0.1 across column 4
    tiled = whole.clone()
    tiled[..., 4:] += 0.1
    seams = ([], [4])
    assert consistency(tiled, whole) == pytest.approx(-10 * torch.tensor(0.005).log10().item(), abs=1e-4)
    assert seam_gradient_ratio(tiled, whole, seams) == pytest.approx(4)
    rows, columns = step_ratios(tiled, whole, ([2], [4, 6]))
    assert columns[0] == pytest.approx(4) and math.isnan(columns[1]) and math.isnan(rows[0])  # 0 / 0
    assert seam_profile(tiled, whole, seams, 5)[:4].tolist() == pytest.approx([0.005**0.5] * 4)
    assert seam_profile(tiled, whole, seams, 5)[4].isnan()
    report = seam_report(tiled, whole, seams)
    assert report["max_difference"] == pytest.approx(0.1) and report["differing_share"] == 0.5
    assert consistency(whole, whole) == float("inf")


@pytest.mark.parametrize("levels", [0.0, 0.1, 0.4])
def test_a_picture_that_is_flat_along_the_seams_has_no_gradient_ratio(levels):
    """A ratio to next to nothing would be some hundreds, and the mean over all pictures with it."""
    whole = torch.full((1, 3, 16, 16), 0.5)
    whole[..., 8:] += levels / 255
    whole[..., 12:, :4] = 1.0  # detail elsewhere is none along the seam
    tiled = whole.clone()
    tiled[..., 8:] += 3 / 255
    seams = ([], [8])
    assert math.isnan(seam_gradient_ratio(tiled, whole, seams)) and math.isnan(step_ratios(tiled, whole, seams)[1][0])
    whole[..., 8:] += 1 / 255
    assert seam_gradient_ratio(whole, whole, seams) == 1
    assert math.isnan(seam_gradient_ratio(tiled, whole, ([], [])))


def test_worst_seam_is_found():
    whole = torch.zeros(1, 3, 128, 128)
    tiled = whole.clone()
    tiled[..., 60:70, 40:44] = 0.5  # on the seam at row 64
    tiled[..., 5:15, 100:120] = 1.0  # larger, but on no seam
    top, left = worst_seam(tiled, whole, ([64], []), crop=32)
    assert top == 48 and left <= 40 and left + 32 >= 44


def test_the_worst_pieces_of_seams_lie_between_crossings():
    whole = torch.zeros(1, 3, 64, 96)
    tiled = whole.clone()
    tiled[..., 28:32, 48:96] = 0.5  # above the row at 32, right of the column at 48
    tiled[..., 0:32, 49] = 0.1  # one of eight columns at that seam, above the row
    pieces = worst_pieces(tiled, whole, ([32], [48]), count=3)
    first, second = pieces[0], pieces[1]
    assert first[:4] == ("row", 32, 48, 96) and first.rms == pytest.approx(((47 * 0.5**2 + 0.1**2) / 48 / 2) ** 0.5)
    assert second[:4] == ("column", 48, 0, 32) and len(pieces) == 3
    squares = 4 * 3 * 0.5**2 + 32 * 0.1**2  # four rows of 0.5 in the three columns that 0.1 was not written over
    assert second.rms == pytest.approx((squares / (32 * 8)) ** 0.5)
    assert worst_pieces(tiled, whole, ([], [])) == []
