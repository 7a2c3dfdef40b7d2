"""Pairs that people have are matched, checked, split, packed and read; what does not fit is named."""

import os
import re
import shutil

import cv2
import numpy as np
import OpenEXR
import pandas as pd
import pytest
from PIL import Image

from srlib.data.hdr import ldr_of, log_mapped, read_hdr
from srlib.data.packs import PackSettings, open_shards
from srlib.data.pairs import prepare_pairs, read_pair
from srlib.data.pictures import Picture, read_picture, write_picture, write_png


def noise(height, width, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (height, width, 3), endpoint=True, dtype=dtype)


@pytest.fixture
def folder(tmp_path):
    """Four training pairs and a test pair at scale 2."""
    for seed, (name, shape) in enumerate({"a": (20, 24), "b": (16, 16), "sub/c": (18, 20), "d": (16, 30)}.items()):
        write_pair(tmp_path / "pairs/train", name, noise(*shape, seed=seed))
    write_pair(tmp_path / "pairs/test", "t", noise(20, 20, seed=9))
    return tmp_path / "pairs"


def write_pair(part, name, gt, scale=2):
    write_png(part / "gt" / f"{name}.png", gt)
    write_png(part / "input" / f"{name}.png", 255 - gt[::scale, ::scale])


def run(folder, **changes):
    return prepare_pairs(folder, folder.parent / "out", progress=False, **{"scale": 2, **changes})


def rows(result):
    return {row["source"]: row for row in result.manifest.to_dict("records")}


def test_every_pair_is_listed_and_read_back(folder):
    result, split = run(folder)
    assert result.stats["total_processed"] == 5 and set(rows(result)) == set(split)
    for name, row in rows(result).items():
        lr, gt = read_pair(folder.parent / "out", folder, row)
        assert np.array_equal(gt, read_picture(folder / name).rgb)
        assert np.array_equal(lr, 255 - gt[::2, ::2])
        assert (row["hr_height"], row["hr_width"]) == gt.shape[:2]
        assert (row["lr_height"], row["lr_width"]) == lr.shape[:2]
    listed = pd.read_csv(folder.parent / "out/manifest.csv")
    assert listed["source"].tolist() == sorted(split)
    written = {p.name for p in (folder.parent / "out").iterdir()}
    assert written == {"manifest.csv", "processing_stats.json"}


def test_suffixes_may_differ(folder):
    (folder / "train/input/a.png").unlink()
    write_picture(folder / "train/input/a.TIF", Picture(noise(10, 12)))
    row = rows(run(folder)[0])["train/gt/a.png"]
    assert row["lr"].endswith("train/input/a.TIF")
    assert np.array_equal(read_pair(folder.parent / "out", folder, row)[0], noise(10, 12))


def test_scale_1_works(folder, tmp_path):
    for name in "xyz":
        write_pair(tmp_path / "same/train", name, noise(9, 11, seed=ord(name)), scale=1)
    result, _ = run(tmp_path / "same", scale=1, packs=[PackSettings(8)])
    lr, gt = read_pair(tmp_path / "out", tmp_path / "same", rows(result)["train/gt/x.png"])
    assert np.array_equal(lr, 255 - gt)
    (hr,), (small,) = (open_shards(tmp_path / "out/packs/1x_8", name) for name in ("hr", "input"))
    assert np.array_equal(small, 255 - hr)


def test_a_training_picture_that_is_held_out_too_is_left_out_by_name(folder):
    shutil.copy(folder / "test/gt/t.png", folder / "train/gt/a.png")
    write_png(folder / "train/input/a.png", noise(10, 10))
    result, split = run(folder)
    (failure,) = result.stats["failures"]
    assert failure["reason"].startswith("train/gt/a.png is a copy of test/gt/t.png: left out")
    assert "train/gt/a.png" not in split and split["test/gt/t.png"] == "test"
    for name in ("b", "sub/c", "d"):
        shutil.copy(folder / "test/gt/t.png", folder / f"train/gt/{name}.png")
    with pytest.raises(ValueError, match="no training pair is left: train/gt/a.png is a copy of test/gt/t.png"):
        run(folder)


def test_one_scene_of_several_inputs_stays_in_one_part(folder):
    for name in ("dark", "darker", "darkest"):
        write_pair(folder / "train", name, noise(16, 16, seed=77))
    for seed in range(5):
        split = run(folder, seed=seed, validation=0.3)[1]
        assert len({split[f"train/gt/{name}.png"] for name in ("dark", "darker", "darkest")}) == 1


