"""Copies of one picture are found: of equal content, or saved again under the same name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srlib.data.copies import copies_among, copies_made, united
from srlib.data.degrade import Degradation
from srlib.data.drawings import draw
from srlib.data.pregenerate import Recipe, pregenerate


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        Image.fromarray(draw(number)).save(tmp_path / f"{number}.png")
    return tmp_path


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_files_of_equal_content_are_copies_whatever_they_are_called(folder):
    (folder / "sub").mkdir()
    shutil.copy(folder / "0.png", folder / "sub" / "other.png")
    (folder / "linked.png").symlink_to(folder / "0.png")
    assert copies_among(folder, names(folder)) == [["0.png", "linked.png", "sub/other.png"]]


@pytest.mark.parametrize(
    "again", ["0.jpg", "0.webp", "0 (1).png", "0 copy.png", "0_copy 2.jpg", "0 - Kopie.png", "jpg/0.jpg", "0.bmp"]
)
def test_a_picture_saved_again_under_its_name_is_a_copy(folder, again):
    (folder / again).parent.mkdir(exist_ok=True)
    with Image.open(folder / "0.png") as image:
        image.save(folder / again, quality=90)
    assert copies_among(folder, names(folder)) == [sorted(["0.png", again])]


def test_a_smaller_one_beside_it_is_a_copy_and_another_picture_of_that_name_is_not(folder):
    with Image.open(folder / "0.png") as image:
        image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX).save(folder / "0 (2).png")
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "1.jpg")
    assert copies_among(folder, names(folder)) == [["0 (2).png", "0.png"]]


def test_chains_are_one_group_and_what_cannot_be_read_is_none(folder):
    shutil.copy(folder / "0.png", folder / "9.png")
    with Image.open(folder / "0.png") as image:
        image.save(folder / "0.webp", lossless=True)
        image.save(folder / "9.bmp")
    (folder / "1.jpg").write_bytes(b"no picture")
    assert copies_among(folder, names(folder)) == [["0.png", "0.webp", "9.bmp", "9.png"]]


def test_frames_of_several_films_are_no_copies(tmp_path, monkeypatch):
    for film in range(3):
        (tmp_path / str(film)).mkdir()
        Image.fromarray(np.full((8, 8, 3), film, np.uint8)).save(tmp_path / str(film) / "0001.png")
    monkeypatch.setattr("srlib.data.copies.read_picture", None)  # they are not even opened
    assert copies_among(tmp_path, names(tmp_path)) == []


def test_a_numbering_is_no_copying(folder, monkeypatch):
    for number in range(3):
        shutil.copy(folder / "0.png", folder / f"img ({number}).png")
        (folder / f"img ({number}).png").write_bytes(bytes([number]) * 100)  # of one size, of unequal content
    monkeypatch.setattr("srlib.data.copies.read_picture", None)  # they are not even opened
    assert copies_among(folder, names(folder)) == []


def test_a_file_that_cannot_be_read_is_no_copy(folder, monkeypatch):
    shutil.copy(folder / "0.png", folder / "locked.png")
    shutil.copy(folder / "0.png", folder / "again.png")
    opened = Path.open

    def guarded(path, *args, **kwargs):
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    assert copies_among(folder, names(folder)) == [["0.png", "again.png"]]


def test_equal_pixels_under_another_name_are_found_by_the_lr_pictures(folder):
    with Image.open(folder / "0.png") as image:
        image.save(folder / "other.bmp")
        image.save(folder / "third.png", compress_level=1)
    data, known = folder.parent / "data", names(folder)
    made = pregenerate(folder, data, Recipe(methods=("bicubic",)), progress=False)
    assert copies_made(data, folder, known) == [["0.png", "other.bmp", "third.png"]]
    assert copies_made(data, folder, ["0.png", "1.png", "third.png"]) == [["0.png", "third.png"]]
    shutil.copy(folder / "1.png", folder / "third.png")
    assert copies_made(data, folder, known) == [["0.png", "other.bmp"]]  # of its new pixels nothing is known yet
    assert copies_made(folder, folder, known) == [] and len(made.manifest) == 4
    pregenerate(folder, data, Recipe(methods=("bicubic",), degradation=Degradation(noise=(5, 9))), progress=False)
    assert copies_made(data, folder, known) == []


def test_groups_that_share_a_name_are_one():
    assert united([["d", "e"], ["a", "b"], ["c", "b"], ["f"]]) == [["a", "b", "c"], ["d", "e"]]
