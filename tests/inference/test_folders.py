"""A folder of pictures is upscaled whatever it holds, whatever its names are, and whatever the disk says."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from srlib.__main__ import main
from srlib.data.pictures import Picture, read_picture, write_picture
from srlib.inference import folders
from srlib.inference.folders import targets, upscale_files
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4}


@pytest.fixture(scope="module")
def model() -> TiledSR:
    torch.manual_seed(0)
    return TiledSR(start_as_interpolation(HAT(**TINY)), channels=8).eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors", model)


def ramp(height=20, width=30) -> np.ndarray:
    """(H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    return (np.stack([x / width, y / height, (x + y) / (width + height)], 2) * 255).astype(np.uint8)


def doubled(picture: Picture, path: Path) -> Picture:
    """In place of a model, where only files matter."""
    return Picture(picture.rgb.repeat(2, 0).repeat(2, 1))


def test_targets_mirror_the_tree_and_refuse_collisions(tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.JPG", "sub/notes.txt"):
        (source / name).write_bytes(b"")
    out = source / "out"
    out.mkdir()
    (out / "old.png").write_bytes(b"")
    assert targets(source, out)[0] == {source / "a.png": out / "a.png", source / "sub/b.JPG": out / "sub/b.JPG"}
    assert targets(source, out, ".webp")[0][source / "sub/b.JPG"] == out / "sub/b.webp"
    assert targets(source / "a.png", tmp_path / "b.tif")[0] == {source / "a.png": tmp_path / "b.tif"}
    assert targets(source / "a.png", tmp_path / "new")[0] == {source / "a.png": tmp_path / "new" / "a.png"}
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
    assert targets(source, tmp_path)[0][source / "a.png"] == tmp_path / "a.png"
    (out / "old.png").unlink()
    with pytest.raises(FileNotFoundError, match="no pictures"):
        targets(out, tmp_path / "elsewhere")
    write_picture(tmp_path / "c/x.png/y.png", Picture(ramp(8, 8)))
    write_picture(tmp_path / "c/x.jpg", Picture(ramp(8, 8)))
    with pytest.raises(ValueError, match="x.jpg would be written to .*x.png, a folder of .*y.png: rename one"):
        targets(tmp_path / "c", tmp_path / "elsewhere", ".png")
    with pytest.raises(ValueError, match="none of .png"):
        targets(source / "a.png", tmp_path / "b.gif")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        targets(tmp_path / "nowhere", out)
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(FileNotFoundError, match="gone.png is a broken link to nowhere.png"):
        targets(tmp_path / "gone.png", out)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png is a pipe"):
        targets(tmp_path / "pipe.png", out)


def test_a_broken_file_is_named_the_others_are_upscaled_and_nothing_is_done_twice(model, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_picture(source / "a.png", Picture(ramp()))
    good = (source / "a.png").read_bytes()
    (source / "b.png").write_bytes(good[: len(good) // 2])
    write_picture(source / "c.png", Picture(ramp()))
    pairs, _ = targets(source, out)
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
    pairs, _ = targets(tmp_path / "in", tmp_path / "out", ".jpg")
    _, _, failed = upscale_files(pairs, lambda p, _: calls.append(1) or p, scale=8)
    assert "cannot hold transparency" in failed[tmp_path / "in" / "a.png"]
    assert "65500 pixels a side, not 65600" in failed[tmp_path / "in" / "wide.png"]
    pairs, _ = targets(tmp_path / "in" / "wide.png", tmp_path / "out", ".webp")
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


def test_what_people_leave_beside_pictures_is_said(checkpoint, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png", "@eaDir/a.png"):
        write_picture(source / name, Picture(ramp(8, 8)))
    write_picture(tmp_path / "elsewhere/b.png", Picture(ramp(8, 8)))
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "again").symlink_to(tmp_path / "elsewhere")
    (source / "gone.png").symlink_to("nowhere.png")
    assert main(["upscale", str(checkpoint), str(source), str(out)]) == 1
    said = capsys.readouterr()
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == ["a.png", "again/b.png"]
    assert said.out.count("1 picture in a hidden folder") == 3 and "linked: a link to a folder that is read" in said.out
    assert "gone.png is a broken link to nowhere.png" in said.err
    assert said.out.endswith("2 written, 0 skipped because they exist, 1 failed\n")


ODD_NAMES = (b"caf\xe9", b"two\nlines", "emoji \U0001f600".encode(), b"\x1b[31mred", b"a" * 251)  # without .png


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_name_that_a_disk_takes_is_upscaled_and_printed(checkpoint, tmp_path, encoding):
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ODD_NAMES:
        write_picture(source / os.fsdecode(name + b".png"), Picture(ramp(8, 8)))
    model = shutil.copy(checkpoint, tmp_path / os.fsdecode(b"mod\xe8le.safetensors"))
    line = [sys.executable, "-m", "srlib", "upscale", model, source, out]
    done = subprocess.run(line, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(b"5 written, 0 skipped"), done.stderr
    assert len(done.stdout.splitlines()) == 2 * 5 + 1 and b"\x1b" not in done.stdout
    assert sorted(os.fsencode(p.stem) for p in out.iterdir()) == sorted(ODD_NAMES)


def test_a_name_too_long_for_the_new_suffix_is_found_before_the_work(tmp_path, capsys):
    write_picture(tmp_path / "in" / ("a" * 251 + ".png"), Picture(ramp(8, 8)))
    write_picture(tmp_path / "in" / "b.png", Picture(ramp(8, 8)))
    pairs, _ = targets(tmp_path / "in", tmp_path / "out", ".webp")
    worked = []
    written, _, failed = upscale_files(pairs, lambda p, path: worked.append(path.name) or p, scale=1)
    assert written == 1 and worked == ["b.png"]
    assert "a name of 256 bytes, the disk takes 255: rename it" in next(iter(failed.values()))
    assert "rename it" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_ends_the_run_before_the_work(checkpoint, tmp_path, capsys, monkeypatch):
    write_picture(tmp_path / "in" / "a.png", Picture(ramp(8, 8)))
    (tmp_path / "file").write_text("no folder")

    def run(output: Path) -> str:
        assert main(["upscale", str(checkpoint), str(tmp_path / "in"), str(output)]) == 2
        return capsys.readouterr().err

    monkeypatch.setattr(folders, "upscale_with", None)  # is not reached
    (tmp_path / "link").symlink_to("nowhere")
    assert "link: No such file or directory" in run(tmp_path / "link")
    assert "cannot write to" in run(tmp_path / "file" / "out") and run(Path("/proc/out")).count("\n") == 1

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert "No space left on device" in run(tmp_path / "out")


def test_a_folder_below_that_cannot_be_written_is_found_first(tmp_path):
    for name in ("a.png", "sub/b.png"):
        write_picture(tmp_path / "in" / name, Picture(ramp(8, 8)))
    pairs, _ = targets(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write to .*sub \(.*Not a directory\)"):
        upscale_files(pairs, None, scale=2)
    (tmp_path / "out" / "sub").unlink()
    (tmp_path / "out" / "a.png").mkdir()  # in the place of a picture
    for overwrite in (False, True):
        written, skipped, failed = upscale_files(pairs, doubled, scale=2, overwrite=overwrite)
        assert (written, skipped) == ((1, 0)) and "a.png is a folder: rename it" in next(iter(failed.values()))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_fills_up_ends_the_run_and_what_is_written_stays(tmp_path, monkeypatch, code):
    for name in "abc":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(ramp(8, 8)))
    pairs, _ = targets(tmp_path / "in", tmp_path / "out")
    worked = []

    def write(path, picture, quality):
        if worked == ["a.png", "b.png"]:
            raise OSError(code, os.strerror(code))
        write_picture(path, picture, quality)

    monkeypatch.setattr(folders, "write_picture", write)
    with pytest.raises(OSError, match=r"cannot write .*b.png \(.*\): the 1 written are complete"):
        upscale_files(pairs, lambda p, path: worked.append(path.name) or p, scale=1)
    assert worked == ["a.png", "b.png"] and [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_disk_that_has_filled_up_is_found_before_the_next_picture(tmp_path, monkeypatch):
    for name in "abc":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(ramp(8, 8)))
    pairs, _ = targets(tmp_path / "in", tmp_path / "out")
    worked = []

    def work(picture, path):
        worked.append(path.name)
        if path.name == "b.png":
            monkeypatch.setattr("tempfile.TemporaryFile", full)
        return doubled(picture, path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device.*: the 2 written are complete"):
        upscale_files(pairs, work, scale=2)
    assert worked == ["a.png", "b.png"] and len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("of a codec"), OSError(errno.EFBIG, "File too large")])
def test_a_picture_that_cannot_be_written_fails_alone(tmp_path, monkeypatch, error):
    for name in "ab":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(ramp(8, 8)))

    def write(path, picture, quality):
        if path.name == "a.png":
            raise error
        write_picture(path, picture, quality)

    monkeypatch.setattr(folders, "write_picture", write)
    written, _, failed = upscale_files(targets(tmp_path / "in", tmp_path / "out")[0], doubled, scale=2)
    assert written == 1 and [p.name for p in failed] == ["a.png"]


def test_a_source_that_may_not_be_read_fails_alone(tmp_path, monkeypatch):
    for name in "ab":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(ramp(8, 8)))

    def read(path):
        if path.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_picture(path)

    monkeypatch.setattr(folders, "read_picture", read)
    written, _, failed = upscale_files(targets(tmp_path / "in", tmp_path / "out")[0], doubled, scale=2)
    assert written == 1 and [p.name for p in failed] == ["a.png"]


def test_later_pages_and_what_reading_warns_of_are_said(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "three.tif", np.stack([ramp()] * 3), photometric="rgb")
    Image.fromarray(ramp()).convert("CMYK").save(tmp_path / "in" / "cmyk.jpg")
    assert upscale_files(targets(tmp_path / "in", tmp_path / "out")[0], doubled, scale=2)[0] == 2
    said = capsys.readouterr().out
    assert "3 pages or frames, only the first is written" in said and "cmyk.jpg" in said.split("1/2")[1].split("2/2")[0]
    assert "UserWarning" not in said and len(said.splitlines()) == 4


def test_what_no_weight_shows_can_be_told_and_a_wrong_one_is_hinted_at(tmp_path, capsys):
    hat = start_as_interpolation(HAT(**TINY, img_range=255.0))
    torch.save({"params_ema": hat.state_dict()}, tmp_path / "published.pth")
    for name in "ab":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(ramp(24, 24) // 2 + 100))
    line = ["upscale", str(tmp_path / "published.pth"), str(tmp_path / "in"), "--overwrite"]
    hats = []
    original = folders.upscale_with

    def noted(model, picture, extras, **options):
        hats.append(model.hat_model.config)
        return original(model, picture, extras, **options)

    folders.upscale_with = noted
    try:
        assert main([*line, str(tmp_path / "right"), "--img-range", "255", "--conv-scale", "0.02"]) == 0
        assert "hint" not in capsys.readouterr().out
    finally:
        folders.upscale_with = original
    assert hats[0]["img_range"] == 255 and hats[0]["conv_scale"] == 0.02
    shifted = TiledSR(HAT(**TINY), channels=8)
    with torch.no_grad():
        shifted.hat_model.conv_last.bias += 1.0
    save_model(tmp_path / "shifted.safetensors", shifted)
    assert main(["upscale", str(tmp_path / "shifted.safetensors"), *line[2:], str(tmp_path / "wrong")]) == 0
    assert capsys.readouterr().out.count("hint: the mean goes from") == 1  # once a run
    assert main([*line, str(tmp_path / "out"), "--img-range", "-1"]) == 2
    assert "img_range" in capsys.readouterr().err
