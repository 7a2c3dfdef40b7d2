"""Copies of one picture among many files: of equal content, or saved twice under one name."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from srlib.data.pictures import read_picture
from srlib.files import digest

# What desktops and browsers add to the name of a second file: "a (1)", "a copy 2", "a - Copy", "a - Kopie".
_ADDED = re.compile(r"( \(\d+\)|[ _-]*(copy|kopie|copie|copia)( ?\(?\d+\)?)?)$")


def copies_among(folder: Path | str, names: Sequence[str]) -> list[list[str]]:
    """Groups of names, two or more each, that show one picture; all sorted. A name is in one group at most.

    Copies are files of equal content, whatever their names; and files of one name but for the suffix, or for "(1)",
    "copy" and the like, whose pictures also look alike: saved again in another format, quality or size. A picture saved
    again under another name is not found.
    """
    folder = Path(folder)
    leader = {name: name for name in names}

    def joined(groups: Iterable[Sequence[str]]) -> None:
        for group in groups:
            for name in group[1:]:
                leader[_first(leader, name)] = _first(leader, group[0])

    same_size = _grouped((n, (folder / n).stat().st_size) for n in names if (folder / n).is_file())
    joined(_grouped((n, digest((folder / n).read_bytes())) for group in same_size for n in group))
    for group in _called_alike(names):
        looks = {n: look for n in group if (look := _look(folder / n)) is not None}
        joined(_alike(looks))
    return sorted(sorted(group) for group in _grouped((n, _first(leader, n)) for n in names))


def _first(leader: Mapping[str, str], name: str) -> str:
    while leader[name] != name:
        name = leader[name]
    return name


def _grouped(keyed: Iterable[tuple[str, Hashable]]) -> list[list[str]]:
    groups = defaultdict(list)
    for name, key in keyed:
        groups[key].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _called_alike(names: Sequence[str]) -> list[list[str]]:
    """Names of one stem: in one folder, or with several suffixes (a.png in png/, a.jpg in jpg/).

    The 0001.png of many folders are frames of as many films, and are not looked at.
    """
    stems = {n: _ADDED.sub("", Path(n).stem.lower()) for n in names}
    beside = _grouped((n, (Path(n).parent, stems[n])) for n in names)
    apart = (group for group in _grouped(stems.items()) if len({Path(n).suffix.lower() for n in group}) > 1)
    return [*beside, *apart]


def _look(path: Path) -> np.ndarray | None:
    """The picture as 8x8 means, in levels of 255, and its ratio of sides; None for one that cannot be read."""
    try:
        rgb = read_picture(path).rgb
    except (ValueError, OSError):
        return None
    small = cv2.resize(rgb.astype(np.float32) * (255 / np.iinfo(rgb.dtype).max), (8, 8), interpolation=cv2.INTER_AREA)
    return np.append(small.ravel(), 255 * rgb.shape[0] / rgb.shape[1])


def _alike(looks: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Names whose looks differ by less than 5 levels everywhere."""
    groups: list[list[str]] = []
    for name, look in looks.items():
        for group in groups:
            if np.abs(looks[group[0]] - look).max() < 5:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups
