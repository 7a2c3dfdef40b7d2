"""manifest.csv, a row for each pair, and the journal by which a killed run resumes."""

import json
import os
import shutil
import socket
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pandas as pd

from srlib.data.parallel import in_parallel
from srlib.files import atomic, digest

METHOD = "input"  # in place of a kernel's name: a given pair, whose LR picture lies with the HR one
COLUMNS = ["source", "lr", "scale", "method", "hr_top", "hr_left", "hr_height", "hr_width", "lr_height", "lr_width"]
COLUMNS += ["source_bytes", "source_mtime", "source_checksum", "lr_bytes", "lr_checksum"]
COLUMNS += ["upscaled_bytes", "upscaled_checksum", "settings"]


class Journal:
    """What is known of every picture: the manifest of earlier runs and a line for each picture finished since.

    Each process appends a line to its own file in manifest.journal/ (`record`) as soon as a picture is done, so that
    a killed run loses no finished picture. `close` writes all of it to manifest.csv.
    rows: source -> its rows. patches: a pack's id (Pack.begin) -> picture -> what PictureSlots.put returned.
    """

    def __init__(self, output: Path):
        self.output, self.folder = output, output / "manifest.journal"
        self.rows: dict[str, list[dict]] = read_manifest(output)
        self.patches: dict[str, dict] = defaultdict(dict)
        if self.folder.is_dir():  # an earlier run was killed
            for half in (*output.glob(".*.part.*"), *output.glob("scale_*/**/.*.part.*")):
                half.unlink(missing_ok=True)
            self._gather()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _gather(self) -> None:
        """Take every complete line, those of earlier runs first, and write them all into one file."""
        gathered = self.folder / "0"
        others = sorted(p for p in self.folder.iterdir() if p != gathered)
        lines = []
        for path in ([gathered] if gathered.is_file() else []) + others:
            for line in path.read_bytes().split(b"\n")[:-1]:  # without the one that was being written
                with suppress(ValueError):  # zeros, after a power failure: that picture is made again
                    self.add(**json.loads(line))
                    lines.append(line + b"\n")
        with atomic(gathered) as temporary:
            temporary.write_bytes(b"".join(lines))
        for path in others:
            path.unlink(missing_ok=True)

    def add(self, name: str, rows: list[dict], patches: dict[str, dict]) -> None:
        """Take what was made of a picture: its rows, and its patches in each pack (pack id -> PictureSlots.put's)."""
        self.rows[name] = rows
        for pack, put in patches.items():
            self.patches[pack][name] = put

    def close(self, sources: set[str], key: str | None) -> pd.DataFrame:
        """Write manifest.csv and remove the journal.

        sources: the pictures that exist; key: that of the settings, or None for rows of any settings. Rows of other
        pictures and of other settings are dropped.
        """
        rows = [r for name, rows in self.rows.items() if name in sources for r in rows if key in (None, r["settings"])]
        manifest = write_manifest(self.output, rows)
        shutil.rmtree(self.folder)
        return manifest


def record(output: Path, name: str, rows: list[dict], patches: dict[str, dict]) -> None:
    """Append what was made of a picture, as in Journal.add, to this process's file of the journal."""
    line = json.dumps({"name": name, "rows": rows, "patches": patches}) + "\n"
    with open(output / "manifest.journal" / f"{socket.gethostname()}-{os.getpid()}", "ab") as file:
        file.write(line.encode())


def write_manifest(output: Path, rows: list[dict]) -> pd.DataFrame:
    """Write manifest.csv, sorted by source, scale and method; atomic."""
    manifest = pd.DataFrame(rows, columns=COLUMNS).sort_values(["source", "scale", "method"], ignore_index=True)
    with atomic(output / "manifest.csv") as temporary:
        manifest.to_csv(temporary, index=False)
    return manifest


def read_manifest(output: Path | str) -> dict[str, list[dict]]:
    """source -> its rows of manifest.csv; {} where there is none, or one with other columns, of an earlier version."""
    path = Path(output) / "manifest.csv"
    if not path.is_file() or not path.stat().st_size:
        return {}
    text = dict.fromkeys(("source", "lr", "source_checksum", "lr_checksum", "upscaled_checksum", "settings"), str)
    manifest = pd.read_csv(path, dtype=text, keep_default_na=False)  # or 16 digits become a number, "NA.png" nothing
    if list(manifest.columns) != COLUMNS:
        return {}
    return {str(name): rows.to_dict("records") for name, rows in manifest.groupby("source")}


def verify(input: Path | str, output: Path | str, *, jobs: int = 1, progress: bool = True) -> list[str]:
    """Compare the checksum of every file of a data folder with the manifest's; returns a sentence for each difference.

    Checks LR pictures, their upscaled copies and the sources in `input`, not the packs; of pictures whose LR pictures
    are made while training, the sources' sizes.
    Raises FileNotFoundError when there is no manifest.
    """
    input, output = Path(input), Path(output)
    rows = read_manifest(output)
    if not rows:
        raise FileNotFoundError(f"no {output / 'manifest.csv'}: pre-generate first")
    tasks = [(input, output, name, rows[name]) for name in sorted(rows)]
    complaints = sorted(c for found in in_parallel(_complaints, tasks, jobs, "verify", progress) for c in found)
    known = {r["lr"] for of in rows.values() for r in of}
    known |= {upscaled_path(r["lr"]) for of in rows.values() for r in of if r["upscaled_bytes"]}
    for path in sorted(output.glob("scale_*/**/*.png")):
        if (name := path.relative_to(output).as_posix()) not in known:
            complaints.append(f"{name} is in no row of the manifest: remove it, or run the settings that made it")
    return complaints


def _complaints(input: Path, output: Path, name: str, rows: list[dict]) -> list[str]:
    if not rows[0]["lr"]:
        return _listed_only(input / name, name, rows[0]["source_bytes"])
    expected = [(input / name, f"{name} (source)", rows[0]["source_checksum"], "pre-generate again")]
    for row in rows:
        given = row["method"] == METHOD  # the user's own LR picture, not to be removed
        remedy = "run 01_data again" if given else "remove it and pre-generate again"
        expected.append(((input if given else output) / row["lr"], row["lr"], row["lr_checksum"], remedy))
        if row["upscaled_bytes"]:
            copy = upscaled_path(row["lr"])
            expected.append((output / copy, copy, row["upscaled_checksum"], "remove it and pre-generate again"))
    found = []
    for path, label, checksum, remedy in expected:
        if not path.is_file():
            found.append(f"{label} is missing: pre-generate again")
        elif digest(path.read_bytes()) != checksum:
            found.append(f"{label} has changed since it was recorded: {remedy}")
    return found


def _listed_only(path: Path, name: str, size: int) -> list[str]:
    """Of a picture of list_online, which is not read and has no LR picture: it is there, and as large as it was."""
    if not path.is_file():
        return [f"{name} (source) is missing: list the pictures again"]
    return [] if path.stat().st_size == size else [f"{name} (source) has changed: list the pictures again"]


def upscaled_path(target: str) -> str:
    """Where an LR picture's upscaled copy lies: scale_2x/bicubic/a.png -> scale_2x/bicubic_upscaled/a.png."""
    scale, method, rest = target.split("/", 2)
    return f"{scale}/{method}_upscaled/{rest}"
