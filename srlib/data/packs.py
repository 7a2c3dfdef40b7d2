"""Packs: training patches in memory-mapped files, written by many processes at once, read without decoding.

packs/<scale>x_<patch>/ holds hr_0000.npy (N, p, p, 3), <method>_0000.npy (N, p/s, p/s, 3) and so on, index.csv (for
each patch a row: slot, source, y, x) and pack.json. A slot is the place of one patch, numbered through all files. Each
picture's slots are known before any is cut, so that processes write side by side and the files are the same whatever
their number. A dropped patch leaves its slot empty, which takes no space in a sparse file.
"""

import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from srlib.files import atomic, digest

DTYPES = ("uint8", "uint16", "float16", "float32")


@dataclass(frozen=True)
class PackSettings:
    """What patches are cut, and how they are stored.

    patch: side in HR pixels, lowered to a multiple of the scale. dtype: of DTYPES; a picture of another depth is
    converted. flat: drop patches whose luma has a standard deviation below so many levels of 255; blurred: likewise
    for the Laplacian of the luma; 0 keeps everything. shard: largest size of a file in bytes, about.
    Raises ValueError for an unknown dtype, a patch below 8 pixels or a negative threshold.
    """

    patch: int = 128
    dtype: str = "uint8"
    flat: float = 0.0
    blurred: float = 0.0
    shard: int = 2**30

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"packs of {self.dtype!r} are not made: choose one of {', '.join(DTYPES)}")
        if self.patch < 8 or min(self.flat, self.blurred) < 0:
            raise ValueError("a pack needs patches of at least 8 pixels, and thresholds that are not negative")


