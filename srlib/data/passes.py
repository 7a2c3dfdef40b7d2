"""One pass over many pictures: what is up to date is left, the rest is made in parallel, recorded and packed."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from srlib.data.manifest import Journal, record
from srlib.data.packs import Pack
from srlib.data.parallel import in_parallel
from srlib.files import atomic, locked


@dataclass(frozen=True)
class Result:
    """What a pass did: the manifest's rows, a row a pair; the figures of processing_stats.json; each pack's facts."""

    manifest: pd.DataFrame
    stats: dict
    packs: list[dict]


def run_pass(
    output: Path,
    names: Sequence[str],
    make: Callable[..., dict],
    arguments: Callable[[str], tuple],
    up_to_date: Callable[[str, list[dict]], bool],
    *,
    key: str | None,
    sources: set[str],
    packs: Sequence[Pack] = (),
    jobs: int = 1,
    overwrite: bool = False,
    what: str = "pre-generate",
    progress: bool = True,
) -> Result:
    """Call make(*arguments(name), before=rows, shelves=...) for every name that is not up to date, in any order.

    up_to_date(name, rows): the cheap check against the rows of an earlier manifest. make returns {"name", "rows",
    "files" written, "seconds", "patches"} and, where it failed, a "reason". key: of the settings, a column of the
    rows; rows of other settings (None: of any), or of pictures not in `sources`, leave the manifest.
    packs: filled in the same pass; other packs are removed. Killed at any moment, the same call goes on where it was.
    """
    start = time.perf_counter()
    folders = [p.folder for p in packs]
    if len(set(folders)) < len(folders):
        raise ValueError("two packs have the same patch size: give each size once")
    with locked(output):
        journal = Journal(output)
        rounds: dict[str, dict] = {}
        for round_ in range(3):
            anew = overwrite and not round_
            done, facts = _make_all(
                output, names, make, arguments, up_to_date, journal, packs, jobs, anew, what, progress
            )
            for one in done:
                files = one["files"] + rounds.get(one["name"], {"files": 0})["files"]
                rounds[one["name"]] = one | {"files": files}
            broken = {d["name"] for d in done if "reason" in d}
            spoiled = [p for p, f in zip(packs, facts, strict=True) if p.differs(f, broken, journal.rows)]
            if not spoiled:
                break
            for pack in spoiled:  # a picture has changed, or can be read again that could not when it was cut
                pack.spoil()
        done = list(rounds.values())
        manifest = journal.close(sources, key)

    made = [d for d in done if d["files"] and "reason" not in d]
    failed = sorted((d for d in done if "reason" in d), key=lambda d: d["name"])
    seconds = time.perf_counter() - start
    stats = {
        "total_processed": len(made),
        "total_skipped": len(done) - len(made) - len(failed),
        "total_failed": len(failed),
        "files_written": sum(d["files"] for d in made),
        "avg_processing_time": sum(d["seconds"] for d in made) / max(1, len(made)),
        "wall_seconds": seconds,
        "pictures_per_second": len(made) / seconds,
        "jobs": jobs,
        "pairs": {
            f"{scale}x": rows["method"].value_counts().sort_index().to_dict()
            for scale, rows in manifest.groupby("scale")
        },
        "failures": [{"path": d["name"], "reason": d["reason"]} for d in failed],
    }
    with atomic(output / "processing_stats.json") as temporary:
        temporary.write_text(json.dumps(stats, indent=2) + "\n")
    return Result(manifest, stats, facts)


def _make_all(
    output: Path,
    names: Sequence[str],
    make: Callable[..., dict],
    arguments: Callable[[str], tuple],
    up_to_date: Callable[[str, list[dict]], bool],
    journal: Journal,
    packs: Sequence[Pack],
    jobs: int,
    overwrite: bool,
    what: str,
    progress: bool,
) -> tuple[list[dict], list[dict]]:
    """What was done for each name, and each pack's facts."""
    unfinished = {p.begin(overwrite): p for p in packs if overwrite or not p.done}
    done: list[dict] = []
    tasks: list = []
    for name in names:
        shelves = [
            (own, pack.shelf, pack.slots[name])
            for own, pack in unfinished.items()
            if name in pack.slots and name not in journal.patches[own]
        ]
        before = journal.rows.get(name, [])
        if not shelves and up_to_date(name, before):
            done.append({"name": name, "files": 0, "seconds": 0.0})
        else:
            tasks.append(joblib.delayed(_recorded)(output, make, arguments(name), before=before, shelves=shelves))
    for one in in_parallel(tasks, jobs, what, progress):
        journal.add(one)
        done.append(one)
    for own in unfinished:
        if not journal.patches[own]:
            reasons = [d["reason"] for d in done if "reason" in d]
            raise ValueError("no training picture could be used: " + "; ".join(reasons[:3]))
    finished = {pack.folder: pack.finish(journal.patches[own]) for own, pack in unfinished.items()}
    for folder in (output / "packs").glob("*") if packs else ():  # of another split, perhaps: nobody knows
        if folder.is_dir() and folder not in [p.folder for p in packs]:
            for mark in ("pack.json", "plan"):  # first: what is half removed must not pass for whole, or begun
                (folder / mark).unlink(missing_ok=True)
            shutil.rmtree(folder)
    return done, [finished.get(p.folder) or p.facts() for p in packs]


def _recorded(output: Path, make: Callable[..., dict], arguments: tuple, **named: Any) -> dict:
    """Recorded where it was made: what a killed run has done is known, whether or not it got back to the caller."""
    one = make(*arguments, **named)
    record(output, one)
    return one
