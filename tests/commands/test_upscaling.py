"""srlib upscale takes any network's file, and what people ask of an upscaler."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from foreign_files import Doubling, foreign_file
from PIL import Image

from srlib.__main__ import main
from srlib.data.pictures import Picture, read_picture, to_float, to_integers, write_picture
from srlib.data.resize import downscale_integers
from srlib.evaluation.metrics import psnr_y, ssim_y
from srlib.inference import on_dask
from srlib.networks import foreign
from srlib.networks.checkpoints import load


def noise(height=40, width=52, seed=0) -> np.ndarray:
    """Smooth enough to be compared."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return small.repeat(4, 0).repeat(4, 1)


@pytest.fixture(autouse=True)
def no_adapter(monkeypatch):
    """Networks without a walk, whatever there are adapters for."""
    monkeypatch.setattr(foreign, "adapter_for", lambda module: None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A tree of grey, transparent, 16-bit and odd pictures, and one that is none."""
    folder = tmp_path_factory.mktemp("mixed") / "in"
    rgb = noise(44, 44)
    write_picture(folder / "colour.jpg", Picture(rgb[:, :37]))
    write_picture(folder / "sub/grey.png", Picture(rgb[..., :1].repeat(3, 2), grey=True))
    write_picture(folder / "sub/alpha.webp", Picture(rgb[:21], rgb[:21, :, 0].copy()), quality=100)
    write_picture(folder / "sub/deep/deep.png", Picture(rgb.astype(np.uint16) * 257))
    tifffile.imwrite(folder / "deep.tif", (rgb[:7, :5].astype(np.uint16) * 257), photometric="rgb")
    write_picture(folder / "one.bmp", Picture(rgb[:1, :1]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    return folder


@pytest.mark.parametrize("kind", ["Compact", "ESRGAN x2", "SwinIR"])
def test_a_mixed_folder_through_each_architecture(kind, mixed, tmp_path, capsys):
    path = foreign_file(tmp_path, kind)
    assert main(["upscale", str(path), str(mixed), str(tmp_path / "out"), "--tile", "16", "--halo", "16"]) == 1
    said = capsys.readouterr()
    model = load(path)
    assert f"{model.hat_model.name} cannot be tiled exactly here: tiles with 16 pixels of context instead" in said.out
    assert "6 written, 0 skipped because they exist, 1 failed" in said.out and "broken.png" in said.err
    sources = [p for p in sorted(mixed.rglob("*.*")) if p.name != "broken.png"]
    assert len(sources) == 6
    for source in sources:
        lr, sr = read_picture(source), read_picture(tmp_path / "out" / source.relative_to(mixed))
        assert sr.rgb.shape == (2 * lr.rgb.shape[0], 2 * lr.rgb.shape[1], 3) and sr.rgb.dtype == lr.rgb.dtype
        assert (sr.alpha is None) == (lr.alpha is None) and sr.grey == lr.grey
    grey, deep = (read_picture(tmp_path / "out/sub" / name).rgb for name in ("grey.png", "deep/deep.png"))
    with torch.no_grad():
        whole = to_integers(model(to_float(read_picture(mixed / "sub/deep/deep.png").rgb)[None])[0], np.uint16)
    difference = np.abs(deep.astype(int) - whole)
    assert difference.max() <= 1 or (kind != "Compact" and difference.mean() < 65535 / 100)  # more than its reach
    assert (grey == grey[..., :1]).all()
    assert main(["upscale", str(path), str(mixed), str(tmp_path / "out")]) == 1  # and nothing is done twice
    assert "0 written, 6 skipped" in capsys.readouterr().out


@pytest.fixture
def compact(tmp_path) -> list[str]:
    """The beginning of a command with a picture, and where its output goes."""
    write_picture(tmp_path / "a.png", Picture(noise()))
    return ["upscale", str(foreign_file(tmp_path, "Compact")), str(tmp_path / "a.png"), str(tmp_path / "out.png")]


def error(line: list[str], capsys) -> str:
    capsys.readouterr()
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_exact_is_refused_for_what_cannot_walk(compact, capsys):
    said = error([*compact, "--statistics", "exact"], capsys)
    assert "RealESRGAN Compact cannot be tiled exactly here: use statistics local, tiles with context" in said
    assert "cannot be tiled exactly" in error([*compact, "--statistics", "window", "--span", "16"], capsys)


def test_what_can_walk_is_tiled_exactly_unasked(compact, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(foreign, "adapter_for", lambda module: Doubling())
    assert main(compact) == 0
    assert "exact, in" in capsys.readouterr().out
    assert np.array_equal(read_picture(tmp_path / "out.png").rgb, noise().repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--outscale", "2", "--width", "9"], "outscale and width both say how large the output is"),
        (["--wrap", "-1"], "wrap -1 must be at least 0"),
        (["--compare", "nowhere"], "nowhere does not exist"),
        (["--img-range", "255"], "img_range is no setting of it"),
        (["--dask", "tcp://127.0.0.1:9"], "no Dask scheduler answers"),
    ],
)
def test_a_mistake_is_one_sentence(compact, options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--dask" in options:
        monkeypatch.setattr("dask.distributed.Client", refused)
    assert said in error([*compact, *options], capsys)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("named", ["small", "dat-light-x2", "model.pth"])
def test_a_model_without_an_output_is_said(named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "a.png", Picture(noise()))
    (tmp_path / "model.pth").write_bytes(b"x")
    assert f"{named} is a model: an output is missing" in error(["upscale", named, "a.png"], capsys)


def test_what_exact_does_not_use_is_named(tmp_path, capsys):
    write_picture(tmp_path / "a.png", Picture(noise()))
    line = ["upscale", str(tmp_path / "a.png"), str(tmp_path / "out.png")]
    assert main([*line, "--halo", "16", "--batch", "4", "--blend", "ramp"]) == 0
    said = capsys.readouterr().out
    assert "exact has no use for --halo, --blend, --batch: for tiles on their own add --statistics local" in said
    assert main([*line, "--overwrite", "--statistics", "local", "--tile", "8"]) == 0
    assert "the eraser does nothing: it was taught for at most 0 pixels" in capsys.readouterr().out
    assert main([*line, "--overwrite", "--statistics", "local", "--halo", "0", "--tile", "32", "--batch", "4"]) == 0
    said = capsys.readouterr().out
    assert "no use" not in said and "does nothing" not in said


def test_an_output_that_memory_cannot_hold_is_refused_before_the_work(tmp_path, capsys):
    write_picture(tmp_path / "a.png", Picture(noise()))
    assert main(["upscale", str(tmp_path / "a.png"), str(tmp_path / "out.png"), "--width", "900000"]) == 1
    assert "the output, 900000x692308 pixels, needs 1740.9 GiB of memory" in capsys.readouterr().err


def test_a_folder_is_not_written_to_a_pictures_name(tmp_path, capsys):
    write_picture(tmp_path / "in/a.png", Picture(noise()))
    assert "give a folder for the output" in error(["upscale", str(tmp_path / "in"), str(tmp_path / "x.png")], capsys)
    assert not (tmp_path / "x.png").exists()


def test_a_name_with_a_leading_dash_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "-a.png", Picture(noise()))
    assert main(["upscale", "-a.png", "out.png", "--tta"]) == 0 and (tmp_path / "out.png").is_file()


def refused(*_: object, **__: object) -> None:
    raise OSError("refused")


def test_half_precision_is_honoured(tmp_path, capsys):
    write_picture(tmp_path / "a.png", Picture(noise()))
    line = ["upscale", str(foreign_file(tmp_path, "SwinIR")), str(tmp_path / "a.png"), str(tmp_path / "out.png")]
    assert "SwinIR is not known to work in fp16: use bf16" in error([*line, "--precision", "fp16"], capsys)


def test_each_foreign_file_is_one_sentence(compact, tmp_path, capsys):
    for name, content in (("a.onnx", b"\x08\x07"), ("text.pth", b"hello"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        assert name in error(["upscale", str(tmp_path / name), *compact[2:]], capsys)
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "unknown.pth")
    said = error(["upscale", str(tmp_path / "unknown.pth"), *compact[2:]], capsys)
    assert "none of HAT, Restormer and DiffIR, and none that spandrel" in said


def test_size_and_wrap_and_tta_by_command(compact, tmp_path, capsys):
    assert main([*compact, "--width", "100", "--tta", "--wrap", "24", "--tile", "32", "--halo", "8"]) == 0
    assert read_picture(tmp_path / "out.png").rgb.shape == (77, 100, 3)
    said = capsys.readouterr().out
    assert "eight flips" in said and "24 pixels of the other side" in said and "resized to 100x77" in said


def test_a_format_that_cannot_hold_the_size_is_refused_before_the_work(compact, tmp_path, capsys):
    assert main([*compact, "--format", "webp", "--outscale", "400"]) == 1
    assert "16383 pixels a side, not 20800" in capsys.readouterr().err


def test_compare_gives_the_metrics_by_hand(tmp_path, capsys):
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        hr = noise(64, 88, seed=len(name) + ord(name[-5]))[:, :85]
        write_picture(tmp_path / "lr" / name, Picture(downscale_integers(hr[:, :84], 2)))
        if name != "sub/c.png":
            write_picture(tmp_path / "hr" / name.replace("b.png", "b.tif"), Picture(hr))
    path = foreign_file(tmp_path, "Compact")
    line = ["upscale", str(path), str(tmp_path / "lr"), str(tmp_path / "out"), "--compare", str(tmp_path / "hr")]
    assert main(line) == 1  # c has none
    said = capsys.readouterr().out
    assert "c.png: no HR picture of its name" in said
    with (tmp_path / "out/compare.csv").open() as file:
        rows = {Path(row["picture"]).name: row for row in csv.DictReader(file)}
    by_hand = {}
    for name, hr in (("a.png", "a.png"), ("sub/b.png", "sub/b.tif")):
        ours = to_float(read_picture(tmp_path / "out" / name).rgb)[None]
        truth = to_float(read_picture(tmp_path / "hr" / hr).rgb[:, :84])[None]
        by_hand[Path(name).name] = [psnr_y(ours, truth, 2).item(), ssim_y(ours, truth, 2).item()]
    by_hand["mean"] = np.mean(list(by_hand.values()), 0).tolist()
    assert list(rows) == list(by_hand)
    for name, row in rows.items():
        assert [float(row["PSNR-Y"]), float(row["SSIM-Y"])] == pytest.approx(by_hand[name])
    assert f"mean: PSNR-Y {by_hand['mean'][0]:.2f} dB" in said
    shutil.rmtree(tmp_path / "lr/sub")
    assert main(line) == 0 and "1 skipped" in capsys.readouterr().out  # what exists is compared, too
    assert main([*line, "--overwrite", "--outscale", "3"]) == 1
    assert "85x64 pixels" in capsys.readouterr().out


def test_compare_goes_on_after_a_broken_picture_and_takes_no_table_of_others(tmp_path, capsys):
    write_picture(tmp_path / "lr/a.png", Picture(noise(32, 32)))
    write_picture(tmp_path / "hr/a.png", Picture(noise(48, 48)))
    (tmp_path / "lr/broken.png").write_bytes(b"none")
    line = ["upscale", str(foreign_file(tmp_path, "Compact")), str(tmp_path / "lr")]
    assert main([*line, str(tmp_path / "out"), "--width", "48", "--compare", str(tmp_path / "hr")]) == 1
    assert "a.png: PSNR-Y" in capsys.readouterr().out and (tmp_path / "out/compare.csv").is_file()
    write_picture(tmp_path / "lr" / f"{'b' * 251}.bmp", Picture(noise(32, 32)))  # too long with another suffix
    given = ["--format", "webp", "--width", "48", "--compare", str(tmp_path / "hr")]
    assert main([*line, str(tmp_path / "webp"), *given]) == 1 and (tmp_path / "webp/compare.csv").is_file()
    line[2] += "/a.png"
    (tmp_path / "large.csv").write_text("name,age\nme,40\n")
    one = [*line, str(tmp_path / "large.png"), "--width", "48", "--compare", str(tmp_path / "hr/a.png")]
    assert main(one) == 2 and not (tmp_path / "large.png").exists()
    assert "large.csv is there, and not of an earlier --compare" in capsys.readouterr().err
    (tmp_path / "large.csv").unlink()
    assert main(one) == 0 and main(one) == 0  # its own is written again


def test_compare_takes_any_name(tmp_path, capsys):
    odd = os.fsdecode(b"bad\xff.png")
    for name in (odd, "ok.png"):
        for folder in ("lr", "hr"):
            write_picture(tmp_path / folder / name, Picture(noise(32, 32)))
    line = ["upscale", str(foreign_file(tmp_path, "Compact")), str(tmp_path / "lr"), str(tmp_path / "out")]
    assert main([*line, "--outscale", "1", "--compare", str(tmp_path / "hr")]) == 0
    assert capsys.readouterr().out.count("PSNR-Y") == 3
    with (tmp_path / "out/compare.csv").open() as file:
        assert [row["picture"].split("/")[-1] for row in csv.DictReader(file)] == ["bad\\xff.png", "ok.png", "mean"]


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("last", ["--tta", "--wrap"])  # which may have a value, or none
def test_names_with_a_leading_dash_after_two_dashes(tmp_path, monkeypatch, place, last):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "-a.png", Picture(noise(8, 8)))
    line = ["upscale", str(foreign_file(tmp_path, "Compact")), "-a.png", "out.png"]
    line.insert(place, "--")
    if place == 3:
        line[2] = "./-a.png"
    line.insert(line.index("--"), last)
    assert main([line[0], "--tile", "8", "--halo", "8", *line[1:]]) == 0
    assert read_picture(tmp_path / "out.png").rgb.shape == (16, 16, 3)


def test_a_name_too_long_is_one_pictures_matter_with_dask_too(tmp_path, capsys):
    for name in ("a", "b" * 251):  # with its own suffix as long as names can be
        write_picture(tmp_path / "in" / f"{name}.bmp", Picture(noise(8, 8)))
    line = ["upscale", str(foreign_file(tmp_path, "Compact")), str(tmp_path / "in"), str(tmp_path / "out")]
    line += ["--format", "webp", "--tile", "8", "--halo", "8"]
    assert main([*line, "--dask", "local", "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert (
        "1 written" in said.out and "the disk takes 255: rename it" in said.err and (tmp_path / "out/a.webp").is_file()
    )


def test_workers_compute_in_fp32_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    write_picture(tmp_path / "a.png", Picture(noise(8, 8)))
    task = on_dask.Task(str(foreign_file(tmp_path, "Compact")), "cpu", options={"tile": 8, "halo": 8})
    on_dask._one(task, tmp_path / "a.png", tmp_path / "b.png")
    assert not torch.backends.cudnn.allow_tf32 and (tmp_path / "b.png").is_file()


def test_dask_does_the_pictures_of_a_folder(mixed, tmp_path, capsys):
    path = foreign_file(tmp_path, "Compact")
    line = ["upscale", str(path), str(mixed), "--tile", "16", "--halo", "8", "--outscale", "1.5"]
    assert main([*line, str(tmp_path / "one")]) == 1
    capsys.readouterr()
    assert main([*line, str(tmp_path / "many"), "--dask", "local", "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert "6 written, 0 skipped because they exist, 1 failed" in said.out and "tiles of 16 + 8" in said.out
    assert "7/7 " in said.out and "broken.png is not a picture" in said.err
    files = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*.*"))]
    assert len(files) == 6
    for file in files:
        one, many = (read_picture(tmp_path / run / file) for run in ("one", "many"))
        assert np.array_equal(one.rgb, many.rgb)


def test_trained_weights_by_name(tmp_path, capsys):
    write_picture(tmp_path / "a.png", Picture(noise()))
    line = ["upscale", "dat-light-x2", str(tmp_path / "a.png"), str(tmp_path / "out")]
    assert main([*line, "--halo", "32"]) == 0  # its reach is not looked for, which takes a minute
    large = read_picture(tmp_path / "out/a.png").rgb
    back = downscale_integers(large, 2)
    assert np.abs(back.astype(int) - noise()).mean() < 3  # trained: it upscales


def test_a_warning_is_a_sentence(tmp_path):
    Image.fromarray(np.dstack([noise(), noise()[..., :1]]), "CMYK").save(tmp_path / "a.jpg")
    line = [sys.executable, "-m", "srlib", "data", "--input", str(tmp_path), "--output", str(tmp_path.parent / "lr")]
    done = subprocess.run(line, capture_output=True, text=True)
    said = [text for text in done.stderr.splitlines() if "colour" in text]
    assert len(said) == 1 and said[0].startswith(f"warning: {tmp_path / 'a.jpg'}: it has no colour profile for CMYK")
    assert "UserWarning" not in done.stderr
