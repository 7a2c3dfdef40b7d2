"""Where pictures come from: the embedded set, folders, samples; and their split into training, validation and test."""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from srlib.data.copies import united
from srlib.data.drawings import draw
from srlib.data.listing import find_pictures
from srlib.data.pictures import SUFFIXES, page_count, write_png
from srlib.files import atomic, printable

# Photographs inside the scikit-image package, without motorcycle_right, which shows what motorcycle_left shows.
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
    """Write the embedded set into `folder`: photos/ of scikit-image, and `drawings` pieces of line art in drawings/.

    Nothing is downloaded; files that are there already are kept, but for those of earlier calls that are not asked for
    now (made_of).
    """
    import skimage.data

    folder = Path(folder)
    drawn = [f"drawings/drawing_{number:02d}.png" for number in range(drawings)]
    made_of(folder, dict.fromkeys([*(f"photos/{name}" for name in _PHOTOGRAPHS), *drawn], "embedded"))
    source = Path(skimage.data.__file__).parent
    for name in _PHOTOGRAPHS:
        target = folder / "photos" / name
        content = (source / name).read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            with atomic(target) as temporary:
                temporary.write_bytes(content)
    for number, name in enumerate(drawn):
        if not (folder / name).is_file():
            write_png(folder / name, draw(number))


def made_of(folder: Path, files: Mapping[str, str]) -> None:
    """Note in `folder`, before they are made, what its files are made of: {path in it: of what}. Of those noted earlier
    the ones that are made of something else now, or no more, are removed: they would be used with the others, and a
    picture could be learned from and held out at once.
    """
    note = folder / ".made_of.json"
    try:
        before = json.loads(note.read_text())
    except (OSError, ValueError):
        before = {}
    for path, what in before.items():
        if files.get(path) != what:
            (folder / path).unlink(missing_ok=True)
    if before != files:
        with atomic(note) as temporary:
            temporary.write_text(json.dumps(files, indent=0))


@dataclass(frozen=True)
class Found:
    """The pictures of a folder by name, and what is not among them.

    names: paths relative to the folder, sorted; left_out: name -> a sentence that says why it cannot be used;
    left_alone: a sentence for each hidden or linked folder that was not looked into. All can be printed.
    """

    names: list[str]
    left_out: dict[str, str]
    left_alone: list[str]


def pictures_in(folder: Path | str, output: Path | str | None = None) -> Found:
    """What listing.find_pictures finds; names that no table can hold are left out (unusable_name). output: as there.

    Raises FileNotFoundError when there is no folder or no picture that can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds the HR pictures")
    listing = find_pictures(folder, output=output)
    left_out = {printable(p.relative_to(folder).as_posix()): printable(f"{p} {t}") for p, t in listing.troubles.items()}
    names = []
    for name in (path.relative_to(folder).as_posix() for path in listing.files):
        if why := unusable_name(name):
            left_out[printable(name)] = why
        else:
            names.append(name)
    if not names:
        why = "".join(f"; {sentence}" for sentence in [*left_out.values(), *listing.left_alone][:3])
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}){why}")
    return Found(names, left_out, [printable(sentence) for sentence in listing.left_alone])


def unusable_name(name: str) -> str:
    """Why a picture of this name, a path, cannot be used, in a sentence that can be printed; "" for all others.

    Bytes that are no UTF-8, line breaks and other control characters are no text that a table can hold.
    """
    if printable(name) != name:
        return f"{printable(name)}: its name is no valid text: rename it"
    if len(Path(name).name.encode()) > 220:  # temporary files add a few letters, systems take 255
        return f"{name} has too long a name: rename it"
    return ""


def later_pages(folder: Path | str, names: Iterable[str]) -> list[str]:
    """A sentence for each picture with several pages or frames: those after the first are not used."""
    found = []
    for path in (Path(folder) / name for name in names):
        with suppress(ValueError, OSError):  # whoever decodes it says what is wrong
            if (count := page_count(path)) > 1:
                found.append(printable(f"{path}: {count - 1} of its {count} pages or frames, all but the first"))
    return found


def sampled(names: Sequence[str], share: float, seed: int = 0) -> list[str]:
    """A share (0-1) of the names, at least one: those with the smallest hash, the same for the same seed."""
    if not 0 < share <= 1:
        raise ValueError(f"sample {share} is no share of the pictures: give more than 0 and at most 1")
    ranked = sorted(names, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    return sorted(ranked[: max(1, round(share * len(names)))])


def split_pictures(
    names: Sequence[str],
    *,
    validation: float | Sequence[str],
    test: float | Sequence[str],
    copies: Sequence[Sequence[str]] = (),
    seed: int = 0,
) -> dict[str, str]:
    """Split by picture: {name: "train", "validation" or "test"}, whatever the order of `names`.

    validation, test: names (with or without suffix), or a share (0-1), which gets at least one picture; copies: groups
    of names that show one picture (copies.copies_among), which stay in one part.
    Raises ValueError for an unknown name, a picture in both parts, or when nothing is left to train on.
    """
    stems = Counter(Path(n).with_suffix("").as_posix() for n in names)
    by_stem = {Path(n).with_suffix("").as_posix(): n for n in names} | {n: n for n in names}
    split = dict.fromkeys(sorted(names), "train")
    shows = {name: tuple(group) for group in united(copies) for name in group}  # with its copies
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
            for copy in shows.get(by_stem[name], (by_stem[name],)):
                if split[copy] not in ("train", part):
                    what = name if copy == by_stem[name] else f"{name}, a copy of {copy},"
                    raise ValueError(f"{what} is named for validation and for test: choose one")
                split[copy] = part
    free = list(dict.fromkeys(shows.get(n, (n,)) for n, part in split.items() if part == "train"))
    free.sort(key=lambda group: hashlib.sha256(f"split/{seed}/{group[0]}".encode()).digest())
    for part, wanted in (("validation", validation), ("test", test)):
        if isinstance(wanted, int | float) and wanted > 0:
            missing = max(1, round(wanted * len(names)))
            taken: list[str] = []
            while (group := next((g for g in free if len(g) <= missing), None)) is not None:
                free.remove(group)
                taken += group
                missing -= len(group)
            if not taken and free:  # all that is left are more copies of one picture than are wanted
                free.remove(group := min(free, key=len))
                taken += group
            split |= dict.fromkeys(taken, part)
    if not free:
        raise ValueError(
            f"{len(names)} pictures leave none to train on: name fewer for validation and test, or add some"
        )
    return split


def embedded_split(names: Sequence[str], fraction: float) -> dict[str, list[str] | float]:
    """validation and test for split_pictures: those of EMBEDDED_SPLIT that are among `names`, a sample for one.

    A part with none of them gets the share `fraction`.
    """
    stems = {Path(n).with_suffix("").as_posix() for n in names}
    return {part: [n for n in wanted if n in stems] or fraction for part, wanted in EMBEDDED_SPLIT.items()}


def need_parts(split: Mapping[str, str]) -> None:
    """ValueError when a part of the split has no picture."""
    for part in ("train", "validation", "test"):
        if part not in split.values():
            raise ValueError(f"no {part} picture is left: name some that can be read, or raise `fraction`")
