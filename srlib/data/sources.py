"""Where pictures come from: the embedded set, folders, samples, the split by picture, and data.json."""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import skimage.data

from srlib.data.drawings import draw
from srlib.data.pictures import SUFFIXES, write_png
from srlib.files import atomic

# Photographs inside the scikit-image package; motorcycle_right shows what motorcycle_left shows, so it is out.
_PHOTOGRAPHS = [
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
]
EMBEDDED_SPLIT = {
    "validation": ["photos/chelsea", "photos/moon", "drawings/drawing_05"],
    "test": ["photos/coffee", "photos/rocket", "photos/camera", "drawings/drawing_06", "drawings/drawing_07"],
}


def embedded_pictures(folder: Path | str, drawings: int = 8) -> None:
    """Fill `folder` with photos/ (from scikit-image, nothing is downloaded) and drawings/; kept when there."""
    folder = Path(folder)
    source = Path(skimage.data.__file__).parent
    for name in _PHOTOGRAPHS:
        target = folder / "photos" / name
        content = (source / name).read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            with atomic(target) as temporary:
                temporary.write_bytes(content)
    for number in range(drawings):
        target = folder / "drawings" / f"drawing_{number:02d}.png"
        if not target.is_file():
            write_png(target, draw(number))


def list_pictures(folder: Path | str) -> list[str]:
    """Paths of the pictures below `folder`, relative to it, sorted. FileNotFoundError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds the HR pictures")
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    names = sorted(p.relative_to(folder).as_posix() for p in found if p.is_file())
    for name in names:
        if name.encode("utf-8", "replace") != name.encode("utf-8", "surrogateescape"):
            raise ValueError(f"{name.encode('utf-8', 'surrogateescape')!r} in {folder} is no valid text: rename it")
        if len(Path(name).name.encode()) > 220:  # temporary files add a few letters, systems take 255
            raise ValueError(f"{name} has too long a name: rename it")
    if not names:
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return names


def sampled(names: Sequence[str], share: float, seed: int = 0) -> list[str]:
    """The share (0-1) of the names with the smallest hash: the same ones each time, at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"sample {share} is no share of the pictures: give more than 0 and at most 1")
    ranked = sorted(names, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    return sorted(ranked[: max(1, round(share * len(names)))])


def split_pictures(
    names: Sequence[str],
    *,
    validation: float | Sequence[str],
    test: float | Sequence[str],
    seed: int = 0,
) -> dict[str, str]:
    """{name: "train", "validation" or "test"}, by picture. validation, test: names (with or without suffix),
    or a share, which gets at least one picture. Independent of the order of `names`.
    Raises ValueError for an unknown name, a name in both parts, or when nothing is left to train on.
    """
    stems = Counter(Path(n).with_suffix("").as_posix() for n in names)
    by_stem = {Path(n).with_suffix("").as_posix(): n for n in names} | {n: n for n in names}
    split = dict.fromkeys(sorted(names), "train")
    for part, wanted in (("validation", validation), ("test", test)):
        if isinstance(wanted, int | float):
            continue
        for name in wanted:
            if name not in by_stem:
                near = difflib.get_close_matches(name, by_stem, 2)
                raise ValueError(
                    f"{part} picture {name!r} is not there" + (f"; near: {', '.join(near)}" if near else "")
                )
            if name not in split and stems[name] > 1:
                raise ValueError(f"{part} picture {name!r} is there with {stems[name]} suffixes: give the suffix too")
            if split[by_stem[name]] != "train":
                raise ValueError(f"{name} is named for validation and for test: choose one")
            split[by_stem[name]] = part
    free = [n for n, part in split.items() if part == "train"]
    free.sort(key=lambda n: hashlib.sha256(f"split/{seed}/{n}".encode()).digest())
    for part, wanted in (("validation", validation), ("test", test)):
        if isinstance(wanted, int | float) and wanted > 0:
            count = max(1, round(wanted * len(names)))
            for name in free[:count]:
                split[name] = part
            free = free[count:]
    if not free:
        raise ValueError(
            f"{len(names)} pictures leave none to train on: name fewer for validation and test, or add some"
        )
    return split


def embedded_split(names: Sequence[str], fraction: float) -> dict[str, list[str] | float]:
    """EMBEDDED_SPLIT as far as its pictures are among `names` (a sample, say); a share where none of a part is."""
    stems = {Path(n).with_suffix("").as_posix() for n in names}
    return {part: [n for n in wanted if n in stems] or fraction for part, wanted in EMBEDDED_SPLIT.items()}


def need_parts(split: Mapping[str, str]) -> None:
    """ValueError when no picture is left of a part of the split."""
    for part in ("train", "validation", "test"):
        if part not in split.values():
            raise ValueError(f"no {part} picture is left: name some that can be read, or raise `fraction`")


def write_description(
    data_dir: Path | str,
    *,
    hr_root: Path | str,
    split: Mapping[str, str],
    scales: Sequence[int],
    methods: Sequence[str],
    size: int | None = None,
    degradation: Mapping | None = None,
    online: bool = False,
    also: Mapping[str, float] | None = None,
) -> None:
    """data.json: what the later notebooks need to know, so that nobody tells them twice.

    hr_root: the pictures' folder; a relative one is relative to data_dir, and may be moved or copied with it.
    online: patches are downscaled while training, there are no packs; also: other data folders, relative to this one,
    that training draws from too, with their weights against this one's 1.
    """
    content = {
        "hr_root": str(hr_root),
        "scales": list(scales),
        "methods": list(methods),
        "size": size,
        "degradation": dict(degradation or {}),
        "online": online,
        "also": dict(also or {}),
        "split": dict(split),
    }
    with atomic(Path(data_dir) / "data.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_description(data_dir: Path | str) -> dict:
    """The content of data.json, hr_root in full. FileNotFoundError, naming the notebook to run, when there is none."""
    path = Path(data_dir) / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run notebooks/01_data.ipynb first, with the same `run`")
    content = json.loads(path.read_text())
    if "also" not in content:
        raise ValueError(f"{path} is of an earlier version: run notebooks/01_data.ipynb again")
    return content | {"hr_root": str((path.parent / content["hr_root"]).resolve())}
