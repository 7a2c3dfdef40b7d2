"""Which files of a folder are pictures."""

import os
from pathlib import Path

import pytest

from srlib.data.listing import find_pictures


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in find_pictures(folder).files]


def test_subfolders_are_searched_and_suffixes_are_known_in_capitals(tmp_path):
    touch(tmp_path, "b.PNG", "a.jfif", "sub/deep/c.jpg", "notes.txt", "sub.png/d.webp", "noname")
    assert names(tmp_path) == ["a.jfif", "b.PNG", "sub.png/d.webp", "sub/deep/c.jpg"]
    assert not find_pictures(tmp_path).left_alone and not find_pictures(tmp_path).troubles


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints", ".Trash", ".Trash-1000", ".git", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle"]
)
def test_hidden_folders_are_left_alone_and_counted(tmp_path, hidden):
    touch(tmp_path, "a.png", f"{hidden}/a.png", f"{hidden}/deep/b.png", f"sub/{hidden}/c.png", "sub/._a.png")
    found = find_pictures(tmp_path)
    assert names(tmp_path) == ["a.png"]
    assert found.left_alone == [
        f"{tmp_path / hidden}: 2 pictures in a hidden folder",
        f"{tmp_path / 'sub' / hidden}: 1 picture in a hidden folder",
    ]


def test_a_folder_given_by_its_hidden_name_is_read(tmp_path):
    touch(tmp_path, ".cache/pictures/a.png")
    assert names(tmp_path / ".cache") == ["pictures/a.png"]


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere", "a.png", "sub/b.png")
    touch(tmp_path / "own", "here/c.png")
    for link in ("first", "second"):
        (tmp_path / "own" / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "again").symlink_to(tmp_path / "own" / "here")  # sorted before what it leads to
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "own")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    assert names(tmp_path / "own") == ["first/a.png", "first/sub/b.png", "here/c.png"]
    said = find_pictures(tmp_path / "own").left_alone
    assert [s.partition(": a link")[0] for s in said] == [
        str(tmp_path / "own" / name) for name in ("again", "second", "first/back", "first/up")
    ]


def test_links_to_the_output_are_not_followed(tmp_path):
    touch(tmp_path, "own/a.png", "out/scale_2x/b.png", "out/own.png", "other/c.png")
    for link, target in {"out": "out", "deep": "out/scale_2x", "other": "other"}.items():
        (tmp_path / "own" / link).symlink_to(tmp_path / target)
    (tmp_path / "other" / "again").symlink_to(tmp_path / "out")
    found = find_pictures(tmp_path / "own", output=tmp_path / "out")
    assert [p.name for p in found.files] == ["a.png", "c.png"]
    assert sorted(s.partition(": the output")[0] for s in found.left_alone) == [
        str(tmp_path / "own" / name) for name in ("deep", "other/again", "out")
    ]
    assert [p.name for p in find_pictures(tmp_path / "own", output=tmp_path / "new").files][:1] == ["a.png"]


def test_a_folder_that_is_a_link_itself_is_read(tmp_path):
    touch(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(tmp_path / "link") == ["a.png"]


def test_linked_files_are_read_and_broken_links_named(tmp_path):
    touch(tmp_path, "store/1")
    touch(tmp_path / "own", "a.png")
    (tmp_path / "own" / "b.png").symlink_to(tmp_path / "store" / "1")
    (tmp_path / "own" / "gone.png").symlink_to(tmp_path / "store" / "2")
    (tmp_path / "own" / "folder").symlink_to(tmp_path / "unplugged")
    (tmp_path / "own" / "notes.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "own" / "loop.png").symlink_to("loop.png")
    found = find_pictures(tmp_path / "own")
    assert names(tmp_path / "own") == ["a.png", "b.png"]
    assert {path.name for path in found.troubles} == {"gone.png", "folder", "loop.png"}
    assert "broken link to" in found.troubles[tmp_path / "own" / "folder"]


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert names(tmp_path) == ["a.png"]
    assert find_pictures(tmp_path).troubles == {tmp_path / "locked": "cannot be looked into (Permission denied)"}


def test_a_pipe_named_as_a_picture_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    found = find_pictures(tmp_path)
    assert not found.files and len(found.troubles) == 2
