"""Any kind of picture comes out upscaled and of the same kind."""

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from small_networks import strong

from srlib.data.pictures import Picture, read_picture, to_float, to_integers, write_picture
from srlib.data.resize import downscale
from srlib.inference.folders import targets, upscale_files
from srlib.inference.upscale import upscale
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def model() -> TiledSR:
    torch.manual_seed(0)
    return TiledSR(start_as_interpolation(HAT(**TINY)), channels=8).eval()


def ramp(height=20, width=30, dtype=np.uint8) -> np.ndarray:
    """(H, W, 3): smooth, so that a bilinear upscaler can be checked."""
    y, x = np.mgrid[:height, :width]
    top = np.iinfo(dtype).max
    return (np.stack([x / width, y / height, (x + y) / (width + height)], 2) * top).astype(dtype)


@pytest.mark.parametrize("options", [{"statistics": "exact"}, {"halo": 8, "batch": 1}])
def test_a_picture_of_the_same_kind_comes_out(model, options):
    for dtype in (np.uint8, np.uint16):
        rgb = ramp(48, 48, dtype)
        alpha = rgb[..., 0].copy()
        alpha[:, 24:] = 0
        big, report = upscale(model, Picture(rgb, alpha, icc=SRGB), tile=16, **options)
        assert big.rgb.shape == (96, 96, 3) and big.rgb.dtype == dtype and big.icc == SRGB
        assert big.alpha.shape == (96, 96) and big.alpha.dtype == dtype
        assert (big.alpha[8:-8, 56:-8] < 0.02 * np.iinfo(dtype).max).all()
        inside = (slice(6, -6), slice(6, -6))
        difference = np.abs(big.rgb[::2, ::2][inside].astype(float) - rgb[inside]) / np.iinfo(dtype).max
        assert difference.max() < 0.02 and len(report.plan) == 9
        if dtype == np.uint16:
            assert len(np.unique(big.rgb)) > 256  # not 8 bits in disguise


def test_grey_stays_grey_also_through_a_model_for_grey(model):
    grey = np.repeat(ramp()[..., :1], 3, 2)
    big, _ = upscale(model, Picture(grey, grey=True), tile=16)
    assert big.grey and (big.rgb == big.rgb[..., :1]).all()
    single = TiledSR(start_as_interpolation(HAT(**TINY, in_chans=1)), channels=8).eval()
    big, _ = upscale(single, Picture(grey, grey=True), tile=16)
    assert (big.rgb == big.rgb[..., :1]).all() and big.rgb.shape == (40, 60, 3)
    big, _ = upscale(single, Picture(ramp()), tile=16)
    assert np.abs(big.rgb[16:-16:2, 16:-16:2].astype(int) - ramp()[8:-8, 8:-8]).max() < 6


def test_the_modes_of_the_command_agree_with_the_network():
    model = TiledSR(strong(**TINY), channels=8).eval()
    rgb = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    with torch.no_grad():
        whole = to_integers(model(to_float(rgb)[None])[0])
    exact, _ = upscale(model, Picture(rgb), statistics="exact", tile=16)
    tiled, _ = upscale(model, Picture(rgb), statistics="local", tile=16, halo=0)
    assert np.abs(exact.rgb.astype(int) - whole).max() <= 1
    assert np.abs(tiled.rgb.astype(int) - whole).max() > 10


def test_orientation_is_applied_and_16_bit_tiff_goes_in_and_out(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.fromarray(ramp(20, 30)).save(tmp_path / "side.jpg", exif=exif)
    tifffile.imwrite(tmp_path / "deep.tif", ramp(20, 30, np.uint16), photometric="rgb")
    pairs, _ = targets(tmp_path, tmp_path / "out")
    written, _, failed = upscale_files(pairs, lambda p, _: upscale(model, p, tile=16)[0], scale=2)
    assert (written, failed) == (2, {})
    with Image.open(tmp_path / "out" / "side.jpg") as image:
        assert image.size == (40, 60) and image.getexif().get(0x0112, 1) == 1
    assert cv2.imread(str(tmp_path / "out" / "deep.tif"), cv2.IMREAD_UNCHANGED).dtype == np.uint16


@pytest.mark.parametrize("options", [{"statistics": "exact"}, {"halo": 8}])
def test_no_hint_for_a_model_that_upscales_whatever_the_picture(model, options):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 24, 3), np.uint8)
    dots = np.zeros((24, 24, 3), np.uint8)
    dots[::2, ::2] = 255
    for rgb in (ramp(), noise, dots, np.zeros_like(noise), np.full_like(noise, 255), ramp(dtype=np.uint16)):
        assert not upscale(model, Picture(rgb), tile=16, **options)[1].notes


@pytest.mark.parametrize("factor", [255, -5])  # of the answer, whose mean may stay where it was
def test_a_hint_for_a_model_that_is_far_off(factor):
    model = TiledSR(start_as_interpolation(HAT(**TINY)), channels=8).eval()
    with torch.no_grad():
        model.hat_model.conv_last.weight *= factor
    for rgb in (ramp(), ramp(dtype=np.uint16), np.full((24, 24, 3), 9, np.uint8)):
        for statistics in ("exact", "local"):
            (note,) = upscale(model, Picture(rgb), tile=16, statistics=statistics)[1].notes
            assert note.startswith("hint: the mean goes from") and "--img-range (try 255)" in note


def test_a_downscaled_picture_comes_back(model, tmp_path):
    """End to end on a real round trip: downscale, write, command's function, read, compare with the original."""
    hr = ramp(48, 64)
    lr = to_integers(downscale(to_float(hr)[None], 2)[0])
    write_picture(tmp_path / "lr.png", Picture(lr))
    big, _ = upscale(model, read_picture(tmp_path / "lr.png"), statistics="exact", tile="auto")
    assert np.abs(big.rgb[8:-8, 8:-8].astype(int) - hr[8:-8, 8:-8]).max() <= 3


def test_a_path_in_place_of_a_picture_is_said():
    with pytest.raises(TypeError, match=r"picture is a str: read the file first, srlib.read_picture\(path\)"):
        upscale(TiledSR(HAT(**TINY, upscale=2)).eval(), "a.png")
