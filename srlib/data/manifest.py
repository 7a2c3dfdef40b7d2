"""manifest.csv, a row a pair, and the journal that keeps it true while a run is under way or has been killed."""

import json
import os
import shutil
import socket
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import joblib
import pandas as pd

from srlib.data.parallel import in_parallel
from srlib.files import atomic, digest

METHOD = "input"  # of pairs that were there, where a kernel's name stands: their LR pictures lie with the HR ones
COLUMNS = ["source", "lr", "scale", "method", "hr_top", "hr_left", "hr_height", "hr_width", "lr_height", "lr_width"]
COLUMNS += ["source_bytes", "source_mtime", "source_checksum", "lr_bytes", "lr_checksum"]
COLUMNS += ["upscaled_bytes", "upscaled_checksum", "settings"]


class Journal:
    """What is known of every picture: the manifest of earlier runs and a line for each picture finished since.

    Each process writes its lines to a file of its own in manifest.journal/ (`record`) the moment a picture is done:
    they survive a kill, and no two machines write one file. `close` turns it all into manifest.csv.
    """

    def __init__(self, output: Path):
        self.output, self.folder = output, output / "manifest.journal"
        self.rows: dict[str, list[dict]] = read_manifest(output)
        self.patches: dict[str, dict] = defaultdict(dict)  # a pack's own name -> picture -> what Shelf.put returned
        if self.folder.is_dir():  # an earlier run was killed
            for half in (*output.glob(".*.part.*"), *output.glob("scale_*/**/.*.part.*")):
                half.unlink(missing_ok=True)
            self._gather()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _gather(self) -> None:
        """Take every whole line, those of the runs before the last one first, and write them into one file."""
        gathered = self.folder / "0"
        others = sorted(p for p in self.folder.iterdir() if p != gathered)
        lines = []
        for path in ([gathered] if gathered.is_file() else []) + others:
            for line in path.read_bytes().split(b"\n")[:-1]:  # without the one that was being written
                with suppress(ValueError):  # zeros, after the power failed: that picture is made again
                    self.add(json.loads(line))
                    lines.append(line + b"\n")
        with atomic(gathered) as temporary:
            temporary.write_bytes(b"".join(lines))
        for path in others:
            path.unlink(missing_ok=True)

    def add(self, one: dict) -> None:
        """Take what was done for a picture: {"name", "rows", "patches": {pack's own name: what Shelf.put returned}}."""
        self.rows[one["name"]] = one["rows"]
        for key, put in one["patches"].items():
            self.patches[key][one["name"]] = put

    def close(self, sources: set[str], key: str | None) -> pd.DataFrame:
        """Write manifest.csv, sorted, of the pictures that are still there, as made by these settings."""
        rows = [r for name, rows in self.rows.items() if name in sources for r in rows if key in (None, r["settings"])]
        manifest = write_manifest(self.output, rows)
        shutil.rmtree(self.folder)
        return manifest


def record(output: Path, one: dict) -> None:
    """Append what was done for a picture to this process's file of the journal."""
    line = json.dumps({k: one[k] for k in ("name", "rows", "patches")}) + "\n"
    with open(output / "manifest.journal" / f"{socket.gethostname()}-{os.getpid()}", "ab") as file:
        file.write(line.encode())


def write_manifest(output: Path, rows: list[dict]) -> pd.DataFrame:
    """manifest.csv, sorted by source, scale and method."""
    manifest = pd.DataFrame(rows, columns=COLUMNS).sort_values(["source", "scale", "method"], ignore_index=True)
    with atomic(output / "manifest.csv") as temporary:
        manifest.to_csv(temporary, index=False)
    return manifest


def read_manifest(output: Path | str) -> dict[str, list[dict]]:
    """source -> its rows of manifest.csv; {} where there is none, or one of an earlier layout, which is made anew."""
    path = Path(output) / "manifest.csv"
    if not path.is_file() or not path.stat().st_size:
        return {}
    text = dict.fromkeys(("source", "lr", "source_checksum", "lr_checksum", "upscaled_checksum", "settings"), str)
    manifest = pd.read_csv(path, dtype=text, keep_default_na=False)  # or 16 digits become a number, "NA.png" nothing
    if list(manifest.columns) != COLUMNS:
        return {}
    return {str(name): rows.to_dict("records") for name, rows in manifest.groupby("source")}


def verify(input: Path | str, output: Path | str, *, jobs: int = 1, progress: bool = True) -> list[str]:
    """Read every file of a data folder again, compare its checksum with the manifest's: one sentence a difference.

    LR pictures, upscaled ones and sources; packs are not looked at.
    """
    input, output = Path(input), Path(output)
    rows = read_manifest(output)
    if not rows:
        raise FileNotFoundError(f"no {output / 'manifest.csv'}: pre-generate first")
    tasks = [joblib.delayed(_complaints)(input, output, name, rows[name]) for name in sorted(rows)]
    complaints = sorted(c for found in in_parallel(tasks, jobs, "verify", progress) for c in found)
    known = {r["lr"] for of in rows.values() for r in of}
    known |= {upscaled_path(r["lr"]) for of in rows.values() for r in of if r["upscaled_bytes"]}
    for path in sorted(output.glob("scale_*/**/*.png")):
        if (name := path.relative_to(output).as_posix()) not in known:
            complaints.append(f"{name} is in no row of the manifest: remove it, or run the settings that made it")
    return complaints


def _complaints(input: Path, output: Path, name: str, rows: list[dict]) -> list[str]:
    expected = [(input / name, f"{name} (source)", rows[0]["source_checksum"], "pre-generate again")]
    for row in rows:
        given = row["method"] == METHOD  # an LR picture of somebody's own, not to be removed
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


def upscaled_path(target: str) -> str:
    """scale_2x/bicubic/a.png -> scale_2x/bicubic_upscaled/a.png"""
    scale, method, rest = target.split("/", 2)
    return f"{scale}/{method}_upscaled/{rest}"
