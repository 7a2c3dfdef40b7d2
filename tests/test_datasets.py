"""Packed patches are the pictures' own pixels; keys always mean the same pixels; missing things are named."""

import numpy as np
import pytest
import torch

from srlib.data import pregenerate, split_pictures, write_description
from srlib.datasets import KeySampler, PackedPairs, PicturePairs, find_pack, pack
from srlib.pictures import read_picture, to_float, write_png


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one a part, packed at patch 24."""
    rng = np.random.default_rng(0)
    for name, shape in {"a": (41, 52), "b": (36, 48), "c": (30, 34)}.items():
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    pregenerate(tmp_path / "hr", tmp_path / "data", scales=(2, 3), methods=("bicubic", "area"), progress=False)
    split = split_pictures(["a.png", "b.png", "c.png"], validation=["b"], test=["c"])
    for scale in (2, 3):
        pack(tmp_path / "data", tmp_path / "hr", split, scale=scale, patch=25)
    write_description(
        tmp_path / "data", hr_root=tmp_path / "hr", split=split, scales=[2, 3], methods=["bicubic", "area"]
    )
    return tmp_path / "data"


@pytest.mark.parametrize("scale", [2, 3])
def test_patches_are_cut_out_of_the_training_pictures_up_to_the_border(folder, scale):
    data = PackedPairs(folder / "packs" / f"{scale}x_25", methods=["area"])
    hr = read_picture(folder.parent / "hr/a.png").rgb
    lr = read_picture(folder / f"scale_{scale}x/area/a.png").rgb
    assert set(data.names) == {"a.png"}  # never a held-out picture
    index = np.loadtxt(
        folder / "packs" / f"{scale}x_25" / "index.csv", delimiter=",", skiprows=1, usecols=(1, 2), dtype=int
    )
    side = 25 - 25 % scale
    assert index.max(0).tolist() == [41 // scale * scale - side, 52 // scale * scale - side]
    for number, (y, x) in enumerate(index):
        assert np.array_equal(data.hr[number], hr[y : y + side, x : x + side])
        box = (slice(y // scale, (y + side) // scale), slice(x // scale, (x + side) // scale))
        assert np.array_equal(data.lrs[0][number], lr[box])


def test_items_are_aligned_crops_turned_alike(folder):
    data = PackedPairs(folder / "packs/2x_25", lr_patch=8, methods=["area"])
    seen = set()
    for draw in range(40):
        item = data[(0, draw)]
        assert item["lr"].shape == (3, 8, 8) and item["hr"].shape == (3, 16, 16) and item["name"] == "a.png"
        means = torch.nn.functional.avg_pool2d(item["hr"], 2)  # area: the LR picture, up to 8-bit rounding
        assert (means - item["lr"]).abs().max() < 0.6 / 255
        seen.add(item["lr"].numpy().tobytes())
    assert len(seen) > 30
    assert torch.equal(data[(0, 5)]["hr"], data[(0, 5)]["hr"])


def test_all_methods_are_drawn(folder):
    data = PackedPairs(folder / "packs/2x_25")
    assert len(data) == 2 * len(data.hr) and data.methods == ["area", "bicubic"]
    assert not torch.equal(data[(0, 0)]["lr"], data[(1, 0)]["lr"])


def test_packs_are_kept_and_redone_when_the_pictures_change(folder):
    split = {"a.png": "train", "b.png": "validation", "c.png": "test"}
    path = folder / "packs/2x_25/hr.npy"
    stamp = path.stat().st_mtime_ns
    pack(folder, folder.parent / "hr", split, scale=2, patch=25)
    assert path.stat().st_mtime_ns == stamp
    facts = pack(folder, folder.parent / "hr", {**split, "b.png": "train"}, scale=2, patch=32)
    assert facts["patches"] == 4 + 4 and facts["patch"] == 32
    pack(folder, folder.parent / "hr", {**split, "c.png": "train"}, scale=2, patch=25)
    assert path.stat().st_mtime_ns != stamp


def test_sampler_is_a_function_of_seed_and_step():
    whole = list(KeySampler(7, seed=3, batch=4, steps=10))
    assert list(KeySampler(7, seed=3, batch=4, steps=10, start=6)) == whole[6:]
    flat = [key for batch in whole for key in batch]
    assert sorted(n for n, _ in flat[:7]) == list(range(7)) == sorted(n for n, _ in flat[7:14])  # epochs
    assert len(set(flat)) == len(flat) == 40
    assert whole != list(KeySampler(7, seed=4, batch=4, steps=10))


def test_whole_pictures_by_part(folder):
    pairs = PicturePairs(folder, "validation", scale=3)
    assert pairs.names == ["b"] and len(pairs) == 1
    item = pairs[0]
    assert item["lr"].shape == (3, 12, 16) and item["hr"].shape == (3, 36, 48)
    assert torch.equal(item["hr"], to_float(read_picture(folder.parent / "hr/b.png").rgb))
    assert [i["name"] for i in pairs] == ["b"]


def test_what_is_missing_is_named_with_its_remedy(folder):
    with pytest.raises(
        ValueError, match="largest packed are 24: add 32 to patch_sizes in 01_data, or lower lr_patch to 12"
    ):
        find_pack(folder, 2, 32)
    with pytest.raises(ValueError, match="no patches at scale 4 .* only at .2, 3.: set scales"):
        find_pack(folder, 4, 24)
    assert find_pack(folder, 2, 20).name == "2x_25"
    with pytest.raises(ValueError, match="no lanczos patches .* only area, bicubic"):
        PackedPairs(folder / "packs/2x_25", methods=["lanczos"])
    with pytest.raises(ValueError, match="no validation pictures made by lanczos at scale 2"):
        PicturePairs(folder, "validation", scale=2, method="lanczos")
    with pytest.raises(ValueError, match="no training picture is as large as a patch of 64"):
        pack(folder, folder.parent / "hr", {"a.png": "train"}, scale=2, patch=64)
