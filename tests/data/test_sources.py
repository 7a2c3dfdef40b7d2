"""Pictures are found, sampled and split the same way every time; data.json comes back."""

import os

import pytest
from PIL import Image

from srlib.data.description import read_description, write_description
from srlib.data.sources import (
    EMBEDDED_SPLIT,
    embedded_pictures,
    embedded_split,
    later_pages,
    need_parts,
    pictures_in,
    sampled,
    split_pictures,
)
from srlib.data.underwater import underwater_pairs


def test_sample_is_stable_and_grows():
    names = [f"{i}.png" for i in range(100)]
    assert sampled(names, 0.1) == sampled(names[::-1], 0.1) and len(sampled(names, 0.1)) == 10
    assert set(sampled(names, 0.1)) < set(sampled(names, 0.3)) and len(sampled(names, 0.001)) == 1
    assert sampled(names, 0.1, seed=1) != sampled(names, 0.1)
    with pytest.raises(ValueError, match="sample 0 is no share"):
        sampled(names, 0)


def test_split_by_name_and_by_share():
    names = [f"p/{i}.png" for i in range(10)]
    split = split_pictures(names, validation=["p/3"], test=["p/4.png"])
    assert split["p/3.png"] == "validation" and split["p/4.png"] == "test" and list(split.values()).count("train") == 8
    shares = split_pictures(names, validation=0.2, test=0.2)
    assert sorted(shares.values()) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2
    assert shares == split_pictures(names[::-1], validation=0.2, test=0.2)
    assert sorted(split_pictures(names[:3], validation=0.1, test=0.1).values()) == ["test", "train", "validation"]


def test_a_name_without_suffix_must_mean_one_picture():
    names = ["a.png", "a.jpg", "b.png"]
    with pytest.raises(ValueError, match="test picture 'a' is there with 2 suffixes"):
        split_pictures(names, validation=[], test=["a"])
    assert split_pictures(names, validation=[], test=["a.jpg"])["a.jpg"] == "test"


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (["p/33"], [], "validation picture 'p/33' is not there; near: p/3"),
        (["p/3"], ["p/3"], "named for validation and for test"),
        (0.6, 0.6, "leave none to train on"),
    ],
)
def test_wrong_splits_are_refused(validation, test, message):
    with pytest.raises(ValueError, match=message):
        split_pictures([f"p/{i}.png" for i in range(5)], validation=validation, test=test)


def test_embedded_pictures_are_there_and_their_split_is_known(tmp_path):
    embedded_pictures(tmp_path)
    names = pictures_in(tmp_path).names
    assert len(names) == 20
    split = split_pictures(names, **EMBEDDED_SPLIT)
    assert {p: list(split.values()).count(p) for p in ("train", "validation", "test")} == {
        "train": 12,
        "validation": 3,
        "test": 5,
    }
    stamp = (tmp_path / "photos/coffee.png").stat().st_mtime_ns
    embedded_pictures(tmp_path)
    assert (tmp_path / "photos/coffee.png").stat().st_mtime_ns == stamp
    embedded_pictures(tmp_path, drawings=2)
    assert [name for name in pictures_in(tmp_path).names if "drawing" in name] == [
        "drawings/drawing_00.png",
        "drawings/drawing_01.png",
    ]
    underwater_pairs(tmp_path, waters=1)  # the same run, now of pairs
    assert all(name.startswith(("train/", "validation/", "test/")) for name in pictures_in(tmp_path).names)


def test_nothing_is_removed_that_was_not_noted(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.png").write_bytes(b"mine")
    embedded_pictures(tmp_path, drawings=1)
    embedded_pictures(tmp_path, drawings=0)
    assert not (tmp_path / "drawings/drawing_00.png").exists()
    assert (tmp_path / "photos/mine.png").read_bytes() == b"mine"


def test_description_round_trip_and_its_absence(tmp_path):
    write_description(tmp_path, hr_root=".", split={"a": "train"}, scales=[2], methods=["area"])
    assert read_description(tmp_path)["split"] == {"a": "train"}
    with pytest.raises(FileNotFoundError, match="run notebooks/01_data.ipynb first"):
        read_description(tmp_path / "nowhere")


def test_a_sample_of_the_embedded_pictures_has_every_part():
    names = ["photos/coffee.png", "photos/astronaut.png", "photos/brick.png", "drawings/drawing_00.png"]
    assert embedded_split(names, 0.2) == {"validation": 0.2, "test": ["photos/coffee"]}
    split = split_pictures(names, **embedded_split(names, 0.2))
    need_parts(split)
    with pytest.raises(ValueError, match="no validation picture is left"):
        need_parts({"a": "train", "b": "test"})


def test_names_that_no_file_or_table_can_hold_are_left_out_by_name(tmp_path):
    long = "a" * 225 + ".png"
    (tmp_path / long).write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="holds no pictures.*is no valid text: rename it"):
        pictures_in(tmp_path)
    (tmp_path / "b.png").write_bytes(b"")
    found = pictures_in(tmp_path)
    assert found.names == ["b.png"]
    assert found.left_out[long].endswith("has too long a name: rename it")
    assert found.left_out["\\xff.png"] == "\\xff.png: its name is no valid text: rename it"


