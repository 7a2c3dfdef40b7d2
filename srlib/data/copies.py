"""Copies of one picture among many files: of equal content, saved twice under one name, or of equal LR pictures."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from srlib.data.manifest import METHOD, read_manifest
from srlib.data.pictures import read_picture
from srlib.files import digest, stamp

# What desktops and browsers add to the name of a second file: "a (1)", "a copy 2", "a - Copy", "a - Kopie".
_ADDED = re.compile(r"( \(\d+\)|[ _-]*(copy|kopie|copie|copia)( ?\(?\d+\)?)?)$")


def copies_among(folder: Path | str, names: Sequence[str]) -> list[list[str]]:
    """Groups of names, two or more each, that show one picture; all sorted. A name is in one group at most.

    Copies are files of equal content, whatever their names; and files of one name but for the suffix, or for "(1)",
    "copy" and the like, whose pictures also look alike: saved again in another format, quality or size. A picture saved
    again under another name is not found (copies_made finds some). Files that cannot be read are no copies.
    """
    folder = Path(folder)
    equal = [list(names)]
    for key in (_bytes, _middle, _checksum):  # the next, slower one only where the one before is equal
        equal = [same for group in equal for same in _grouped((n, _try(key, folder / n)) for n in group)]
    return united([*equal, *(pair for group in _called_alike(names) for pair in _alike(folder, group))])


def copies_made(data_dir: Path | str, folder: Path | str, names: Collection[str]) -> list[list[str]]:
    """Groups of names whose LR pictures, as pre-generated from `folder`, are equal: equal pixels in different files.

    Known by the manifest, without reading a picture; sources that have changed since are in no group. With degradations
    that are drawn for each picture there is nothing to find.
    """
    keyed = []
    for name, rows in read_manifest(data_dir).items():
        stamps = {(row["source_bytes"], row["source_mtime"]) for row in rows}
        if name in names and stamps == {_try(stamp, Path(folder) / name)}:
            made = (row for row in rows if row["method"] != METHOD and row["lr_checksum"] not in ("", "0"))
            keyed += [(name, tuple(r[c] for c in ("scale", "method", "settings", "lr_checksum"))) for r in made]
    return united(_grouped(keyed))


def united(groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """The groups, those that share a name as one; all sorted."""
    leader: dict[str, str] = {}
    for group in groups:
        for name in group:
            leader[_first(leader, name)] = _first(leader, group[0])
    return sorted(sorted(group) for group in _grouped((name, _first(leader, name)) for name in leader))


def _first(leader: Mapping[str, str], name: str) -> str:
    while leader.get(name, name) != name:
        name = leader[name]
    return name


def _grouped(keyed: Iterable[tuple[str, Hashable]]) -> list[list[str]]:
    """Names of equal keys, where there are several; None is no key."""
    groups = defaultdict(list)
    for name, key in keyed:
        if key is not None:
            groups[key].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _try(key: Callable[[Path], Hashable], path: Path) -> Hashable | None:
    try:
        return key(path)
    except OSError:  # whoever decodes the picture will say so
        return None


def _bytes(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(_bytes(path) // 2)
        return file.read(4096)


def _checksum(path: Path) -> str:
    return digest(path.read_bytes())


def _called_alike(names: Sequence[str]) -> list[list[str]]:
    """Names of one stem: in one folder, or with several suffixes (a.png in png/, a.jpg in jpg/).

    The 0001.png of many folders are frames of as many films, and are not looked at; nor is "a (1)" without an "a".
    """
    stems = {n: Path(n).stem.lower() for n in names}
    there = {(Path(n).parent, stem) for n, stem in stems.items()}
    short = {n: (Path(n).parent, _ADDED.sub("", stem)) for n, stem in stems.items()}
    beside = _grouped((n, short[n] if short[n] in there else (Path(n).parent, stems[n])) for n in names)
    apart = (group for group in _grouped(stems.items()) if len({Path(n).suffix.lower() for n in group}) > 1)
    return [*beside, *apart]


def _alike(folder: Path, names: Sequence[str]) -> list[list[str]]:
    """Pairs of names whose looks differ by at most 5 levels everywhere."""
    from scipy.spatial import cKDTree

    looks = {n: look for n in names if (look := _look(folder / n)) is not None}
    if len(looks) < 2:
        return []
    seen = list(looks)
    return [[seen[i], seen[j]] for i, j in sorted(cKDTree(np.stack([*looks.values()])).query_pairs(5, p=np.inf))]


def _look(path: Path) -> np.ndarray | None:
    """The picture as 8x8 means, in levels of 255, and its ratio of sides; None for one that cannot be read."""
    try:
        rgb = read_picture(path).rgb
    except (ValueError, OSError):
        return None
    small = cv2.resize(rgb.astype(np.float32) * (255 / np.iinfo(rgb.dtype).max), (8, 8), interpolation=cv2.INTER_AREA)
    return np.append(small.ravel(), 255 * rgb.shape[0] / rgb.shape[1])