@dataclass(frozen=True)
class Shelf:
    """The files of a pack while workers put patches into them. Small, as it travels with every task.

    folder: where the files lie until the pack is finished; side: of an HR patch, in pixels; per_file: slots in a file;
    total: slots in all files.
    """

    folder: str
    scale: int
    side: int
    methods: tuple[str, ...]
    settings: PackSettings
    per_file: int
    total: int

    def put(self, slots: range, hr: np.ndarray, lrs: Mapping[str, np.ndarray]) -> dict:
        """Cut a picture into patches and write them to its slots. hr: (H, W, 3); lrs: method -> (H/s, W/s, 3).

        Returns {"kept": [[slot, y, x], ...], "flat": number dropped, "blurred": number dropped}. ValueError when the
        picture is not of the size that its slots were counted for.
        """
        settings, side, s = self.settings, self.side, self.scale
        corners = places(hr.shape[0], hr.shape[1], side)
        if len(corners) != len(slots):
            raise ValueError(f"a picture of {hr.shape[1]}x{hr.shape[0]} is not what its header said; run it again")
        kept: list[list[int]] = []
        flat = blurred = 0
        if settings.flat or settings.blurred:
            luma = hr.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) * (255 / _top(hr.dtype))
            edges = cv2.Laplacian(luma, cv2.CV_32F)
        for slot, (y, x) in zip(slots, corners, strict=True):
            box = (slice(y, y + side), slice(x, x + side))
            if settings.flat and luma[box].std() < settings.flat:
                flat += 1
            elif settings.blurred and edges[box].std() < settings.blurred:
                blurred += 1
            else:
                kept.append([slot, y, x])
        for name, array, factor in [("hr", hr, 1), *((m, lrs[m], s) for m in self.methods)]:
            self._write(name, _converted(array, self.settings.dtype), side // factor, factor, kept)
        return {"kept": kept, "flat": flat, "blurred": blurred}

    def _write(self, name: str, array: np.ndarray, side: int, factor: int, kept: list) -> None:
        """Write each patch to its bytes of its file and touch no others, so that processes may share a network disk."""
        size = side * side * 3 * array.itemsize
        files: dict[int, int] = {}
        try:
            for slot, y, x in kept:
                number, place = divmod(slot, self.per_file)
                if number not in files:
                    files[number] = os.open(f"{self.folder}/{name}_{number:04d}.npy", os.O_WRONLY)
                end = os.fstat(files[number]).st_size - (self._slots_in(number) - place) * size
                patch = array[y // factor : y // factor + side, x // factor : x // factor + side]
                os.pwrite(files[number], patch.tobytes(), end)
        finally:
            for file in files.values():
                os.close(file)

    def _slots_in(self, number: int) -> int:
        return min(self.per_file, self.total - number * self.per_file)

    def content(self, rows: Iterable[Mapping]) -> str:
        """Checksums, from a picture's rows of the manifest, of the files that its patches were cut out of."""
        used = [r for r in rows if r["scale"] == self.scale and r["method"] in self.methods]
        return " ".join(sorted(f"{r['method']} {r['source_checksum']} {r['lr_checksum']}" for r in used))

    def create(self) -> None:
        """Make the files at their full size, empty."""
        (Path(self.folder) / "plan").unlink(missing_ok=True)  # first, lest a half-removed folder pass for one to resume
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self.folder).mkdir(parents=True)
        sides = {"hr": self.side} | dict.fromkeys(self.methods, self.side // self.scale)
        for name, side in sides.items():
            for number in range(-(-self.total // self.per_file)):
                shape = (self._slots_in(number), side, side, 3)
                np.lib.format.open_memmap(f"{self.folder}/{name}_{number:04d}.npy", "w+", self.settings.dtype, shape)


@dataclass(frozen=True)
class PictureSlots:
    """The slots of one picture in a pack that is being filled. pack: its id, of Pack.begin."""

    pack: str
    shelf: Shelf
    slots: range

    def put(self, hr: np.ndarray, lrs: Mapping[str, np.ndarray], rows: Iterable[Mapping]) -> dict:
        """Shelf.put, and with what it returns the "content": Shelf.content of `rows`, the picture's of the manifest."""
        return self.shelf.put(self.slots, hr, lrs) | {"content": self.shelf.content(rows)}


class Pack:
    """A pack to be made: planned from the pictures' sizes alone, filled by workers, then finished.

    sizes: (H, W) of every training picture, cropped as its LR pictures are. marks: for every picture what changes when
    it is replaced, known without reading it (file size, settings). The footprint is a checksum of all of these.
    `done`: the folder holds a finished pack of this footprint. `outdated`, asked after a pass: the pictures have
    changed since. If not done: `begin`, let `picture_slots` be filled, `finish`.
    Raises ValueError when no picture is readable or large enough.
    """

    def __init__(
        self,
        data_dir: Path,
        sizes: Mapping[str, tuple[int, int]],
        *,
        scale: int,
        methods: Sequence[str],
        settings: PackSettings,
        marks: Mapping[str, object],
    ):
        side = settings.patch - settings.patch % scale
        self.folder = data_dir / "packs" / f"{scale}x_{settings.patch}"
        self.names = sorted(sizes)
        counts = [len(places(*sizes[n], side)) for n in self.names]
        ends = np.cumsum([0, *counts]).tolist()
        self.slots = {n: range(a, b) for n, a, b in zip(self.names, ends[:-1], ends[1:], strict=True)}
        self.small = [n for n, count in zip(self.names, counts, strict=True) if not count]
        per_file = max(1, settings.shard // (side * side * 3 * np.dtype(settings.dtype).itemsize))
        part = self.folder.with_name(f".{self.folder.name}.part")  # renamed by `finish`
        methods = tuple(sorted(methods))
        self.shelf = Shelf(str(part), scale, side, methods, settings, per_file, sum(counts))
        if not sizes:
            raise ValueError("none of the training pictures can be read: see whether they are whole")
        if not self.shelf.total:
            raise ValueError(
                f"no training picture is as large as a patch of {side} pixels: lower patch_sizes in 01_data"
            )
        self.footprint = digest(
            [repr(replace(self.shelf, folder="")), *(f"{n} {sizes[n]} {marks[n]}" for n in self.names)]
        )

    @property
    def done(self) -> bool:
        """Whether the folder holds a finished pack of this footprint."""
        return self.facts().get("footprint") == self.footprint

    def facts(self) -> dict:
        """pack.json of what is in the folder now; {} when there is none."""
        return read_pack(self.folder)

    def begin(self, overwrite: bool = False) -> str:
        """Make the empty files, unless a killed run of the same footprint left them to be resumed. Returns their id.

        overwrite: resume only a run that was told to overwrite, too. The journal lists patches under the id, so that
        what it says of files that have been removed does not count for new ones.
        """
        plan = Path(self.shelf.folder) / "plan"
        start = f"{self.footprint} overwrite" if overwrite else self.footprint
        if plan.is_file() and (id_ := plan.read_text()).startswith(start):
            return id_
        self.shelf.create()
        id_ = f"{start} {uuid.uuid4().hex}"
        with atomic(plan) as temporary:
            temporary.write_text(id_)
        return id_

    def picture_slots(self, id_: str, name: str) -> PictureSlots:
        """What a worker needs to put the patches of a picture. KeyError when the picture is not for this pack."""
        return PictureSlots(id_, self.shelf, self.slots[name])

    def outdated(self, facts: Mapping, failed: Collection[str], rows: Mapping[str, Iterable[Mapping]]) -> bool:
        """Whether pictures have changed, or become readable or unreadable, since the finished pack was cut.

        facts: of that pack; failed: pictures that cannot be read; rows: the manifest's, by picture.
        """
        left_out = facts.get("left_out", ())
        if any((name in left_out) != (name in failed) for name, slots in self.slots.items() if slots):
            return True
        return facts["key"] != self._key({n: self.shelf.content(rows.get(n, ())) for n in self.names})

    def _key(self, contents: Mapping[str, str]) -> str:
        """Checksum of what is in the pack: the same in a copied folder, whatever its files' times."""
        return digest([self.footprint, *(f"{n} {contents.get(n, '')}" for n in self.names if self.slots[n])])

    def invalidate(self) -> None:
        """Mark the finished pack as out of date, so that the next run cuts it again."""
        (self.folder / "pack.json").unlink(missing_ok=True)

    def finish(self, put: Mapping[str, dict]) -> dict:
        """Write index.csv and pack.json and rename the folder, in place of an older pack. Returns pack.json's content.

        put: by picture, what PictureSlots.put returned. ValueError when every patch was dropped.
        """
        rows = [(slot, name, y, x) for name in self.names for slot, y, x in put.get(name, {}).get("kept", [])]
        if not rows:
            raise ValueError(f"no patch is left of {self.shelf.total}: lower flat or blurred in 01_data")
        folder, shelf = Path(self.shelf.folder), self.shelf
        pd.DataFrame(rows, columns=["slot", "source", "y", "x"]).to_csv(folder / "index.csv", index=False)
        facts = {
            "footprint": self.footprint,
            "key": self._key({name: p["content"] for name, p in put.items()}),
            "scale": shelf.scale,
            "patch": shelf.side,
            "dtype": shelf.settings.dtype,
            "patches": len(rows),
            "dropped_flat": sum(p["flat"] for p in put.values()),
            "dropped_blurred": sum(p["blurred"] for p in put.values()),
            "methods": list(shelf.methods),
            "too_small": self.small,
            "left_out": [n for n in self.names if self.slots[n] and n not in put],
        }
        (folder / "pack.json").write_text(json.dumps(facts, indent=2) + "\n")
        (folder / "plan").unlink()
        self.invalidate()  # first, lest a half-removed folder pass for a finished pack
        shutil.rmtree(self.folder, ignore_errors=True)
        folder.rename(self.folder)
        return facts


def read_pack(folder: Path | str) -> dict:
    """The content of pack.json; {} when there is none, or the pack is out of date."""
    path = Path(folder) / "pack.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def open_shards(folder: Path, name: str) -> list[np.ndarray]:
    """The memory-mapped files of one array, in order."""
    # plain views: slicing an np.memmap costs microseconds more
    return [np.load(path, mmap_mode="r").view(np.ndarray) for path in sorted(Path(folder).glob(f"{name}_[0-9]*.npy"))]


def places(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """(y, x) of the patches of a picture, row by row; the last ones lie flush with the border."""
    return [(y, x) for y in _starts(height, side) for x in _starts(width, side)]


def _starts(size: int, side: int) -> list[int]:
    return sorted({*range(0, size - side + 1, side), size - side}) if size >= side else []


def _top(dtype: np.dtype) -> float:
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0


def _converted(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in another dtype: integers in their full range, floats in [0, 1]."""
    if array.dtype == dtype:
        return array
    values = array.astype(np.float64) / _top(array.dtype) * _top(np.dtype(dtype))
    if dtype.startswith("float"):
        return values.astype(dtype)
    return np.floor(values.clip(0, _top(np.dtype(dtype))) + 0.5).astype(dtype)
