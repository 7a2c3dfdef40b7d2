"""Packs hold the pictures' own pixels, the same ones however they were cut, and are made again only when they must."""

import itertools
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srlib.data import pregenerate as module
from srlib.data.packs import Pack, PackSettings, open_shards, places, read_pack
from srlib.data.pictures import read_picture, write_png
from srlib.data.pregenerate import PictureTask, Recipe, pregenerate
from srlib.data.resize import crop_to_multiple

SMALL = PackSettings(16, shard=16 * 16 * 3 * 4)  # four patches a file at scale 2
SPLIT = {"a.png": "train", "sub/b.png": "train", "c.png": "validation", "d.png": "test"}


@pytest.fixture
def hr(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"a": (41, 52), "sub/b": (36, 48), "c": (30, 33), "d": (20, 24)}.items():
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return tmp_path / "hr"


def run(hr, *, split=SPLIT, packs=(SMALL,), jobs=1, overwrite=False, **recipe):
    recipe = Recipe(**{"scales": (2, 3), "methods": ("bicubic", "area"), **recipe})
    options = {"split": split, "packs": packs, "jobs": jobs, "overwrite": overwrite}
    return pregenerate(hr, hr.parent / "out", recipe, progress=False, **options)


def contents(folder):
    """Every file but the one that holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "processing_stats.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def times(folder):
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def patches(folder, name="hr"):
    """(row of index.csv, patch) of one array, in the order of the index."""
    shards = open_shards(folder, name)
    for row in pd.read_csv(folder / "index.csv").itertuples():
        file, place = divmod(row.slot, len(shards[0]))
        yield row, shards[file][place]


@pytest.mark.parametrize("scale", [2, 3])
def test_patches_are_the_pictures_own_pixels(hr, scale):
    run(hr)
    folder, side = hr.parent / f"out/packs/{scale}x_16", 16 - 16 % scale
    assert len(open_shards(folder, "hr")) > 1
    for row, patch in patches(folder):
        assert np.array_equal(patch, read_picture(hr / row.source).rgb[row.y : row.y + side, row.x : row.x + side])
    for method in ("bicubic", "area"):
        for row, patch in patches(folder, method):
            lr = read_picture(hr.parent / f"out/scale_{scale}x/{method}" / row.source).rgb
            y, x, small = row.y // scale, row.x // scale, side // scale
            assert np.array_equal(patch, lr[y : y + small, x : x + small])


@pytest.mark.parametrize("scale", [2, 3])
def test_every_training_picture_is_cut_up_to_its_border(hr, scale):
    run(hr)
    index = pd.read_csv(hr.parent / f"out/packs/{scale}x_16/index.csv")
    assert index["slot"].tolist() == list(range(len(index)))
    for name in ("a.png", "sub/b.png"):
        height, width = crop_to_multiple(read_picture(hr / name).rgb, scale).shape[:2]
        rows = index[index["source"] == name]
        assert [*zip(rows["y"], rows["x"], strict=True)] == places(height, width, 16 - 16 % scale)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(8, 24))
def test_places_cover_every_pixel_and_stay_inside(height, width, side):
    seen = np.zeros((height, width), int)
    found = places(height, width, side)
    for y, x in found:
        assert 0 <= y <= height - side and 0 <= x <= width - side
        seen[y : y + side, x : x + side] += 1
    assert len(set(found)) == len(found)
    assert seen.all() if min(height, width) >= side else not found


def test_a_held_out_picture_is_never_in_a_pack(hr):
    run(hr)
    for scale in (2, 3):
        index = pd.read_csv(hr.parent / f"out/packs/{scale}x_16/index.csv")
        assert set(index["source"]) == {"a.png", "sub/b.png"}


def test_packs_need_training_pictures_and_one_setting_a_patch_size(hr):
    with pytest.raises(ValueError, match='no picture of the split is "train"'):
        run(hr, split=None)
    with pytest.raises(ValueError, match="two packs have the same patch size"):
        run(hr, packs=[SMALL, PackSettings(16, "uint16")])


def test_a_pack_does_not_depend_on_how_its_folder_is_spelled(hr, monkeypatch):
    run(hr)
    before = times(hr.parent / "out/packs")
    monkeypatch.chdir(hr.parent)
    pregenerate("hr", "out", Recipe((2, 3), ("bicubic", "area")), split=SPLIT, packs=[SMALL], progress=False)
    assert times(hr.parent / "out/packs") == before


def test_a_pack_of_another_split_does_not_stay(hr):
    run(hr, scales=(2,))
    run(hr, scales=(2,), packs=[PackSettings(24)], split=SPLIT | {"sub/b.png": "test"})
    assert [p.name for p in (hr.parent / "out/packs").iterdir()] == ["2x_24"]  # 2x_16 held a picture of test


def test_number_of_processes_does_not_matter(hr):
    run(hr, upscaled=True, jobs=1)
    first = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    run(hr, upscaled=True, jobs=2)
    assert contents(hr.parent / "out") == first
    assert {p.split("/")[0] for p in first} == {"manifest.csv", "packs", "scale_2x", "scale_3x"}


def test_16_bits_stay_16_bits_in_a_deep_pack_and_8_bits_are_scaled(hr):
    deep = np.random.default_rng(1).integers(0, 65536, (16, 32, 3), dtype=np.uint16)
    write_png(hr / "sub/b.png", deep)
    run(hr, scales=(2,), packs=[PackSettings(16, "uint16")])
    for row, patch in patches(hr.parent / "out/packs/2x_16"):
        picture = read_picture(hr / row.source).rgb[row.y : row.y + 16, row.x : row.x + 16]
        assert patch.dtype == np.uint16
        assert np.array_equal(patch, picture if picture.dtype == np.uint16 else picture * np.uint16(257))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_are_the_levels_from_0_to_1(hr, dtype):
    write_png(hr / "sub/b.png", np.random.default_rng(1).integers(0, 65536, (16, 32, 3), dtype=np.uint16))
    run(hr, scales=(2,), packs=[PackSettings(16, dtype)])
    for row, patch in patches(hr.parent / "out/packs/2x_16"):
        picture = read_picture(hr / row.source).rgb[row.y : row.y + 16, row.x : row.x + 16]
        assert patch.dtype == dtype
        assert np.array_equal(patch, (picture / np.iinfo(picture.dtype).max).astype(dtype))


def test_16_bits_are_rounded_into_an_8_bit_pack(hr):
    deep = np.random.default_rng(1).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    write_png(hr / "a.png", deep)
    run(hr, scales=(2,), split={"a.png": "train"})
    ((_, patch),) = patches(hr.parent / "out/packs/2x_16")
    assert np.array_equal(patch, np.rint(deep / 257).astype(np.uint8))


def test_flat_and_blurred_patches_are_dropped_and_counted(hr):
    smooth = np.add.outer(np.arange(16) * 8, np.arange(16) * 8)[..., None].repeat(3, 2).astype(np.uint8)
    write_png(hr / "flat.png", np.full((16, 16, 3), 77, np.uint8))
    write_png(hr / "smooth.png", smooth)
    write_png(hr / "z.png", np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    split = dict.fromkeys(["flat.png", "smooth.png", "z.png"], "train")
    (facts,) = run(hr, scales=(2,), split=split, packs=[PackSettings(16, flat=2.0, blurred=20.0)]).packs
    assert (facts["patches"], facts["dropped_flat"], facts["dropped_blurred"]) == (1, 1, 1)
    assert json.loads((hr.parent / "out/packs/2x_16/pack.json").read_text()) == facts
    ((row, patch),) = patches(hr.parent / "out/packs/2x_16")
    assert (row.source, row.slot) == ("z.png", 2) and np.array_equal(patch, read_picture(hr / "z.png").rgb)


def test_a_picture_smaller_than_a_patch_is_named_and_the_rest_is_cut(hr):
    (facts,) = run(hr, scales=(2,), packs=[PackSettings(40)]).packs  # b is 36 high
    assert facts["too_small"] == ["sub/b.png"]
    assert {row.source for row, _ in patches(hr.parent / "out/packs/2x_40")} == {"a.png"}


def test_an_unchanged_pack_is_not_touched(hr):
    first = run(hr).packs
    before = times(hr.parent / "out/packs")
    assert run(hr).packs == first and times(hr.parent / "out/packs") == before


@pytest.mark.parametrize(
    "changes",
    [
        {"packs": [PackSettings(16, flat=1.0, shard=SMALL.shard)]},
        {"packs": [PackSettings(16)]},
        {"packs": [PackSettings(16, "uint16")]},
        {"split": SPLIT | {"sub/b.png": "test"}},
        {"split": SPLIT | {"d.png": "train"}},
        {"methods": ("area",)},
        {"size": 30},
    ],
)
def test_what_changes_a_pack_rebuilds_it(hr, changes):
    run(hr)
    before = times(hr.parent / "out/packs")
    run(hr, **changes)
    assert all(before.get(name) != time for name, time in times(hr.parent / "out/packs").items())
    whole = contents(hr.parent / "out/packs")
    shutil.rmtree(hr.parent / "out")
    run(hr, **changes)
    assert contents(hr.parent / "out/packs") == whole


def test_a_changed_picture_rebuilds_the_pack(hr):
    run(hr)
    write_png(hr / "a.png", 255 - read_picture(hr / "a.png").rgb)
    run(hr)
    for row, patch in patches(hr.parent / "out/packs/2x_16"):
        assert np.array_equal(patch, read_picture(hr / row.source).rgb[row.y : row.y + 16, row.x : row.x + 16])


def test_another_patch_size_touches_neither_pictures_nor_the_first_pack(hr):
    run(hr)
    before = {n: t for n, t in times(hr.parent / "out").items() if n.startswith(("scale_", "packs/"))}
    packs = run(hr, packs=[SMALL, PackSettings(24)]).packs
    after = times(hr.parent / "out")
    assert [(p["scale"], p["patch"]) for p in packs] == [(2, 16), (2, 24), (3, 15), (3, 24)]
    assert {n: after[n] for n in before} == before and "packs/3x_24/pack.json" in after


def test_a_copy_without_its_files_times_keeps_its_packs(hr, tmp_path):
    first = run(hr).packs
    copy = shutil.copytree(hr.parent, tmp_path / "copy", copy_function=shutil.copyfile, ignore=lambda *_: ["copy"])
    before = times(copy / "out/packs")
    again = run(copy / "hr")
    assert again.packs == first and again.stats["files_written"] == 0 and times(copy / "out/packs") == before


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_a_picture_changed_without_changing_its_size_is_cut_again(hr, monkeypatch, stopped):
    def draw(seed):
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(hr / "e.bmp")

    draw(0)
    if stopped:  # after it had been cut
        monkeypatch.setattr(Pack, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(hr, split={"e.bmp": "train"})
        monkeypatch.undo()
    else:
        run(hr, split={"e.bmp": "train"})
    draw(1)
    run(hr, split={"e.bmp": "train"})
    for row, patch in patches(hr.parent / "out/packs/2x_16"):
        assert np.array_equal(patch, read_picture(hr / "e.bmp").rgb[row.y : row.y + 16, row.x : row.x + 16])


def test_patches_are_not_cut_out_of_an_lr_picture_that_is_not_what_was_recorded(hr):
    run(hr, scales=(2,))
    undisturbed = contents(hr.parent / "out")
    lr = hr.parent / "out/scale_2x/area/a.png"
    content = bytearray(lr.read_bytes())
    content[-40] ^= 1  # of as many bytes
    lr.write_bytes(content)
    (hr.parent / "out/packs/2x_16/pack.json").unlink()
    run(hr, scales=(2,))
    assert contents(hr.parent / "out") == undisturbed


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_broken_training_picture_is_left_out_and_the_rest_is_whole(hr, suffix):
    whole, name = hr / f"0.{suffix}", f"0.{suffix}"
    Image.fromarray(read_picture(hr / "a.png").rgb).save(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 2 // 3])
    result = run(hr, scales=(2,), split=SPLIT | {name: "train"})
    assert [f["path"] for f in result.stats["failures"]] == [name]
    sources = []
    for row, patch in patches(hr.parent / "out/packs/2x_16"):
        sources.append(row.source)
        assert np.array_equal(patch, read_picture(hr / row.source).rgb[row.y : row.y + 16, row.x : row.x + 16])
    assert sources == ["a.png"] * 12 + ["sub/b.png"] * 9
    whole.write_bytes(content)  # mended, it comes in
    assert run(hr, scales=(2,), split=SPLIT | {name: "train"}).packs[0]["patches"] == 12 + 21


def test_the_slots_of_a_broken_picture_stay_empty(hr):
    Image.fromarray(read_picture(hr / "a.png").rgb).save(hr / "0.jpg")  # cut short, its size can still be read
    (hr / "0.jpg").write_bytes((hr / "0.jpg").read_bytes()[:-1000])
    run(hr, scales=(2,), split=SPLIT | {"0.jpg": "train"})
    assert next(patches(hr.parent / "out/packs/2x_16"))[0].slot == 12
    assert not any(open_shards(hr.parent / "out/packs/2x_16", "hr")[0].ravel())


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_stopped_run_is_resumed_and_ends_as_if_undisturbed(hr, monkeypatch, at):
    run(hr)
    undisturbed = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    make, count = PictureTask.make, itertools.count(1)

    def stopped(*given, **named):
        if next(count) == at:
            raise KeyboardInterrupt
        return make(*given, **named)

    monkeypatch.setattr(PictureTask, "make", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(hr)
    assert not (hr.parent / "out/packs/2x_16").exists()  # until it is complete
    monkeypatch.setattr(PictureTask, "make", make)
    stats = run(hr).stats
    assert (stats["total_skipped"], stats["total_processed"]) == (at - 1, 5 - at)
    assert contents(hr.parent / "out") == undisturbed


def test_a_run_stopped_while_a_pack_is_rebuilt_ends_as_if_undisturbed(hr, monkeypatch):
    again = {"split": SPLIT | {"d.png": "train"}}
    run(hr, **again)
    undisturbed = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    run(hr)
    make, count = PictureTask.make, itertools.count(1)

    def stopped(*given, **named):
        if next(count) == 2:
            raise KeyboardInterrupt
        return make(*given, **named)

    monkeypatch.setattr(PictureTask, "make", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(hr, **again)
    monkeypatch.setattr(PictureTask, "make", make)
    run(hr, **again)
    assert contents(hr.parent / "out") == undisturbed


def test_overwriting_makes_the_same_again(hr):
    run(hr)
    before, stamps = contents(hr.parent / "out"), times(hr.parent / "out")
    assert run(hr, overwrite=True).stats["total_processed"] == 4
    assert contents(hr.parent / "out") == before
    assert not set(stamps.items()) & set(times(hr.parent / "out").items())


def test_patches_larger_than_every_picture_are_refused(hr):
    with pytest.raises(ValueError, match="no training picture is as large as a patch of 64 .*lower patch_sizes"):
        run(hr, packs=[PackSettings(64)])


def test_dropping_every_patch_is_refused_and_lower_thresholds_resume(hr):
    with pytest.raises(ValueError, match="no patch is left of 12: lower flat or blurred"):
        run(hr, scales=(2,), split={"a.png": "train"}, packs=[PackSettings(16, flat=200)])
    assert read_pack(hr.parent / "out/packs/2x_16") == {}
    result = run(hr, scales=(2,), split={"a.png": "train"})
    assert result.packs[0]["patches"] == 12 and result.stats["total_skipped"] == 3


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"patch": 4}, {"flat": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="choose one of|at least 8 pixels"):
        PackSettings(**wrong)


def test_patches_of_files_that_were_wiped_are_cut_again(hr, monkeypatch):
    """Stopped, stopped with another setting, and back: what the journal says of the first files is of no use."""
    make = PictureTask.make

    def stopped_at(number: int, settings: PackSettings) -> None:
        seen = []

        def process(*arguments, **named):
            seen.append(1)
            if len(seen) == number:
                raise KeyboardInterrupt
            return make(*arguments, **named)

        monkeypatch.setattr(PictureTask, "make", process)
        with pytest.raises(KeyboardInterrupt):
            run(hr, packs=[settings])
        monkeypatch.setattr(PictureTask, "make", make)

    run(hr)
    undisturbed = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    stopped_at(3, SMALL)
    stopped_at(2, replace(SMALL, flat=0.1))
    stopped_at(1, SMALL)
    run(hr)
    assert contents(hr.parent / "out") == undisturbed


def test_a_picture_that_could_not_be_read_joins_the_pack_when_it_can(hr, monkeypatch):
    read = module.read_picture

    def failing(path, *rest):
        if path.name == "b.png":
            raise OSError(5, "Input/output error")
        return read(path, *rest)

    run(hr)
    undisturbed = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    monkeypatch.setattr(module, "read_picture", failing)
    assert "sub/b.png" in run(hr).packs[0]["left_out"]
    monkeypatch.setattr(module, "read_picture", read)
    assert run(hr).packs[0]["left_out"] == []
    assert contents(hr.parent / "out") == undisturbed


def test_no_readable_picture_is_no_question_of_sizes(hr):
    for path in hr.rglob("*.png"):
        path.write_text("404")
    with pytest.raises(ValueError, match="none of the training pictures can be read"):
        run(hr)


def test_a_picture_that_can_no_longer_be_read_leaves_the_pack(hr):
    run(hr)
    stamp = (hr / "sub/b.png").stat()
    (hr / "sub/b.png").write_bytes(b"\0" * stamp.st_size)  # as bit rot: size and time are the same
    os.utime(hr / "sub/b.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (hr.parent / "out/scale_2x/area/sub/b.png").unlink()
    result = run(hr, packs=[SMALL])
    assert [f["path"] for f in result.stats["failures"]] == ["sub/b.png"]
    for pack in result.packs:
        index = pd.read_csv(hr.parent / f"out/packs/{pack['scale']}x_16/index.csv")
        assert set(index["source"]) == {"a.png"}


def test_overwrite_does_not_resume_what_a_stopped_run_left(hr, monkeypatch):
    run(hr)
    undisturbed = contents(hr.parent / "out")
    shutil.rmtree(hr.parent / "out")
    monkeypatch.setattr(Pack, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(hr)
    monkeypatch.undo()
    for path in (hr.parent / "out/packs").rglob("hr_*.npy"):
        path.write_bytes(path.read_bytes()[:128] + bytes(path.stat().st_size - 128))
    run(hr, overwrite=True)
    assert contents(hr.parent / "out") == undisturbed
