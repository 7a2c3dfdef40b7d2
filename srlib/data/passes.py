"""A pass over many pictures: those up to date are skipped, the rest is made in parallel, recorded and packed."""

import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from srlib.data.manifest import Journal, record
from srlib.data.packs import Pack, PictureSlots
from srlib.data.parallel import in_parallel
from srlib.files import atomic, locked


@dataclass(frozen=True)
class Made:
    """What was made of one picture.

    rows: its rows of the manifest; files: how many were written; patches: pack id -> what PictureSlots.put returned;
    reason: why it failed, in a sentence, None when it did not.
    """

    name: str
    rows: list[dict] = field(default_factory=list)
    files: int = 0
    seconds: float = 0.0
    patches: dict[str, dict] = field(default_factory=dict)
    reason: str | None = None


class Task(Protocol):
    """What is to be made of one picture. Small, as it is sent to a worker."""

    @property
    def name(self) -> str:
        """The picture's path, as it stands in the manifest's column `source`."""

    def up_to_date(self, rows: list[dict]) -> bool:
        """Whether nothing is to be done, by sizes and times alone. rows: the picture's, of an earlier manifest."""

    def make(self, rows: list[dict], waiting: Sequence[PictureSlots]) -> Made:
        """Write the picture's files, and its patches into the packs that wait for them."""


@dataclass(frozen=True)
class Result:
    """What a pass has done: the manifest; the content of processing_stats.json; that of every pack's pack.json."""

    manifest: pd.DataFrame
    stats: dict
    packs: list[dict]


@dataclass(frozen=True)
class Pass:
    """A pass over the pictures of a data folder: its settings, and `run`.

    output: the data folder; packs: filled by the same pass, in place of all packs there are; jobs: processes;
    overwrite: redo what is up to date; title: of the progress bar.
    Raises ValueError when two packs have one folder.
    """

    output: Path
    packs: Sequence[Pack] = ()
    jobs: int = 1
    overwrite: bool = False
    title: str = "pre-generate"
    progress: bool = True

    def __post_init__(self) -> None:
        if len({pack.folder for pack in self.packs}) < len(self.packs):
            raise ValueError("two packs have the same patch size: give each size once")

    def run(
        self,
        tasks: Sequence[Task],
        *,
        sources: set[str],
        key: str | None,
        left_out: Mapping[str, str] = {},
        left_alone: Sequence[str] = (),
    ) -> Result:
        """Make what is not up to date; write manifest.csv, packs and processing_stats.json. A killed run is resumed.

        sources: all pictures that exist; key: that of the settings, as in the rows, or None for rows of any settings;
        left_out: pictures that cannot be used, with the reason, and left_alone: sentences, both for the stats.
        Rows of other pictures and of other settings are dropped from the manifest.
        Raises ValueError when a pack would have no patch; an error of `make`, a full disk for one, ends the pass.
        """
        start = time.perf_counter()
        with locked(self.output):
            journal = Journal(self.output)
            made: dict[str, Made] = {}
            for attempt in range(3):  # again when a finished pack turns out, by checksum, to be of other pictures
                once, facts = self._attempt(tasks, journal, overwrite=self.overwrite and attempt == 0)
                for one in once:
                    files = made[one.name].files if one.name in made else 0
                    made[one.name] = replace(one, files=files + one.files)
                failed = {one.name for one in once if one.reason is not None}
                packs = zip(self.packs, facts, strict=True)
                outdated = [pack for pack, content in packs if pack.outdated(content, failed, journal.rows)]
                if not outdated:
                    break
                for pack in outdated:
                    pack.invalidate()
            manifest = journal.close(sources, key)
        left = [Made(name, reason=reason) for name, reason in left_out.items()]
        stats = _stats([*made.values(), *left], manifest, self.jobs, time.perf_counter() - start)
        stats["left_alone"] = list(left_alone)
        with atomic(self.output / "processing_stats.json") as temporary:
            temporary.write_text(json.dumps(stats, indent=2) + "\n")
        return Result(manifest, stats, facts)

    def _attempt(self, tasks: Sequence[Task], journal: Journal, *, overwrite: bool) -> tuple[list[Made], list[dict]]:
        """Make the pictures once and finish the packs. Returns what was made of each, and every pack's pack.json."""
        unfinished = {pack.begin(overwrite): pack for pack in self.packs if overwrite or not pack.done}
        made, work = [], []
        for task in tasks:
            name, rows = task.name, journal.rows.get(task.name, [])
            waiting = [
                pack.picture_slots(id_, name)
                for id_, pack in unfinished.items()
                if name in pack.slots and name not in journal.patches[id_]
            ]
            if not waiting and task.up_to_date(rows):
                made.append(Made(name))
            else:
                work.append((self.output, task, rows, waiting))
        for one in in_parallel(_make_and_record, work, self.jobs, self.title, self.progress):
            journal.add(one.name, one.rows, one.patches)
            made.append(one)
        for id_ in unfinished:
            if not journal.patches[id_]:
                reasons = [one.reason for one in made if one.reason is not None]
                raise ValueError("no training picture could be used: " + "; ".join(reasons[:3]))
        finished = {pack.folder: pack.finish(journal.patches[id_]) for id_, pack in unfinished.items()}
        if self.packs:
            self._remove_other_packs()
        return made, [finished.get(pack.folder) or pack.facts() for pack in self.packs]

    def _remove_other_packs(self) -> None:
        """Remove packs of other settings: they may be of another split and hold pictures that are held out now."""
        for folder in set((self.output / "packs").glob("*")) - {pack.folder for pack in self.packs}:
            if folder.is_dir():
                for mark in ("pack.json", "plan"):  # first, lest a half-removed folder pass for a pack
                    (folder / mark).unlink(missing_ok=True)
                shutil.rmtree(folder)


def _make_and_record(output: Path, task: Task, rows: list[dict], waiting: Sequence[PictureSlots]) -> Made:
    """In the worker: recorded there, so that it counts even if the main process has been killed meanwhile."""
    one = task.make(rows, waiting)
    record(output, one.name, one.rows, one.patches)
    return one


def _stats(made: Collection[Made], manifest: pd.DataFrame, jobs: int, seconds: float) -> dict:
    """The content of processing_stats.json."""
    failed = sorted((one for one in made if one.reason is not None), key=lambda one: one.name)
    written = [one for one in made if one.files and one.reason is None]
    return {
        "total_processed": len(written),
        "total_skipped": len(made) - len(written) - len(failed),
        "total_failed": len(failed),
        "files_written": sum(one.files for one in written),
        "avg_processing_time": sum(one.seconds for one in written) / max(1, len(written)),
        "wall_seconds": seconds,
        "pictures_per_second": len(written) / seconds,
        "jobs": jobs,
        "pairs": {
            f"{scale}x": rows["method"].value_counts().sort_index().to_dict()
            for scale, rows in manifest.groupby("scale")
        },
        "failures": [{"path": one.name, "reason": one.reason} for one in failed],
    }
