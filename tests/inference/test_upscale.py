"""Any kind of picture comes out upscaled and of the same kind; a folder survives what folders hold."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from small_networks import strong

from srlib.__main__ import main
from srlib.data.pictures import Picture, read_picture, to_float, to_integers, write_picture
from srlib.data.resize import downscale
from srlib.inference.folders import targets, upscale_files
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import save_model
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
    pairs = targets(tmp_path, tmp_path / "out")
    written, _, failed = upscale_files(pairs, lambda p, _: upscale(model, p, tile=16)[0], scale=2)
    assert (written, failed) == (2, {})
    with Image.open(tmp_path / "out" / "side.jpg") as image:
        assert image.size == (40, 60) and image.getexif().get(0x0112, 1) == 1
    assert cv2.imread(str(tmp_path / "out" / "deep.tif"), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_targets_mirror_the_tree_and_refuse_collisions(tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.JPG", "sub/notes.txt"):
        (source / name).write_bytes(b"")
    out = source / "out"
    out.mkdir()
    (out / "old.png").write_bytes(b"")
    assert targets(source, out) == {source / "a.png": out / "a.png", source / "sub/b.JPG": out / "sub/b.JPG"}
    assert targets(source, out, ".webp")[source / "sub/b.JPG"] == out / "sub/b.webp"
    assert targets(source / "a.png", tmp_path / "b.tif") == {source / "a.png": tmp_path / "b.tif"}
    assert targets(source / "a.png", tmp_path / "new") == {source / "a.png": tmp_path / "new" / "a.png"}
    (source / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="a.jpg and .*a.png would both be written to .*a.tif: rename one"):
        targets(source, out, ".tif")
    with pytest.raises(ValueError, match="a.png would be written over .*a.png, which is to be read"):
        targets(source / "a.png", source)
    with pytest.raises(ValueError, match="holds the pictures themselves"):
        targets(source, source)
    (source / "in").mkdir()
    (source / "in" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="which is to be read"):
        targets(source, tmp_path)  # in/in/a.png would become in/a.png
    (source / "in" / "a.png").unlink()
    assert targets(source, tmp_path)[source / "a.png"] == tmp_path / "a.png"
    (out / "old.png").unlink()
    with pytest.raises(FileNotFoundError, match="no pictures"):
        targets(out, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="none of .png"):
        targets(source / "a.png", tmp_path / "b.gif")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        targets(tmp_path / "nowhere", out)


def test_a_broken_file_is_named_the_others_are_upscaled_and_nothing_is_done_twice(model, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_picture(source / "a.png", Picture(ramp()))
    good = (source / "a.png").read_bytes()
    (source / "b.png").write_bytes(good[: len(good) // 2])
    write_picture(source / "c.png", Picture(ramp()))
    pairs = targets(source, out)
    calls = []

    def work(picture, path):
        calls.append(path.name)
        return upscale(model, picture, tile=16)[0]

    written, skipped, failed = upscale_files(pairs, work, scale=2)
    assert (written, skipped, [p.name for p in failed]) == (2, 0, ["b.png"])
    assert "b.png cannot be read" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "c.png"]
    assert upscale_files(pairs, work, scale=2)[:2] == (0, 2) and calls == ["a.png", "c.png"]
    assert upscale_files(pairs, work, scale=2, overwrite=True)[:2] == (2, 0)

    def broken(picture, path):
        raise RuntimeError()

    assert list(upscale_files(pairs, broken, scale=2, overwrite=True)[2].values())[0] == "RuntimeError"

    def stopped(picture, path):
        raise KeyboardInterrupt

    (out / "c.png").unlink()
    with pytest.raises(KeyboardInterrupt):
        upscale_files(pairs, stopped, scale=2)
    assert [p.name for p in out.iterdir()] == ["a.png"]


def test_what_a_format_cannot_hold_is_refused_before_the_work(model, tmp_path):
    write_picture(tmp_path / "in" / "a.png", Picture(ramp(), ramp()[..., 0]))
    write_picture(tmp_path / "in" / "wide.png", Picture(np.zeros((8, 8200, 3), np.uint8)))
    calls = []
    pairs = targets(tmp_path / "in", tmp_path / "out", ".jpg")
    _, _, failed = upscale_files(pairs, lambda p, _: calls.append(1) or p, scale=8)
    assert "cannot hold transparency" in failed[tmp_path / "in" / "a.png"]
    assert "65500 pixels a side, not 65600" in failed[tmp_path / "in" / "wide.png"]
    pairs = targets(tmp_path / "in" / "wide.png", tmp_path / "out", ".webp")
    assert "16383 pixels" in next(iter(upscale_files(pairs, lambda p, _: calls.append(1) or p, scale=2)[2].values()))
    assert not calls


def test_the_command_takes_a_published_checkpoint_and_says_what_it_did(tmp_path):
    torch.save({"params_ema": start_as_interpolation(HAT(**TINY, upscale=3)).state_dict()}, tmp_path / "published.pth")
    write_picture(tmp_path / "in" / "a.png", Picture(ramp(24, 33)))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    arguments = [tmp_path / "published.pth", tmp_path / "in", tmp_path / "out", "--format", "webp"]
    run = subprocess.run([sys.executable, "-m", "srlib", "upscale", *arguments], capture_output=True, text=True)
    assert run.returncode == 1 and "broken.jpg is not a picture" in run.stderr
    assert (
        "33x24 LR pixels x3: exact" in run.stdout and "1 written, 0 skipped because they exist, 1 failed" in run.stdout
    )
    with Image.open(tmp_path / "out" / "a.webp") as image:
        assert image.size == (99, 72)


def test_mistakes_in_the_command_end_with_a_sentence(model, tmp_path, capsys):
    save_model(tmp_path / "model.safetensors", model)
    write_picture(tmp_path / "a.png", Picture(ramp()))

    def run(*arguments) -> str:
        assert main(["upscale", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    good = [tmp_path / "model.safetensors", tmp_path / "a.png", tmp_path / "b.png"]
    assert "no checkpoint at" in run(tmp_path / "none.pth", *good[1:])
    assert "does not exist" in run(good[0], tmp_path / "none.png", good[2])
    assert "multiples of the model's window, 8" in run(*good, "--tile", "20")
    assert "multiples of the model's window, 8" in run(*good, "--tile", "large")
    assert "multiples of the model's window, 8" in run(*good, "--tile", "0")
    assert "batch at least 1" in run(*good, "--batch", "0")
    assert "--device nowhere: " in run(*good, "--device", "nowhere")
    assert "quality from 1 to 100" in run(*good, "--quality", "150")
    assert "a folder that exists" in run(*good, "--features", tmp_path / "nowhere")
    assert not (tmp_path / "b.png").exists()


def test_a_downscaled_picture_comes_back(model, tmp_path):
    """End to end on a real round trip: downscale, write, command's function, read, compare with the original."""
    hr = ramp(48, 64)
    lr = to_integers(downscale(to_float(hr)[None], 2)[0])
    write_picture(tmp_path / "lr.png", Picture(lr))
    big, _ = upscale(model, read_picture(tmp_path / "lr.png"), statistics="exact", tile="auto")
    assert np.abs(big.rgb[8:-8, 8:-8].astype(int) - hr[8:-8, 8:-8]).max() <= 3
