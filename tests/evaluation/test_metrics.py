"""The field's protocol, against values worked out by hand and an independent implementation."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from srlib.evaluation.metrics import blank, ms_ssim_y, psnr_y, ssim_y, to_y


def test_y_is_bt601_limited_range():
    picture = torch.rand(1, 3, 6, 5)
    expected = rgb2ycbcr(picture[0].permute(1, 2, 0).double().numpy())[..., 0]
    assert np.allclose(to_y(picture.double())[0, 0].numpy(), expected, atol=1e-3)
    assert to_y(torch.ones(1, 3, 1, 1)).item() == pytest.approx(235, abs=1e-3)
    assert to_y(torch.zeros(1, 1, 1, 1)).item() == 16


def test_psnr_by_hand_with_rounding_and_border():
    target = torch.full((1, 3, 12, 12), 100 / 255)
    prediction = target + 10.4 / 255  # rounds to 10 levels of grey: Y differs by 10 * 219 / 255
    prediction[..., :2, :] = 0  # in the border: must not count
    expected = 20 * np.log10(255 / (10 * (65.481 + 128.553 + 24.966) / 255))
    assert psnr_y(prediction, target, 2).item() == pytest.approx(expected, abs=1e-6)
    assert psnr_y(prediction, target, 0).item() < expected - 1


def test_out_of_range_values_are_clamped():
    white = torch.ones(1, 3, 16, 16)
    assert psnr_y(white * 1.5, white, 2).item() == float("inf")


def test_ssim_equals_scikit_image():
    a = torch.rand(1, 3, 40, 33)
    b = (a + 0.1 * torch.randn(1, 3, 40, 33)).clamp(0, 1)
    y = [to_y(p.double().mul(255).round().div(255))[0, 0, 2:-2, 2:-2].numpy() for p in (a, b)]
    _, full = structural_similarity(
        *y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim_y(a, b, 2).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)


def test_ms_ssim_is_one_for_equal_and_nan_when_too_small():
    picture = torch.rand(1, 3, 200, 180)
    assert ms_ssim_y(picture, picture, 2).item() == pytest.approx(1)
    assert ms_ssim_y(picture[..., :100, :], picture[..., :100, :], 2).isnan().all()


def test_batches_are_scored_per_picture_and_grey_works():
    a = torch.rand(3, 1, 20, 20)
    b = a.clone()
    b[1] = 0
    scores = psnr_y(b, a, 2)
    assert scores.shape == (3,) and scores[0].isinf() and scores[1].isfinite()


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="crop the HR picture"):
        psnr_y(torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 21), 2)


def varied(kind: str) -> torch.Tensor:
    """A picture (1, 3, 64, 64) of one kind."""
    picture = torch.full((1, 3, 64, 64), 0.4)
    if kind == "noise of one level":
        picture += torch.randint(-1, 2, picture.shape[-2:]) / 255
    elif kind == "detail in the border":
        picture[..., :2, :] = 1
    elif kind == "one bright pixel":
        picture[..., 30, 30] += 50 / 255
    elif kind == "black":
        picture *= 0
    elif kind == "grey":
        return picture[:, :1]
    elif kind == "a line of text":
        picture[..., 30:36, 10:50:3] = 0
    elif kind == "noise":
        picture += 4 / 255 * torch.randn(picture.shape)
    elif kind == "gradient":
        picture += torch.linspace(0, 0.1, 64)
    return picture


def test_a_picture_is_blank_when_its_luma_hardly_deviates():
    for kind in ("one colour", "black", "grey", "noise of one level", "detail in the border", "one bright pixel"):
        assert blank(varied(kind), 2).tolist() == [True], kind
    for kind in ("a line of text", "noise", "gradient"):
        assert blank(varied(kind), 2).tolist() == [False], kind
