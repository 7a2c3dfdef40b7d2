"""Patches are the pictures' own pixels; keys always mean the same pixels; missing things are named."""

import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from srlib.data.datasets import DownscaledPictures, PicturePairs, find_pack, training_patches
from srlib.data.degrade import Degradation
from srlib.data.description import write_description
from srlib.data.manifest import METHOD
from srlib.data.packs import PackSettings
from srlib.data.pairs import prepare_pairs
from srlib.data.patches import Mixture, OnlinePairs, PackedPairs, draw_keys
from srlib.data.pictures import read_picture, to_float, write_png
from srlib.data.pregenerate import Recipe, list_online, pregenerate
from srlib.data.resize import downscale_integers
from srlib.data.sources import split_pictures
from srlib.evaluation.metrics import ssim_y

METHODS = ("bicubic", "area")


@pytest.fixture
def hr(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"a": (41, 52), "b": (36, 48), "c": (30, 34)}.items():
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return tmp_path / "hr"


SPLIT = {"a.png": "train", "b.png": "validation", "c.png": "test"}


@pytest.fixture
def folder(hr):
    """Three pictures, one a part, packed at patch 25, in files of three patches."""
    out = hr.parent / "data"
    settings = PackSettings(patch=25, shard=3 * 24 * 24 * 3)
    pregenerate(hr, out, Recipe((2, 3), METHODS), split=SPLIT, packs=[settings], progress=False)
    write_description(out, hr_root=hr, split=SPLIT, scales=[2, 3], methods=METHODS)
    return out


