"""Which picture files a folder holds: hidden folders are left alone, linked ones followed once, the rest is named."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What JupyterLab, desktops, NAS boxes and archives leave beside pictures, apart from names that begin with a dot.
_NOT_THE_USERS = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"}


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    files: paths below the folder as it was given, sorted; left_alone: a sentence for each hidden or linked folder whose
    pictures are not among them; troubles: path -> why it could not be looked into or followed.
    """

    files: list[Path] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    troubles: dict[Path, str] = field(default_factory=dict)


def find_pictures(folder: Path | str, suffixes: Sequence[str] = (), output: Path | str | None = None) -> Listing:
    """The files with one of `suffixes`, in lower or upper case, in `folder` and its subfolders; without suffixes those
    that read_picture knows.

    Names that begin with a dot and the folders of desktops and archives are left alone, with all below. Linked folders
    are followed after the real ones, each folder is read once, and a link to a folder above is not followed.
    output: a folder that is not looked into, wherever a link leads to it, with all below.
    """
    if not suffixes:
        from srlib.data.pictures import SUFFIXES  # imported here: PyTorch takes a second, and make lists pictures, too

        suffixes = SUFFIXES
    return _Walk(Path(folder), tuple(suffixes), None if output is None else Path(output)).listing()


class _Walk:
    def __init__(self, root: Path, suffixes: tuple[str, ...], output: Path | None):
        self.root, self.suffixes, self.found = root, suffixes, Listing()
        self.links: list[Path] = []
        self.read: set[tuple[int, int]] = set()  # device and inode of every folder
        self.output = output.resolve() if output else None
        self.above = {_identity(os.stat(p)) for p in root.resolve().parents}

    def listing(self) -> Listing:
        self._walk(self.root)
        while self.links:
            self._follow(self.links.pop(0))
        self.found.files.sort(key=lambda path: path.relative_to(self.root).as_posix())
        return self.found

    def _walk(self, folder: Path) -> None:
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            try:
                identity = _identity(os.stat(folder))
                if identity in self.read:
                    continue
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self.found.troubles[folder] = f"cannot be looked into ({error.strerror})"
                continue
            if self.output and folder.resolve().is_relative_to(self.output):
                self.found.left_alone.append(f"{folder}: the output, or a folder in it")
                continue
            self.read.add(identity)
            for entry in entries:
                path = folder / entry.name
                if _hidden(entry.name):
                    self._leave_alone(path)
                elif entry.is_symlink():
                    self._linked(path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif path.suffix.lower() in self.suffixes:
                    self._file(path, entry.is_file(follow_symlinks=False))

    def _linked(self, path: Path) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            if path.suffix.lower() in ("", *self.suffixes):  # of a picture, or it may have been of a folder
                self.found.troubles[path] = f"is a broken link to {os.readlink(path)}"
            return
        if stat.S_ISDIR(mode):
            self.links.append(path)
        elif path.suffix.lower() in self.suffixes:
            self._file(path, stat.S_ISREG(mode))

    def _file(self, path: Path, regular: bool) -> None:
        if regular:
            self.found.files.append(path)
        else:
            self.found.troubles[path] = "is a pipe, socket or device, not a file"

    def _follow(self, link: Path) -> None:
        identity = _identity(os.stat(link))
        if identity in self.read:
            self.found.left_alone.append(f"{link}: a link to a folder that is read already")
        elif identity in self.above:
            self.found.left_alone.append(f"{link}: a link to a folder above")
        else:
            self._walk(link)

    def _leave_alone(self, path: Path) -> None:
        """Count what a hidden folder holds; other hidden files, such as `._a.png` of a Mac, are nobody's pictures."""
        if path.is_symlink() or not path.is_dir():
            return
        files = (name for _, _, names in os.walk(path) for name in names)
        count = sum(Path(name).suffix.lower() in self.suffixes for name in files)
        if count:
            self.found.left_alone.append(f"{path}: {count} picture{'s' * (count > 1)} in a hidden folder")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_THE_USERS


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