def test_hidden_folders_are_left_alone_and_broken_links_refused(folder):
    shutil.copytree(folder / "train/gt/sub", folder / "train/gt/.ipynb_checkpoints")
    result, split = run(folder)
    assert len(split) == 5 and "1 picture in a hidden folder" in result.stats["left_alone"][0]
    (folder / "train/gt/z.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match="train/gt/z.png is a broken link to nowhere.png"):
        run(folder)


def test_later_pages_are_left_alone_and_names_that_are_no_text_refused(folder):
    frames = [Image.fromarray(noise(20, 24, seed=seed)) for seed in range(3)]
    (folder / "train/gt/a.png").unlink()
    frames[0].save(folder / "train/gt/a.tif", save_all=True, append_images=frames[1:])
    result, _ = run(folder)
    assert result.stats["left_alone"] == [f"{folder}/train/gt/a.tif: 2 of its 3 pages or frames, all but the first"]
    assert np.array_equal(read_pair(folder.parent / "out", folder, rows(result)["train/gt/a.tif"])[1], frames[0])
    write_pair(folder / "train", os.fsdecode(b"\xff\r"), noise(16, 16))
    with pytest.raises(ValueError, match=r"train/gt/\\xff\\r.png: its name is no valid text: rename it") as error:
        run(folder)
    assert str(error.value).encode()


def test_names_without_partner_are_listed(folder):
    (folder / "train/gt/a.png").unlink()
    (folder / "test/input/t.png").unlink()
    with pytest.raises(ValueError, match="^2 pairs do not fit") as error:
        run(folder)
    assert "train/input/a.png has no partner in train/gt: add it or remove this one" in str(error.value)
    assert "test/gt/t.png has no partner in test/input: add it" in str(error.value)


def test_a_name_that_is_there_twice_is_refused(folder):
    write_picture(folder / "train/input/a.jpg", Picture(noise(10, 12)))
    with pytest.raises(ValueError, match="train/input/a is there 2 times: keep one"):
        run(folder)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [((40, 48), "a.png is 48x40, not 2 times its input's 12x10: set the scale to 4"), ((20, 23), "crop or remove")],
)
def test_a_wrong_size_is_refused_and_a_scale_that_fits_is_named(folder, shape, remedy):
    write_png(folder / "train/gt/a.png", noise(*shape))
    with pytest.raises(ValueError, match=f"1 pairs do not fit:\ntrain/gt/.*{remedy}"):
        run(folder)


def test_gt_smaller_than_its_input_is_refused(folder):
    write_png(folder / "train/gt/a.png", noise(5, 6))
    with pytest.raises(ValueError, match="a.png is 6x5, not 2 times its input's 12x10: crop or remove the pair"):
        run(folder)


def test_more_than_20_complaints_are_shortened(folder):
    for number in range(25):
        write_png(folder / f"train/input/more{number:02d}.png", noise(8, 8))
    with pytest.raises(ValueError, match="^25 pairs do not fit") as error:
        run(folder)
    lines = str(error.value).splitlines()
    assert len(lines) == 22 and lines[-1] == "... and 5 more"


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no train/input and train/gt: put LR and HR pictures"):
        run(tmp_path / "nowhere")
    (tmp_path / "half/train/input").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="half has no train/input and train/gt"):
        run(tmp_path / "half")
    (tmp_path / "half/train/gt").mkdir()
    with pytest.raises(FileNotFoundError, match="half holds no pairs"):
        run(tmp_path / "half")


@pytest.mark.parametrize("side", ["input", "gt"])
def test_a_truncated_picture_is_recorded_and_the_others_are_used(folder, side):
    path = folder / f"train/{side}/a.png"
    path.write_bytes(path.read_bytes()[:-100])
    result, _ = run(folder, packs=[PackSettings(8)])
    (failure,) = result.stats["failures"]
    assert failure["path"] == "train/gt/a.png" and f"{side}/a.png cannot be read" in failure["reason"]
    assert "train/gt/a.png" not in rows(result) and len(rows(result)) == 4
    assert "train/gt/a.png" not in set(pd.read_csv(folder.parent / "out/packs/2x_8/index.csv")["source"])


@pytest.mark.parametrize("side", ["input", "gt"])
def test_a_grey_picture_beside_one_in_colour_is_recorded(folder, side):
    grey = read_picture(folder / f"train/{side}/a.png").rgb[..., 0]
    write_png(folder / f"train/{side}/a.png", grey)
    (failure,) = run(folder)[0].stats["failures"]
    assert re.search(f"/{side}/a.png is grey and .*/a.png is not: save both alike", failure["reason"])


def test_pairs_that_are_both_grey_are_whole(folder):
    for side in ("input", "gt"):
        write_png(folder / f"train/{side}/a.png", read_picture(folder / f"train/{side}/a.png").rgb[..., 0])
    assert run(folder)[0].stats["failures"] == []


