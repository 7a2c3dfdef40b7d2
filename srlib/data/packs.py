"""Packed training patches: shards to memory-map, written by many processes at once, read without decoding.

packs/<scale>x_<patch>/ holds hr_0000.npy (N, p, p, 3), <method>_0000.npy (N, p/s, p/s, 3) and so on, index.csv (a row
a patch: slot, source, y, x) and pack.json. Every picture has its slots before any is cut: whoever cuts it writes
there, so that the files are the same whatever the number of processes. A dropped patch leaves its slot empty,
which in a sparse file takes no room.
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
    """What is cut. patch: HR pixels, lowered to a multiple of the scale. dtype: of DTYPES; a picture of another
    depth is converted. flat: drop patches whose luma deviates by less than so many levels of 255 (standard
    deviation); blurred: drop those whose Laplacian does. 0 keeps everything.
    shard: bytes of a file at most, about.
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
    """Where a worker puts patches: the folder being filled and the shape of its files. Small: it travels with every
    task. per_file: slots a file. total: slots in all.
    """

    folder: str
    scale: int
    side: int
    methods: tuple[str, ...]
    settings: PackSettings
    per_file: int
    total: int

    def put(self, slots: range, hr: np.ndarray, lrs: Mapping[str, np.ndarray]) -> dict:
        """Cut a picture into its slots. hr: (H, W, 3); lrs: method -> (H/s, W/s, 3).

        Returns {"kept": [[slot, y, x], ...], "flat": dropped, "blurred": dropped}. ValueError when the picture is
        not of the size that its slots were counted for.
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
        """Patch by patch at its place in its file: nobody else's bytes are touched, on a network's disk either."""
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
        """What a picture's patches were cut out of: checksums, from its rows of the manifest."""
        used = [r for r in rows if r["scale"] == self.scale and r["method"] in self.methods]
        return " ".join(sorted(f"{r['method']} {r['source_checksum']} {r['lr_checksum']}" for r in used))

    def create(self) -> None:
        """Make the files at their full size, with nothing in them."""
        (Path(self.folder) / "plan").unlink(missing_ok=True)  # first: what is half removed must not pass for begun
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self.folder).mkdir(parents=True)
        sides = {"hr": self.side} | dict.fromkeys(self.methods, self.side // self.scale)
        for name, side in sides.items():
            for number in range(-(-self.total // self.per_file)):
                shape = (self._slots_in(number), side, side, 3)
                np.lib.format.open_memmap(f"{self.folder}/{name}_{number:04d}.npy", "w+", self.settings.dtype, shape)


class Pack:
    """A pack in the making: planned before the pictures are read, finished when all have been put.

    sizes: (H, W) of every training picture, cropped as its LR pictures are; marks: what else tells, unread, that a
    picture is another one. `done` when the folder holds a pack of this footprint, whose content the checksums of
    the pass are still to confirm (`differs`); otherwise fill the slots, then `finish`.
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
        part = self.folder.with_name(f".{self.folder.name}.part")  # the folder appears whole or not at all
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
        """Make the empty files, unless an interrupted run of the same footprint left them. Returns the files' own name.
        With `overwrite` that run must have been one to overwrite as well.

        What the journal knows of patches goes by that name: files made anew hold nothing of what it says of others.
        """
        plan = Path(self.shelf.folder) / "plan"
        start = f"{self.footprint} overwrite" if overwrite else self.footprint
        if plan.is_file() and (name := plan.read_text()).startswith(start):
            return name
        self.shelf.create()
        name = f"{start} {uuid.uuid4().hex}"
        with atomic(plan) as temporary:
            temporary.write_text(name)
        return name

    def differs(self, facts: Mapping, failed: Collection[str], rows: Mapping[str, Iterable[Mapping]]) -> bool:
        """Whether the finished pack is not of the pictures as they are: some have changed, or others cannot be read.

        rows: the manifest's, by picture.
        """
        left_out = facts.get("left_out", ())
        if any((name in left_out) != (name in failed) for name, slots in self.slots.items() if slots):
            return True
        return facts["key"] != self._key({n: self.shelf.content(rows.get(n, ())) for n in self.names})

    def _key(self, contents: Mapping[str, str]) -> str:
        """Names the pack by what is in it: the same in a copied folder, whatever its files' times."""
        return digest([self.footprint, *(f"{n} {contents.get(n, '')}" for n in self.names if self.slots[n])])

    def spoil(self) -> None:
        """Make the next run cut it anew."""
        (self.folder / "pack.json").unlink(missing_ok=True)

    def finish(self, put: Mapping[str, dict]) -> dict:
        """Write index and facts and let the folder appear.

        put: by picture, what `Shelf.put` returned and its "content", Shelf.content then.
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
        self.spoil()  # first: what is half removed must not pass for whole
        shutil.rmtree(self.folder, ignore_errors=True)
        folder.rename(self.folder)
        return facts


def read_pack(folder: Path | str) -> dict:
    """The content of pack.json; {} when there is none."""
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
    """Levels of one type as levels of another; floats are in [0, 1]."""
    if array.dtype == dtype:
        return array
    values = array.astype(np.float64) / _top(array.dtype) * _top(np.dtype(dtype))
    if dtype.startswith("float"):
        return values.astype(dtype)
    return np.floor(values.clip(0, _top(np.dtype(dtype))) + 0.5).astype(dtype)
