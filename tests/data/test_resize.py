"""Downscaling and upscaling equal the field's reference, for floats and for the integers of files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from srlib.data.pictures import to_float
from srlib.data.resize import (
    METHODS,
    centre,
    crop_to_multiple,
    downscale,
    downscale_integers,
    resize_integers,
    upscale,
    upscale_integers,
)


def cubic(x):
    x = np.abs(x)
    return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def reference(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    """imresize along one axis in float64: cubic kernel stretched when downscaling, borders mirrored with their edge."""
    array = np.moveaxis(array, axis, 0)
    n = len(array)
    ratio = size / n
    stretch = max(1 / ratio, 1)
    out = np.zeros((size, *array.shape[1:]))
    for o in range(size):
        centre = (o + 0.5) / ratio - 0.5
        taps = np.arange(np.floor(centre - 2 * stretch), np.ceil(centre + 2 * stretch) + 1).astype(int)
        weights = cubic((taps - centre) / stretch)
        index = taps % (2 * n)
        index = np.where(index < n, index, 2 * n - 1 - index)
        out[o] = np.tensordot(weights / weights.sum(), array[index], 1)
    return np.moveaxis(out, 0, axis)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_the_reference_within_a_thousandth_of_a_level(scale):
    x = np.random.default_rng(0).random((3, 12 * scale, 9 * scale))
    expected = reference(reference(x, 12, 1), 9, 2).clip(0, 1)
    assert np.abs(downscale(torch.from_numpy(x).float(), scale, "bicubic").numpy() - expected).max() * 255 < 1e-3
    larger = reference(reference(x, 12 * scale**2, 1), 9 * scale**2, 2).clip(0, 1)
    assert np.abs(upscale(torch.from_numpy(x).float(), scale).numpy() - larger).max() * 255 < 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_method_keeps_constants_and_the_centre(method, scale):
    assert torch.allclose(downscale(torch.full((3, 24, 36), 0.3), scale, method), torch.tensor(0.3))
    ramp = torch.linspace(0.2, 0.8, 96 * scale).expand(3, 12, -1).repeat(1, scale, 1)
    small = downscale(ramp, scale, method)[0, 4]
    box = ramp[0, 0].view(-1, scale).mean(1)
    shift = 0.5 if method == "nearest" and scale % 2 == 0 else 0  # there no pixel lies at the centre
    assert torch.allclose(small[16:-16], box[16:-16] + shift * (ramp[0, 0, 1] - ramp[0, 0, 0]), atol=2e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lanczos_is_pillows_in_floating_point(scale):
    x = np.random.default_rng(0).random((10 * scale, 7 * scale), np.float32)  # the smaller side is mirrored twice
    padded = Image.fromarray(np.pad(x, 4 * scale, mode="symmetric"))
    small = padded.resize((7 + 8, 10 + 8), Image.Resampling.LANCZOS)
    expected = np.asarray(small)[4:-4, 4:-4].clip(0, 1)
    assert np.abs(downscale(torch.from_numpy(x)[None], scale, "lanczos")[0].numpy() - expected).max() * 255 < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_are_kept_and_every_picture_is_downscaled_alone(method):
    x = torch.rand(2, 3, 12, 18)
    assert torch.equal(downscale(x, 3, method)[1], downscale(x[1], 3, method))
    assert downscale(x[None], 3, method).shape == (1, 2, 3, 4, 6)
    assert downscale(x[0, 0, None], 3, method).shape == (1, 4, 6)


def test_wrong_sizes_and_methods_are_refused():
    with pytest.raises(ValueError, match="13x12 is not a multiple of the scale 2"):
        downscale(torch.rand(3, 12, 13), 2)
    with pytest.raises(ValueError, match="'cubic' is none of nearest"):
        downscale(torch.rand(3, 12, 12), 2, "cubic")
    assert crop_to_multiple(np.zeros((13, 17, 3)), 4).shape == (12, 16, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("method", METHODS)
def test_integers_are_the_rounded_floats(method, dtype):
    """Sizes that are no multiple of the blocks; between two levels either is right."""
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (6 * 37, 6 * 21, 3), endpoint=True, dtype=dtype)
    for scale in (2, 3):
        expected = downscale(to_float(array), scale, method).permute(1, 2, 0).double().numpy() * np.iinfo(dtype).max
        small = downscale_integers(array, scale, method)
        assert small.dtype == dtype and small.shape == expected.shape
        assert np.abs(small - expected).max() <= 0.5 + (1e-4 if dtype == np.uint8 else 0.02)
    larger = upscale(to_float(array), 3).permute(1, 2, 0).double().numpy() * np.iinfo(dtype).max
    assert np.abs(upscale_integers(array, 3) - larger).max() <= 0.5 + (1e-4 if dtype == np.uint8 else 0.02)


def test_means_of_four_levels_round_half_up():
    array = np.array([[0, 1], [1, 0]], np.uint8)[..., None].repeat(3, 2)  # mean 0.5
    assert (downscale_integers(array, 2, "area") == 1).all()
    array[0, 0] = 255  # mean 64.25
    assert (downscale_integers(array, 2, "area") == 64).all()


@pytest.mark.parametrize("size", [(2, 2), (3, 40), (1024, 7)])
def test_pictures_smaller_than_the_kernel_are_mirrored(size):
    x = np.random.default_rng(0).random((1, size[0] * 4, size[1] * 4))
    expected = reference(reference(x, size[0], 1), size[1], 2).clip(0, 1)
    assert np.abs(downscale(torch.from_numpy(x).float(), 4).numpy() - expected).max() * 255 < 1e-3


def test_the_centre_is_cropped_and_its_place_told():
    array = np.arange(7 * 10).reshape(7, 10)
    part, top, left = centre(array, 4)
    assert (top, left) == (1, 3) and np.array_equal(part, array[1:5, 3:7])
    assert np.array_equal(centre(array, None)[0], array) and centre(array, 8)[0].shape == (7, 8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [2, 3])
def test_any_size_is_the_whole_number_s_where_it_is_one(dtype, scale):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (90, 66, 3)).astype(dtype)
    small, large = downscale_integers(array, scale), upscale_integers(array, scale)
    assert np.abs(resize_integers(array, 90 // scale, 66 // scale).astype(int) - small).max() <= 1
    assert np.abs(resize_integers(array, 90 * scale, 66 * scale).astype(int) - large).max() <= 1


@pytest.mark.parametrize("size", [(61, 47), (200, 131), (5, 300), (1, 1), (90, 66)])
def test_any_size_is_torch_s_antialiased_bicubic_away_from_the_border(size):
    array = np.random.default_rng(0).integers(0, 256, (90, 66, 2), np.uint8)
    made = resize_integers(array, *size)
    theirs = F.interpolate(
        torch.from_numpy(array).permute(2, 0, 1)[None].double(), size, mode="bicubic", antialias=True
    )
    theirs = theirs[0].permute(1, 2, 0).add(0.5).clamp(0, 255).numpy().astype(np.uint8)
    border = [min(-(-2 * max(new, old) // old), new // 2) for new, old in zip(size, (90, 66), strict=True)]
    inside = tuple(slice(b, n - b) for b, n in zip(border, size, strict=True))
    if max(size) < 250:  # upscaling has another kernel there
        assert np.abs(made[inside].astype(int) - theirs[inside]).max(initial=0) <= 1
    assert made.shape == (*size, 2)


def test_a_texture_stays_one_when_it_is_resized():
    array = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    rolled = resize_integers(np.roll(array, (12, 18), (0, 1)), 16, 54, wrap=True)
    assert np.array_equal(rolled, np.roll(resize_integers(array, 16, 54, wrap=True), (8, 27), (0, 1)))
