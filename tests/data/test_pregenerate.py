"""Pre-generation is complete, repeatable, resumable, and nothing broken stops it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from srlib.__main__ import main
from srlib.data import pregenerate as module
from srlib.data.degrade import Degradation
from srlib.data.pictures import read_picture, write_png
from srlib.data.pregenerate import PictureTask, Recipe, list_online, pregenerate
from srlib.data.resize import downscale_integers
from srlib.data.sources import pictures_in
from srlib.files import locked


@pytest.fixture
def hr(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"a": (41, 52), "sub/b": (36, 48), "sub/deep/c": (30, 33)}.items():
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return tmp_path / "hr"


def run(hr, *, overwrite=False, jobs=1, **recipe):
    recipe = Recipe(**{"scales": (2, 3), "methods": ("bicubic", "area"), **recipe})
    return pregenerate(hr, hr.parent / "out", recipe, overwrite=overwrite, jobs=jobs, progress=False)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_tree_is_mirrored_and_every_pair_is_in_the_manifest(hr):
    result = run(hr, upscaled=True)
    out = hr.parent / "out"
    assert len(result.manifest) == 3 * 2 * 2 and result.stats["total_processed"] == 3
    assert (out / "scale_3x/area/sub/deep/c.png").is_file()
    assert read_picture(out / "scale_3x/bicubic_upscaled/a.png").rgb.shape == (39, 51, 3)
    for row in pd.read_csv(out / "manifest.csv").itertuples():
        x = read_picture(hr / row.source).rgb[: row.hr_height, : row.hr_width]
        lr = read_picture(out / row.lr).rgb
        assert lr.shape[:2] == (row.lr_height, row.lr_width) == (row.hr_height // row.scale, row.hr_width // row.scale)
        assert np.array_equal(lr, downscale_integers(x, row.scale, row.method))
    stats = json.loads((out / "processing_stats.json").read_text())
    assert stats["pairs"]["2x"] == {"bicubic": 3, "area": 3} and stats["avg_processing_time"] > 0


def test_what_is_up_to_date_is_skipped_and_what_changed_is_redone(hr):
    run(hr)
    before = contents(hr.parent / "out")
    assert run(hr).stats["total_skipped"] == 3
    (hr.parent / "out/scale_2x/area/a.png").unlink()
    assert (again := run(hr).stats)["total_processed"] == 1 and again["total_skipped"] == 2
    assert contents(hr.parent / "out") == before
    shutil.copy(hr / "sub/b.png", hr / "a.png")
    assert run(hr).stats["total_processed"] == 1
    assert run(hr, methods=("lanczos",)).stats["total_processed"] == 3
    assert run(hr, methods=("lanczos",), overwrite=True).stats["total_processed"] == 3


def test_a_missing_upscaled_picture_is_made_again(hr):
    run(hr, upscaled=True)
    before = contents(hr.parent / "out")
    (hr.parent / "out/scale_3x/area_upscaled/sub/b.png").unlink()
    assert run(hr, upscaled=True).stats["total_processed"] == 1
    assert contents(hr.parent / "out") == before


def test_settings_whose_key_is_all_digits_are_recognised(hr, monkeypatch):
    monkeypatch.setattr(Recipe, "key", "0012345678901234")
    run(hr)
    assert run(hr).stats["total_skipped"] == 3


def test_the_key_of_a_recipe_is_that_of_the_folders_there_are():
    assert Recipe().key == Recipe([2, 3], ["area"], upscaled=True).key == "a16005d64f89b44c"
    assert Recipe(size=32).key == "7d484e21eedafd2d"
    assert Recipe(degradation=Degradation(noise=(1, 2), after="jpeg")).key == "5ab1a52f0de4b814"


def test_a_recipes_repetitions_count_once():
    recipe = Recipe([3, 2, 3], ["area", "area"])
    assert recipe.pairs == [(3, "area"), (2, "area")] and recipe == Recipe((3, 2), ("area",))


def test_a_stopped_run_is_resumed(hr, monkeypatch):
    make, seen = PictureTask.make, []

    def stopped(task, rows, waiting):
        seen.append(task.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return make(task, rows, waiting)

    monkeypatch.setattr(PictureTask, "make", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(hr)
    monkeypatch.setattr(PictureTask, "make", make)
    stats = run(hr).stats
    assert stats["total_skipped"] == 2 and stats["total_processed"] == 1


def test_a_full_disk_stops_the_run_and_blames_no_picture(hr, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_png", full)
    assert main(["data", "--input", str(hr), "--output", str(hr.parent / "out")]) == 2
    assert capsys.readouterr().err.strip() == "srlib data: [Errno 28] No space left on device"


def test_the_callers_threads_are_left_as_they_were(hr):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    run(hr)
    after = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert after == 3


def test_broken_pictures_are_recorded_and_the_rest_is_done(hr):
    whole = (hr / "a.png").read_bytes()
    (hr / "cut.png").write_bytes(whole[: len(whole) // 2])
    (hr / "text.jpg").write_text("404")
    stats = run(hr).stats
    assert stats["total_processed"] == 3 and stats["total_failed"] == 2
    assert [f["path"] for f in stats["failures"]] == ["cut.png", "text.jpg"]
    assert "cut.png" in stats["failures"][0]["reason"] and "not a picture" in stats["failures"][1]["reason"]


def test_number_of_processes_does_not_matter(hr):
    run(hr, jobs=1)
    first = contents(hr.parent / "out")
    manifest = (hr.parent / "out/manifest.csv").read_bytes()
    shutil.rmtree(hr.parent / "out")
    run(hr, jobs=2)
    assert contents(hr.parent / "out") == first and (hr.parent / "out/manifest.csv").read_bytes() == manifest


def test_twins_of_other_suffix_and_16_bits_are_kept_apart(hr):
    Image.fromarray(read_picture(hr / "a.png").rgb[::-1]).save(hr / "a.bmp")
    write_png(hr / "deep.png", np.full((8, 8, 3), 40000, np.uint16))
    manifest = run(hr).manifest
    assert manifest["lr"].is_unique and {"scale_2x/area/a.png.png", "scale_2x/area/a.bmp.png"} <= set(manifest["lr"])
    assert read_picture(hr.parent / "out/scale_2x/area/deep.png").rgb.dtype == np.uint16
    shutil.copy(hr / "a.png", hr / "a.png.png")
    with pytest.raises(ValueError, match="a.png and a.png.png would both become a.png.png: rename one"):
        run(hr)


def test_a_picture_that_gets_a_twin_gets_its_new_name(hr):
    run(hr)
    shutil.copy(hr / "a.png", hr / "a.PNG")
    manifest = run(hr).manifest
    assert set(manifest.loc[manifest["source"] == "a.png", "lr"]) == {
        f"scale_{s}x/{m}/a.png.png" for s in (2, 3) for m in ("bicubic", "area")
    }


def test_size_crops_the_centre(hr):
    row = run(hr, size=32, scales=(2,)).manifest.set_index("source").loc["a.png"].iloc[0]
    assert (row["hr_top"], row["hr_left"], row["hr_height"], row["hr_width"]) == (4, 10, 32, 32)


def test_missing_and_empty_folders_and_wrong_choices_are_one_sentence(hr, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        pictures_in(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no pictures"):
        pictures_in(tmp_path / "empty")
    with pytest.raises(ValueError, match="method 'cubic' is none of"):
        run(hr, methods=("cubic",))
    with pytest.raises(ValueError, match="scale 1 is not"):
        run(hr, scales=(1,))
    with pytest.raises(ValueError, match="give at least one scale and one method"):
        run(hr, methods=())
    with pytest.raises(ValueError, match="size 2 leaves no pixel at scale 3"):
        run(hr, size=2)
    with pytest.raises(ValueError, match="0 jobs do nothing"):
        run(hr, jobs=0)
    with pytest.raises(ValueError, match="output .*lr lies inside input"):
        pregenerate(hr, hr / "sub/lr", progress=False)
    (hr / "folder.png").mkdir()
    assert "folder.png" not in pictures_in(hr).names
    assert main(["data", "--input", str(tmp_path / "nowhere"), "--output", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.startswith("srlib data: no folder")


def test_command_line(hr):
    command = [sys.executable, "-m", "srlib", "data", "--input", str(hr), "--output", str(hr.parent / "out")]
    done = subprocess.run([*command, "--scales", "2", "--methods", "area"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("3 made, 0 up to date, 0 left out")


def test_names_that_the_terminal_lacks_are_printed_escaped(hr):
    for name in ("ü.png", os.fsdecode(b"\xff.png")):
        (hr / name).write_bytes(b"no picture")
    (hr / "ö.png").symlink_to("a\nb")
    command = [sys.executable, "-m", "srlib", "data", "--input", str(hr), "--output", str(hr.parent / "out")]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "--methods", "area"], capture_output=True, env=ascii_only, check=True)
    lines = done.stdout.decode("ascii").splitlines()[1:]  # without the progress
    assert len(lines) == 4 and lines[-1].startswith("3 made, 0 up to date, 3 left out")
    assert lines[0].endswith("\\xff.png: its name is no valid text: rename it")
    assert "\\xf6.png is a broken link to a\\nb" in lines[1] and "\\xfc.png is not a picture" in lines[2]


def test_overwrite_redoes_what_is_asked_for_and_keeps_the_rest(hr):
    first = run(hr, scales=(2,))
    assert run(hr, scales=(3,), overwrite=True).stats["total_processed"] == 3
    assert run(hr, scales=(3,), overwrite=True).stats["total_processed"] == 3
    known = pd.read_csv(hr.parent / "out/manifest.csv")
    assert known["scale"].value_counts().to_dict() == {2: len(first.manifest), 3: 6}


def test_two_runs_into_one_folder_are_refused(hr):
    with locked(hr.parent / "out"), pytest.raises(BlockingIOError, match="another run is writing to .*out: wait"):
        run(hr)
    assert run(hr).stats["total_processed"] == 3


def test_pictures_downscaled_on_the_fly_are_listed_with_what_is_left_out(hr):
    (hr / "text.png").write_text("404")
    manifest, stats = list_online(hr, hr.parent / "out", Recipe((2, 3), ("area",), size=32))
    made = run(hr, size=32, methods=("area",)).manifest
    columns = ["source", "scale", "hr_top", "hr_left", "hr_height", "hr_width", "lr_height", "lr_width", "source_bytes"]
    assert manifest[columns].equals(made[columns])
    (failure,) = stats["failures"]
    assert failure["path"] == "text.png" and "text.png" in failure["reason"] and stats["total_failed"] == 1


def test_what_was_made_is_no_source_of_a_second_run(hr):
    (hr / "made").symlink_to(hr.parent / "out")
    (hr.parent / "out").mkdir()
    for _ in range(2):
        result = run(hr)
        assert set(result.manifest["source"]) == {"a.png", "sub/b.png", "sub/deep/c.png"}
    assert result.stats["left_alone"] == [f"{hr / 'made'}: the output, or a folder in it"]


def test_what_cannot_be_reached_is_counted_and_hidden_folders_are_left_alone(hr):
    (hr / ".Trash").mkdir()
    for target in (hr / ".Trash/a.png", hr / "linked.png"):
        target.symlink_to(hr / "a.png")
    (hr / "broken.png").symlink_to("nowhere")
    stats = run(hr).stats
    assert stats["total_processed"] == 4 and stats["total_failed"] == 1
    assert stats["failures"][0]["reason"].endswith("broken.png is a broken link to nowhere")
    assert stats["left_alone"] == [f"{hr / '.Trash'}: 1 picture in a hidden folder"]
