"""One pass over many pictures: what is up to date is left, the rest is made in parallel, recorded and packed."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import pandas as pd

from srlib.files import atomic
from srlib.manifest import Journal, record
from srlib.packs import Pack
from srlib.parallel import in_parallel


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
    journal = Journal(output, fresh=overwrite)
    unfinished = [p for p in packs if overwrite or not p.done]
    for pack in unfinished:
        if not pack.begin():
            journal.patches.pop(pack.key, None)
    done, tasks = [], []
    for name in names:
        waiting = [p for p in unfinished if name in p.first and name not in journal.patches[p.key]]
        before = journal.rows.get(name, [])
        if not waiting and up_to_date(name, before):
            done.append({"name": name, "files": 0, "seconds": 0.0})
        else:
            shelves = [(p.key, p.shelf, p.first[name]) for p in waiting]
            tasks.append(joblib.delayed(_recorded)(output, make, arguments(name), before=before, shelves=shelves))
    for one in in_parallel(tasks, jobs, what, progress):
        journal.add(one)
        done.append(one)
    facts = [p.finish(journal.patches[p.key]) if p in unfinished else p.facts() for p in packs]
    for folder in (output / "packs").glob("*") if packs else ():  # of another split, perhaps: nobody knows
        if folder not in folders:
            shutil.rmtree(folder)
    manifest = journal.close(sources, key)

    made = [d for d in done if d["files"]]
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


def _recorded(output: Path, make: Callable[..., dict], arguments: tuple, **named) -> dict:
    """Recorded where it was made: what a killed run has done is known, whether or not it got back to the caller."""
    one = make(*arguments, **named)
    record(output, one)
    return one