def test_test_is_the_folder_and_validation_is_drawn_from_train(folder):
    split = run(folder)[1]
    assert split["test/gt/t.png"] == "test"
    assert sorted(part for name, part in split.items() if name.startswith("train/")) == [*["train"] * 3, "validation"]
    assert run(folder, seed=0)[1] == split
    assert len({str(run(folder, seed=seed)[1]) for seed in range(10)}) > 1


def test_a_validation_folder_is_the_validation(folder):
    write_pair(folder / "validation", "v", noise(16, 16))
    split = run(folder)[1]
    assert [name for name, part in split.items() if part == "validation"] == ["validation/gt/v.png"]


def test_test_pairs_are_drawn_where_there_is_no_folder(folder):
    for path in (folder / "test").rglob("*.png"):
        path.unlink()
    assert sorted(run(folder)[1].values()) == ["test", "train", "train", "validation"]


def test_too_few_pairs_leave_none_to_train_on(tmp_path):
    write_pair(tmp_path / "pairs/train", "a", noise(16, 16))
    with pytest.raises(ValueError, match="leave none to train on"):
        run(tmp_path / "pairs")


@pytest.mark.parametrize("side", ["input", "gt"])
def test_a_second_call_is_all_up_to_date_and_a_changed_file_is_seen(folder, side):
    first = run(folder, packs=[PackSettings(8)])[0]
    written = (folder.parent / "out/packs/2x_8/hr_0000.npy").stat().st_mtime_ns
    again = run(folder, packs=[PackSettings(8)])[0]
    assert again.stats["total_skipped"] == 5 and again.manifest.equals(first.manifest)
    assert (folder.parent / "out/packs/2x_8/hr_0000.npy").stat().st_mtime_ns == written
    path = folder / f"train/{side}/a.png"
    write_png(path, read_picture(path).rgb // 64)
    third = run(folder)[0]
    assert third.stats["total_processed"] == 1 and third.stats["total_skipped"] == 4
    assert not third.manifest.equals(first.manifest)


def test_another_scale_checks_every_pair_again(tmp_path):
    for name in "xyz":
        write_pair(tmp_path / "pairs/train", name, noise(12, 12, seed=ord(name)), scale=3)
    assert run(tmp_path / "pairs", scale=3)[0].stats["total_processed"] == 3
    for name in "xyz":
        write_pair(tmp_path / "pairs/train", name, noise(12, 12, seed=ord(name)), scale=2)
    result = run(tmp_path / "pairs", scale=2)[0]
    assert result.stats["total_processed"] == 3 and set(result.manifest["scale"]) == {2}


def test_packs_hold_the_training_pairs_pixels(folder):
    result, split = run(folder, packs=[PackSettings(8, shard=3 * 8 * 8 * 3)])
    pack = folder.parent / "out/packs/2x_8"
    index = pd.read_csv(pack / "index.csv")
    assert set(index["source"]) == {name for name, part in split.items() if part == "train"}
    hr, lr = (open_shards(pack, name) for name in ("hr", "input"))
    assert len(hr) > 1
    for row in index.itertuples():
        file, place = divmod(row.slot, 3)
        small, gt = read_pair(folder.parent / "out", folder, rows(result)[row.source])
        assert np.array_equal(hr[file][place], gt[row.y : row.y + 8, row.x : row.x + 8])
        assert np.array_equal(lr[file][place], small[row.y // 2 : row.y // 2 + 4, row.x // 2 : row.x // 2 + 4])


def test_number_of_processes_does_not_matter(folder):
    out, trees = folder.parent / "out", []
    for jobs in (1, 2):
        run(folder, jobs=jobs, overwrite=True, packs=[PackSettings(8)])
        files = [p for p in out.rglob("*") if p.is_file() and p.name != "processing_stats.json"]
        trees.append({p.name: p.read_bytes() for p in files})
    assert trees[0] == trees[1]


def write_hdr_pair(part, name, suffix, text="input", scale=2):
    """Linear light up to 900 cd/m2, its LDR picture in 16 bits with gain 1.05 and gamma 2.2: nothing is clipped."""
    light = np.random.default_rng(ord(name)).uniform(50, 900, (8, 10, 3)).astype(np.float32)
    light = light.repeat(scale, 0).repeat(scale, 1)
    path = part / "gt" / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".npy":
        np.save(path, light)
    elif suffix == ".hdr":
        cv2.imwrite(str(path), light[..., ::-1])
    else:
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": light}).write(str(path))
    ldr = ldr_of(read_hdr(path)[::scale, ::scale], 1.05, 2.2)
    write_png(part / "input" / f"{name}.png", np.rint(ldr * 65535).astype(np.uint16))
    (part / text / f"{name}.txt").write_text("dgain: 1.05\ngamma: 2.2\n")


@pytest.mark.parametrize("text", ["input", "gt"])
@pytest.mark.parametrize("suffix", [".npy", ".hdr", ".exr"])
def test_hdr_pairs_are_log_mapped_alike_where_nothing_is_clipped(tmp_path, suffix, text):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, suffix, text)
    result, _ = run(tmp_path / "hdr")
    assert result.stats["failures"] == []
    lr, hr = read_pair(tmp_path / "out", tmp_path / "hdr", rows(result)[f"train/gt/a{suffix}"])
    assert lr.dtype == hr.dtype == np.float32 and lr.shape == (8, 10, 3)
    assert np.array_equal(hr, log_mapped(read_hdr(tmp_path / f"hdr/train/gt/a{suffix}")))
    assert np.abs(lr - hr[::2, ::2]).max() < 1e-3 and 0.5 < hr.min() < hr.max() < 1


def test_hdr_pairs_of_one_size_work(tmp_path):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, ".npy", scale=1)
    result, _ = run(tmp_path / "hdr", scale=1)
    lr, hr = read_pair(tmp_path / "out", tmp_path / "hdr", rows(result)["train/gt/a.npy"])
    assert np.abs(lr - hr).max() < 1e-3


def test_a_missing_gain_is_recorded_with_its_remedy(tmp_path):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, ".npy")
    (tmp_path / "hdr/train/input/b.txt").unlink()
    (failure,) = run(tmp_path / "hdr")[0].stats["failures"]
    assert failure["path"] == "train/gt/b.npy"
    assert failure["reason"].endswith("b.png has no b.txt beside it: write its dgain and gamma there")