@pytest.mark.parametrize("odd", [b"\xff", b"a\nb", b"a\rb", b"a\tb", b"\x1b[31m", "\u2028".encode()])
@pytest.mark.parametrize("where", ["file", "folder", "broken link", "hidden"])
def test_names_that_are_no_text_are_escaped_in_every_sentence(tmp_path, odd, where):
    folder = tmp_path / os.fsdecode(odd)
    folder.mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    if where == "file":
        (tmp_path / os.fsdecode(odd + b".png")).write_bytes(b"")
    elif where == "folder":
        (folder / "b.png").write_bytes(b"")
    elif where == "broken link":
        (folder / "b.png").symlink_to(os.fsdecode(odd))
    else:
        (folder / ".Trash").mkdir()
        (folder / ".Trash" / "b.png").write_bytes(b"")
    found = pictures_in(tmp_path)
    sentences = [*found.left_out, *found.left_out.values(), *found.left_alone]
    assert found.names == ["a.png"] and sentences
    assert all(sentence.isprintable() and sentence.encode() for sentence in sentences)


def test_hidden_folders_and_broken_links_are_no_pictures_but_are_named(tmp_path):
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    found = pictures_in(tmp_path)
    assert found.names == ["a.png"] and list(found.left_out) == ["gone.png"]
    assert found.left_alone == [f"{tmp_path / '.ipynb_checkpoints'}: 1 picture in a hidden folder"]


def test_copies_stay_in_one_part():
    names = [f"{i:02}.png" for i in range(20)]
    without = split_pictures(names, validation=0.2, test=0.2)
    copies = [["00.png", "01.png", "02.png"], ["10.png", "19.png"]]
    for seed in range(20):
        split = split_pictures(names, validation=0.2, test=0.2, copies=copies, seed=seed)
        assert all(len({split[name] for name in group}) == 1 for group in copies)
        assert set(split.values()) == {"train", "validation", "test"} and set(split) == set(names)
        assert split == split_pictures(names[::-1], validation=0.2, test=0.2, copies=copies[::-1], seed=seed)
    assert without == split_pictures(names, validation=0.2, test=0.2, copies=[])


def test_many_copies_of_one_picture_do_not_fill_a_small_part():
    names = [f"{i:02}.png" for i in range(40)]
    for seed in range(10):
        split = split_pictures(names, validation=0.1, test=0.1, copies=[names[:20]], seed=seed)
        assert [split[name] for name in names[:20]] == ["train"] * 20
        assert list(split.values()).count("validation") == list(split.values()).count("test") == 4
    split = split_pictures(names, validation=0.1, test=0.1, copies=[names[:19], names[19:38], names[38:]])
    assert set(split.values()) == {"train", "validation", "test"}  # too many, where there is no other way


def test_copies_of_copies_are_copies():
    names = ["a.png", "b.png", "c.png", "d.png"]
    split = split_pictures(names, validation=["a"], test=0.0, copies=[["b.png", "c.png"], ["a.png", "b.png"]])
    assert split == {"a.png": "validation", "b.png": "validation", "c.png": "validation", "d.png": "train"}


def test_pages_after_the_first_are_said(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    for name in ("a.tif", "b.webp", "c.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for name in ("d.tif", "e.webp", "f.png", "g.jpg", "h.bmp"):
        frames[0].save(tmp_path / name)
    (tmp_path / "i.png").write_bytes(b"no picture")
    assert later_pages(tmp_path, pictures_in(tmp_path).names) == [
        f"{tmp_path / name}: 2 of its 3 pages or frames, all but the first" for name in ("a.tif", "b.webp", "c.png")
    ]


def test_copies_of_named_pictures_follow_them():
    names = ["a.png", "b.png", "c.png", "d.png"]
    split = split_pictures(names, validation=["a"], test=["d"], copies=[["a.png", "b.png"]])
    assert split == {"a.png": "validation", "b.png": "validation", "c.png": "train", "d.png": "test"}
    with pytest.raises(ValueError, match="b, a copy of a.png, is named for validation and for test"):
        split_pictures(names, validation=["a"], test=["b"], copies=[["a.png", "b.png"]])
