"""Picture quality by the field's protocol: 8-bit rounding, BT.601 limited-range Y, border cropped."""

from pytorch_msssim import ms_ssim, ssim
from torch import Tensor

BLANK = 1.0  # levels of 255; one grey in its place has 48 dB, and any figure above that says nothing
WINDOW = 11  # pixels of SSIM's window
RESTORED = 60.0  # dB: an error of a quarter level, less than rounding to 8 bits makes (59 dB)


def to_y(picture: Tensor) -> Tensor:
    """Luma, BT.601 limited range: (B, C, H, W) in [0, 1] -> (B, 1, H, W) in [16, 235]; C is 1 or 3."""
    weights = picture.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return 16 + (picture * weights).sum(1, keepdim=True)


def _prepare(picture: Tensor, border: int) -> Tensor:
    """What is compared: rounded to 8 bits, as Y (float64, [16, 235]), `border` pixels cropped all round."""
    y = to_y(picture.double().clamp(0, 1).mul(255).round().div(255))
    height, width = y.shape[-2:]
    return y[..., border : height - border, border : width - border]


def blank(picture: Tensor, border: int) -> Tensor:
    """(B,) whether pictures (B, C, H, W) in [0, 1] say nothing: in 8 bits, without the border of so many pixels, their
    luma has a standard deviation below BLANK, or they are smaller than SSIM's window.
    """
    y = _prepare(picture, border)
    if min(y.shape[-2:]) < WINDOW:
        return y.new_ones(len(y)).bool()
    return y.std((1, 2, 3), correction=0) < BLANK


def psnr_y(prediction: Tensor, target: Tensor, border: int) -> Tensor:
    """(B,) PSNR-Y in dB of pictures (B, C, H, W) in [0, 1]. border: output pixels to crop, the scale by
    custom. Infinite for equal pictures, NaN where nothing is left. Raises ValueError when the shapes differ.
    """
    _same_shape(prediction, target)
    error = _prepare(prediction, border) - _prepare(target, border)
    return -10 * (error.square().mean((1, 2, 3)) / 255**2).log10()


def ssim_y(prediction: Tensor, target: Tensor, border: int) -> Tensor:
    """(B,) SSIM on Y: 11x11 Gaussian window of sigma 1.5, valid positions only (Wang et al., 2004); NaN without one."""
    _same_shape(prediction, target)
    a, b = _prepare(prediction, border), _prepare(target, border)
    if min(a.shape[-2:]) < WINDOW:
        return a.new_full((len(a),), float("nan"))
    return ssim(a, b, data_range=255, size_average=False)


def ms_ssim_y(prediction: Tensor, target: Tensor, border: int) -> Tensor:
    """(B,) five-scale SSIM on Y (Wang et al., 2003); NaN below 161 pixels a side, where it is not defined."""
    _same_shape(prediction, target)
    a, b = _prepare(prediction, border), _prepare(target, border)
    if min(a.shape[-2:]) <= 160:
        return a.new_full((len(a),), float("nan"))
    return ms_ssim(a, b, data_range=255, size_average=False)


def _same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape; "
            "crop the HR picture to a multiple of the scale first"
        )