def test_hdr_of_another_size_than_its_input_is_recorded(tmp_path):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, ".npy")
    np.save(tmp_path / "hdr/train/gt/b.npy", np.ones((32, 40, 3), np.float32))
    (failure,) = run(tmp_path / "hdr")[0].stats["failures"]
    assert failure["reason"] == "train/gt/b.npy is 40x32, not 2 times its input's 10x8: set the scale to 4"


def test_float_packs_hold_hdr_pairs(tmp_path):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, ".npy")
    result, _ = run(tmp_path / "hdr", packs=[PackSettings(8, "float32")])
    (hr,), (lr,) = (open_shards(tmp_path / "out/packs/2x_8", name) for name in ("hr", "input"))
    assert hr.dtype == lr.dtype == np.float32
    for row in pd.read_csv(tmp_path / "out/packs/2x_8/index.csv").itertuples():
        small, gt = read_pair(tmp_path / "out", tmp_path / "hdr", rows(result)[row.source])
        assert np.array_equal(hr[row.slot], gt[row.y : row.y + 8, row.x : row.x + 8])
        assert np.array_equal(lr[row.slot], small[row.y // 2 : row.y // 2 + 4, row.x // 2 : row.x // 2 + 4])


def test_a_changed_gain_is_seen(tmp_path):
    for name in "abc":
        write_hdr_pair(tmp_path / "hdr/train", name, ".npy")

    def packed() -> np.ndarray:
        settings = [PackSettings(8, "float32")]
        prepare_pairs(tmp_path / "hdr", tmp_path / "out", scale=2, packs=settings, progress=False)
        return np.load(tmp_path / "out/packs/2x_8/input_0000.npy")

    before = packed()
    for name in "abc":
        (tmp_path / f"hdr/train/input/{name}.txt").write_text("dgain: 1.5\ngamma: 1.8\n")
    assert not np.array_equal(packed(), before)


def test_a_changed_input_of_the_same_bytes_is_seen(tmp_path):
    rng = np.random.default_rng(0)

    def packed() -> np.ndarray:
        for name in "abc":
            for side in ("input", "gt"):
                path = tmp_path / f"p/train/{side}/{name}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                if side == "input" or not path.exists():
                    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        prepare_pairs(tmp_path / "p", tmp_path / "out", scale=1, packs=[PackSettings(8)], progress=False)
        return np.load(tmp_path / "out/packs/1x_8/input_0000.npy")

    assert not np.array_equal(packed(), packed())


def test_hdr_needs_floats(tmp_path):
    write_hdr_pair(tmp_path / "hdr/train", "a", ".npy")
    with pytest.raises(ValueError, match="a pack of uint8 cannot hold HDR: set pack_dtype to float32"):
        prepare_pairs(tmp_path / "hdr", tmp_path / "out", scale=2, packs=[PackSettings(8)], progress=False)