def test_items_are_aligned_crops_turned_alike(folder):
    data = PackedPairs(folder / "packs/2x_25", lr_patch=8, methods=["area"])
    seen = set()
    for draw in range(40):
        item = data[(draw % len(data), draw)]
        assert item["lr"].shape == (3, 8, 8) and item["hr"].shape == (3, 16, 16) and item["name"] == "a.png"
        means = torch.nn.functional.avg_pool2d(item["hr"], 2)  # area: the LR picture, up to 8-bit rounding
        assert (means - item["lr"]).abs().max() < 0.6 / 255
        seen.add(item["lr"].numpy().tobytes())
    assert len(seen) > 30
    assert torch.equal(data[(0, 5)]["hr"], data[(0, 5)]["hr"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_all_eight_turns_are_drawn_in_every_type(hr, dtype):
    out = hr.parent / dtype
    packs = [PackSettings(patch=16, dtype=dtype)]
    pregenerate(hr, out, Recipe(methods=["area"]), split=SPLIT, packs=packs, progress=False)
    data = PackedPairs(out / "packs/2x_16")
    hr_picture = to_float(read_picture(hr / "a.png").rgb)[:, :16, :16]
    turns = [torch.rot90(flipped, k, (1, 2)) for flipped in (hr_picture, hr_picture.flip(1)) for k in range(4)]
    drawn = [data[(0, draw)]["hr"] for draw in range(60)]
    for turn in turns:
        assert any((item - turn).abs().max() < 1e-3 for item in drawn)


def test_all_methods_are_drawn(folder):
    data = PackedPairs(folder / "packs/2x_25")
    assert len(data) == 2 * len(data.slots) and data.methods == ["area", "bicubic"]
    assert not torch.equal(data[(0, 0)]["lr"], data[(1, 0)]["lr"])


def test_workers_give_the_same_batches(folder):
    data = PackedPairs(folder / "packs/2x_25", lr_patch=8)
    batches = [
        [b["lr"] for b in DataLoader(data, batch_sampler=draw_keys(len(data), [(3, None)] * 4, seed=1), num_workers=n)]
        for n in (0, 2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_online_patches_are_cut_out_of_the_pregenerated_pictures(folder, hr, method):
    data = OnlinePairs(folder, scale=2, lr_patch=6, methods=[method])
    lr = to_float(read_picture(folder / f"scale_2x/{method}/a.png").rgb)
    windows = lr.unfold(1, 6, 1).unfold(2, 6, 1)  # (3, y, x, 6, 6)
    places = set()
    for draw in range(40):
        item = data[(0, draw)]
        for flipped in (item["lr"], item["lr"].flip(1)):
            for k in range(4):
                same = (windows == torch.rot90(flipped, k, (1, 2))[:, None, None]).all((0, 3, 4)).nonzero()
                places |= {tuple(place) for place in same.tolist()}
                assert len(same) <= 1
    assert len(places) > 25  # found among the LR picture's own squares, nearly every time elsewhere


def test_online_pictures_are_the_pregenerated_ones(hr):
    rough = Degradation(blur=(0.5, 1), noise=(1, 3), after="jpeg")
    out, online = hr.parent / "made", hr.parent / "online"
    recipe = Recipe(methods=METHODS, size=31, degradation=rough)
    pregenerate(hr, out, recipe, progress=False)
    list_online(hr, online, recipe)
    for folder, flag in ((out, False), (online, True)):
        extra = {"size": 31, "degradation": vars(rough), "online": flag}
        write_description(folder, hr_root=hr, split=SPLIT, scales=[2], methods=METHODS, **extra)
    for part in ("train", "validation"):
        for method in METHODS:
            made, fresh = (PicturePairs(f, part, scale=2, method=method)[0] for f in (out, online))
            assert torch.equal(made["lr"], fresh["lr"]) and torch.equal(made["hr"], fresh["hr"])
    assert not list(online.glob("scale_*"))
    patches = training_patches(online, scale=2, lr_patch=8, methods=["area"])
    assert isinstance(patches, OnlinePairs) and patches[(0, 1)]["hr"].shape == (3, 16, 16)
    assert not torch.equal(patches[(0, 1)]["lr"], patches[(0, 2)]["lr"])
    with pytest.raises(ValueError, match="no training picture is as large as a patch of 64"):
        training_patches(online, scale=2, lr_patch=32)


def test_a_mixture_keeps_its_weights_and_forgets_no_patch():
    class Numbered(torch.utils.data.Dataset):
        def __init__(self, name, length):
            self.name, self.length, self.key = name, length, name

        def __len__(self):
            return self.length

        def __getitem__(self, key):
            return self.name, key

    mixture = Mixture([Numbered("a", 10), Numbered("b", 90)], [3, 1])
    sampler = draw_keys(len(mixture), [(len(mixture), None)] * 8, seed=0)
    drawn = [[mixture[key] for key in batch] for batch in sampler]
    counts = [sum(name == "a" for name, _ in epoch) for epoch in drawn]
    assert counts == [75] * 8
    assert {key[0] for epoch in drawn for name, key in epoch if name == "b"} == set(range(90))
    keys = [item for epoch in drawn for item in epoch]
    assert len(set(keys)) == len(keys)  # a repeated patch is drawn with another crop
    with pytest.raises(ValueError, match="2 datasets need as many weights"):
        Mixture([Numbered("a", 1), Numbered("b", 1)], [1])


def test_another_runs_data_joins_by_weight(folder, hr):
    for grey, picture in enumerate(["train/{}/x", "train/{}/y", "test/{}/x", "test/{}/y"]):
        for side, s in (("input", 1), ("gt", 2)):
            write_png(hr.parent / f"given/{picture.format(side)}.png", np.full((20 * s, 20 * s, 3), grey, np.uint8))
    result, split = prepare_pairs(
        hr.parent / "given", hr.parent / "other", scale=2, packs=[PackSettings(patch=20)], progress=False
    )
    write_description(hr.parent / "other", hr_root=hr.parent / "given", split=split, scales=[2], methods=[METHOD])
    write_description(folder, hr_root=hr, split=SPLIT, scales=[2, 3], methods=METHODS, also={"../other": 1.0})
    mixed = training_patches(folder, scale=2, lr_patch=8, methods=["area"])
    names = [mixed[(number, 0)]["name"] for number in range(len(mixed))]
    assert {n.split("/")[0] for n in names} == {"a.png", "train"}
    assert abs(names.count("a.png") - len(names) / 2) <= 1


def test_what_is_drawn_is_a_function_of_seed_and_place():
    whole = list(draw_keys(7, [(4, None)] * 10, seed=3))
    assert list(draw_keys(7, [(4, None)] * 4, seed=3, place=24)) == whole[6:]
    flat = [key for batch in whole for key in batch]
    numbers = [number for number, _, _ in flat]
    assert sorted(numbers[:7]) == sorted(numbers[7:14]) == list(range(7)) and numbers[:7] != numbers[7:14]
    assert whole != list(draw_keys(7, [(4, None)] * 10, seed=4))
    # other batches, or several processes, draw the same patches
    assert [k for b in draw_keys(7, [(2, None), (5, None), (33, None)], seed=3) for k in b] == flat
    parts = [list(draw_keys(7, [(2, None)] * 10, seed=3, rank=r, ranks=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_a_key_may_ask_for_a_smaller_crop(folder, hr):
    pack = PackedPairs(find_pack(folder, 2, 16))
    mixed = Mixture([pack], [1.0])
    for data in (pack, mixed):
        item = data[(0, 5, 4)]
        assert item["lr"].shape == (3, 4, 4) and item["hr"].shape == (3, 8, 8)
        assert torch.equal(data[(0, 5, None)]["lr"], data[(0, 5)]["lr"])
        with pytest.raises(ValueError, match="a crop of 99 LR pixels does not fit"):
            data[(0, 5, 99)]


def test_whole_pictures_have_the_sizes_the_manifest_says(folder, hr):
    pairs = PicturePairs(folder, "validation", scale=3)
    assert len(pairs) == 1 and pairs.names == ["b"]
    item = pairs[0]
    assert item["lr"].shape == (3, 12, 16) and item["hr"].shape == (3, 36, 48)
    assert torch.equal(item["hr"], to_float(read_picture(hr / "b.png").rgb))
    assert torch.equal(item["lr"], to_float(downscale_integers(read_picture(hr / "b.png").rgb, 3)))


def test_what_is_missing_is_named(folder):
    with pytest.raises(ValueError, match="patches of 32 pixels, the largest packed are 24: add 32 to patch_sizes"):
        find_pack(folder, 2, 32)
    with pytest.raises(ValueError, match="no patches at scale 4 .* only at .*: set scale in 02_stage1 to one"):
        find_pack(folder, 4, 24)
    assert find_pack(folder, 2, 20).name == "2x_25"
    with pytest.raises(ValueError, match="no lanczos patches"):
        PackedPairs(folder / "packs/2x_25", methods=["lanczos"])
    with pytest.raises(ValueError, match="no validation pictures made by lanczos at scale 2"):
        PicturePairs(folder, "validation", scale=2, method="lanczos")
    assert split_pictures(list(SPLIT), validation=["b"], test=["c"]) == SPLIT


def test_a_broken_picture_gives_way_to_the_next_with_a_warning(hr):
    (hr / "d.png").write_bytes((hr / "a.png").read_bytes()[:200])
    list_online(hr, hr.parent / "online", Recipe(methods=["area"]))
    split = SPLIT | {"d.png": "train"}
    write_description(hr.parent / "online", hr_root=hr, split=split, scales=[2], methods=["area"], online=True)
    patches = training_patches(hr.parent / "online", scale=2, lr_patch=8)
    with pytest.warns(UserWarning, match="d.png cannot be read"):
        assert patches[(patches.names.index("d.png"), 0)]["hr"].shape == (3, 16, 16)
    (hr / "a.png").write_text("404")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="png"):
        patches[(0, 0)]


def test_held_out_pictures_never_come_back_by_another_way(folder, hr):
    other = hr.parent / "other"
    split = {"a.png": "validation", "b.png": "train", "c.png": "test"}
    settings = [PackSettings(patch=25)]
    pregenerate(hr, other, Recipe(methods=METHODS), split=split, packs=settings, progress=False)
    write_description(other, hr_root=hr, split=split, scales=[2], methods=METHODS)
    write_description(folder, hr_root=hr, split=SPLIT, scales=[2, 3], methods=METHODS, also={"../other": 1.0})
    with pytest.raises(ValueError, match="b.png is held out here and trained on in"):
        training_patches(folder, scale=2, lr_patch=8)
    list_online(hr, hr.parent / "online", Recipe(methods=METHODS))  # no checksums: known by their place
    write_description(hr.parent / "online", hr_root=hr, split=split, scales=[2], methods=METHODS, online=True)
    write_description(folder, hr_root=hr, split=SPLIT, scales=[2, 3], methods=METHODS, also={"../online": 1.0})
    with pytest.raises(ValueError, match="b.png is held out here"):
        training_patches(folder, scale=2, lr_patch=8)
    write_description(other, hr_root=hr, split=SPLIT, scales=[2], methods=METHODS)  # the pack is of another split
    with pytest.raises(ValueError, match="holds b.png, which the split does not train on"):
        training_patches(other, scale=2, lr_patch=8)


def test_packs_travel_to_started_workers_without_their_pixels(folder):
    data = PackedPairs(folder / "packs/2x_25")
    sent = pickle.dumps(data)
    assert len(sent) < data.hr[0].nbytes / 2
    assert torch.equal(pickle.loads(sent)[(3, 4)]["hr"], data[(3, 4)]["hr"])


def test_any_folder_of_pictures_is_downscaled_by_the_protocols_bicubic(hr, folder):
    given = PicturePairs(folder, "train", scale=2)[0]
    pictures = DownscaledPictures(hr, scale=2)
    assert pictures.names == ["a.png", "b.png", "c.png"] and pictures.original(0).shape == (41, 52, 3)
    item = pictures[0]
    assert (
        item["hr"].shape == (3, 40, 52)
        and torch.equal(item["hr"], given["hr"])
        and torch.equal(item["lr"], given["lr"])
    )
    (hr / "b.png").write_bytes(b"no picture")  # broken only afterwards
    with pytest.raises(ValueError, match="b.png is not a picture"):
        pictures[1]


@pytest.mark.parametrize(("scale", "least"), [(2, 16), (3, 18), (4, 20)])
def test_broken_and_tiny_pictures_of_a_folder_are_left_out_and_named(hr, scale, least):
    whole = (hr / "a.png").read_bytes()
    (hr / "cut.png").write_bytes(whole[: len(whole) // 2])
    (hr / "text.jpg").write_bytes(b"no picture")
    write_png(hr / "fits.png", np.zeros((least, least, 3), np.uint8))
    write_png(hr / "tiny.png", np.zeros((40, least - 1, 3), np.uint8))
    pictures = DownscaledPictures(hr, scale=scale)
    assert pictures.names == ["a.png", "b.png", "c.png", "fits.png"] and len(pictures) == 4
    cut, text, tiny = pictures.left_out
    assert cut.startswith("cut.png: cannot be read (") and text.startswith("text.jpg: is not a picture")
    assert tiny == f"tiny.png: {least - 1}x40 is too small, x{scale} needs {least} pixels a side"
    smallest = pictures[3]["hr"][None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SSIM's when its window does not fit
        assert ssim_y(smallest, smallest, scale) == 1


def test_hidden_folders_and_later_pages_of_a_folder_are_said(hr):
    shutil.copytree(hr, hr / ".ipynb_checkpoints")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
    frames[0].save(hr / "film.webp", save_all=True, append_images=frames[1:])
    pictures = DownscaledPictures(hr, scale=2)
    assert pictures.names == ["a.png", "b.png", "c.png", "film.webp"] and not pictures.left_out
    assert pictures.left_alone == [
        f"{hr}/.ipynb_checkpoints: 3 pictures in a hidden folder",
        f"{hr}/film.webp: 1 of its 2 pages or frames, all but the first",
    ]


def test_a_folder_without_a_single_sound_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="holds no picture to score on: text.png: is not a picture"):
        DownscaledPictures(tmp_path, scale=2)
