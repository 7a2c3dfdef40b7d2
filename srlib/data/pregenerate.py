"""Pre-generation: LR pictures out of HR pictures, each decoded once for every scale, method and training patch.

A data folder holds scale_2x/<method>/<subdir>/<name>.png, manifest.csv (a row for each pair), processing_stats.json,
packs/, and data.json, which tells the later notebooks what it is (srlib/data/description.py). While a run is under
way, manifest.journal/ holds a line for each finished picture, so that a stopped or killed run can be resumed.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from srlib.data.degrade import Degradation
from srlib.data.manifest import COLUMNS, upscaled_path, write_manifest
from srlib.data.packs import Pack, PackSettings, PictureSlots
from srlib.data.parallel import one_thread
from srlib.data.passes import Made, Pass, Result
from srlib.data.pictures import picture_size, read_picture, write_png
from srlib.data.resize import METHODS, centre, crop_to_multiple, downscale_integers, upscale_integers
from srlib.data.sources import later_pages, pictures_in, sampled
from srlib.files import check_writable, digest, locked, stamp


@dataclass(frozen=True)
class Recipe:
    """What is made of every HR picture: an LR picture for each scale and method.

    scales: whole numbers from 2 to 8; methods: of resize.METHODS; size: HR is cropped around its centre to at most
    size x size (None: not cropped); upscaled: also write each LR picture upscaled back to HR size by bicubic;
    degradation: blur, noise and compression besides. Repeated scales and methods count once.
    Raises ValueError for an unknown method or scale, or a size that leaves no pixel.
    """

    scales: Sequence[int] = (2,)
    methods: Sequence[str] = ("bilinear", "bicubic", "lanczos")
    size: int | None = None
    upscaled: bool = False
    degradation: Degradation = Degradation()

    def __post_init__(self) -> None:
        for field in ("scales", "methods"):  # frozen: lists become tuples once
            object.__setattr__(self, field, tuple(dict.fromkeys(getattr(self, field))))
        if not self.scales or not self.methods:
            raise ValueError("nothing to make: give at least one scale and one method")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
        for scale in self.scales:
            if not isinstance(scale, int) or not 1 < scale <= 8:
                raise ValueError(f"scale {scale!r} is not a whole number from 2 to 8")
        if self.size is not None and self.size < max(self.scales):
            raise ValueError(
                f"size {self.size} leaves no pixel at scale {max(self.scales)}: give a larger one, or none"
            )

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """Every (scale, method)."""
        return list(product(self.scales, self.methods))

    @property
    def key(self) -> str:
        """Checksum of what changes a pair's pixels, apart from its scale and method, which make it another pair."""
        degradation = None if self.degradation.nothing else asdict(self.degradation)
        return digest(json.dumps([2, self.size, degradation]).encode())[:16]  # 2: version of the resampling

    def downscale(self, degraded: np.ndarray, name: str, scale: int, method: str) -> np.ndarray:
        """The LR picture of an HR one that has been degraded and cropped to a multiple of the scale."""
        return self.degradation.lr(downscale_integers(degraded, scale, method), f"{scale}x/{method}/{name}")


def pregenerate(
    input: Path | str,
    output: Path | str,
    recipe: Recipe = Recipe(),
    *,
    sample: float = 1.0,
    seed: int = 0,
    split: Mapping[str, str] | None = None,
    packs: Sequence[PackSettings] = (),
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Result:
    """Make the LR pictures of every HR picture below `input`, as the recipe says, below `output`.

    sample: share of the pictures, drawn by `seed`; packs: training patches, at every scale, of the pictures that
    `split` calls "train", in place of all packs of other settings; jobs: processes, with no influence on the result
    (inside parallel.cluster, its workers do the work); overwrite: redo what is up to date.
    A picture whose source and settings have not changed is skipped; one that cannot be read is recorded in the
    stats, and the others are made. A stopped or killed run is resumed by the same call. Pairs of other scales and
    methods that are still valid stay in the manifest; the Result's has those of the recipe.
    Raises FileNotFoundError for a missing or empty folder, ValueError for an output inside the input, OSError when
    nothing can be written (disk full): that is no fault of a picture.
    """
    input, output = Path(input).absolute(), Path(output).absolute()  # a cluster's workers have another directory
    _check(input, output, jobs)
    found = pictures_in(input, output)
    check_writable(output)
    stems = _lr_stems(found.names)
    names = sampled(found.names, sample, seed)
    training = [n for n in names if (split or {}).get(n) == "train"]
    if packs and not training:
        raise ValueError('no picture of the split is "train": packs need some')
    planned = list(_planned(input, output, training, recipe, packs)) if packs else []
    tasks = [PictureTask(input, output, name, stems[name], recipe, overwrite) for name in names]
    left_alone = [*found.left_alone, *later_pages(input, names)]
    result = Pass(output, planned, jobs, overwrite, progress=progress).run(
        tasks, sources=set(found.names), key=recipe.key, left_out=found.left_out, left_alone=left_alone
    )
    asked = result.manifest[result.manifest["source"].isin(names)]
    asked = asked[asked["scale"].isin(recipe.scales) & asked["method"].isin(recipe.methods)]
    return replace(result, manifest=asked.reset_index(drop=True))


def list_online(
    input: Path | str, output: Path | str, recipe: Recipe = Recipe(), *, sample: float = 1.0, seed: int = 0
) -> tuple[pd.DataFrame, dict]:
    """Write the manifest alone, for pairs whose LR pictures are made while training (patches.OnlinePairs).

    Arguments as in pregenerate. Sizes come from the headers; the column `lr` is empty. Returns the manifest and, as in
    the stats of pregenerate, "failures" (pictures without a readable header among them), "total_failed", "left_alone";
    other damage shows when a picture is first decoded.
    """
    input, output = Path(input), Path(output)
    _check(input, output, 1)
    rows, found = [], pictures_in(input, output)
    names = sampled(found.names, sample, seed)
    failures = [{"path": name, "reason": reason} for name, reason in found.left_out.items()]
    for name in names:
        try:
            sides = picture_size(input / name)
            bytes_, time_ = stamp(input / name)
        except (ValueError, OSError) as error:
            failures.append({"path": name, "reason": str(error)})
            continue
        height, width = (min(n, recipe.size or n) for n in sides)
        top, left = ((n - min(n, recipe.size or n)) // 2 for n in sides)
        shared = dict.fromkeys(COLUMNS, 0) | {"source": name, "lr": "", "hr_top": top, "hr_left": left}
        shared |= {"source_bytes": bytes_, "source_mtime": time_}
        for s, m in recipe.pairs:
            row = {"scale": s, "method": m, "hr_height": height - height % s, "hr_width": width - width % s}
            rows.append(shared | row | {"lr_height": height // s, "lr_width": width // s})
    left_alone = [*found.left_alone, *later_pages(input, names)]
    stats = {"failures": failures, "total_failed": len(failures), "left_alone": left_alone}
    with locked(output):
        return write_manifest(output, rows), stats


def _check(input: Path, output: Path, jobs: int) -> None:
    if jobs == 0:
        raise ValueError("0 jobs do nothing: give 1 or more, or -1 for every core")
    if output.resolve().is_relative_to(input.resolve()):
        raise ValueError(
            f"output {output} lies inside input {input}, whose pictures it would join: give another folder"
        )


def _lr_stems(names: Sequence[str]) -> dict[str, str]:
    """LR path without .png of every picture. Of a.png and a.jpg, side by side, each keeps its suffix: a.png.png."""
    bare = {n: Path(n).with_suffix("").as_posix() for n in names}
    count = Counter(bare.values())
    stems = {n: n if count[b] > 1 else b for n, b in bare.items()}
    owner: dict[str, str] = {}
    for name, stem in stems.items():
        if owner.setdefault(stem, name) != name:
            raise ValueError(f"{owner[stem]} and {name} would both become {stem}.png: rename one")
    return stems


def _planned(
    input: Path, output: Path, names: list[str], recipe: Recipe, packs: Sequence[PackSettings]
) -> Iterator[Pack]:
    """A Pack for each scale and setting, from the pictures' headers alone; without one a picture gets no slots."""
    sizes, marks = {}, {}
    for name in names:
        try:
            sizes[name] = tuple(min(side, recipe.size or side) for side in picture_size(input / name))
            marks[name] = [stamp(input / name)[0], recipe.key]
        except (ValueError, OSError):
            continue  # PictureTask.make will say why
    for scale in recipe.scales:
        cropped = {n: (h - h % scale, w - w % scale) for n, (h, w) in sizes.items()}
        for settings in packs:
            yield Pack(output, cropped, scale=scale, methods=recipe.methods, settings=settings, marks=marks)


@dataclass(frozen=True)
class PictureTask:
    """One HR picture and what is to be made of it; a passes.Task.

    stem: path of its LR pictures within scale_<s>x/<method>/, without .png; overwrite: make again what is up to date.
    """

    input: Path
    output: Path
    name: str
    stem: str
    recipe: Recipe
    overwrite: bool

    def up_to_date(self, rows: list[dict]) -> bool:
        """The cheap check, by sizes and times; what it doubts, `make` decides by checksum."""
        pairs = {(r["scale"], r["method"]): r for r in rows}
        return (
            not self.overwrite
            and all(p in pairs for p in self.recipe.pairs)
            and all((r["source_bytes"], r["source_mtime"]) == stamp(self.input / self.name) for r in rows)
            and all(self._is_true(r) for r in rows)
            and not any(self._lacks_upscaled(pairs[p]) for p in self.recipe.pairs)
        )

    def make(self, rows: list[dict], waiting: Sequence[PictureSlots]) -> Made:
        """Decode the picture once, write its LR pictures at every scale and by every method, and its patches.

        rows: those of an earlier manifest, kept where still true; waiting: packs that lack its patches.
        What it writes depends on the task alone. A picture that cannot be used is returned with the reason.
        """
        start, recipe = time.perf_counter(), self.recipe
        try:
            bytes_, time_ = stamp(self.input / self.name)
            content = (self.input / self.name).read_bytes()
            checksum = digest(content)
            kept = {
                (r["scale"], r["method"]): r | {"source_mtime": time_}
                for r in rows
                if r["source_checksum"] == checksum and self._is_true(r, read=bool(waiting))
            }
            if self.overwrite:
                kept = {pair: row for pair, row in kept.items() if pair not in recipe.pairs}
            lacking = {p for p in recipe.pairs if p not in kept or self._lacks_upscaled(kept[p])}
            if not lacking and not waiting:
                return Made(self.name, list(kept.values()))
            hr, top, left = centre(read_picture(self.input / self.name, content).rgb, recipe.size)
            if min(hr.shape[:2]) < max(recipe.scales):
                raise ValueError(f"{self.name} is smaller than one pixel at 1/{max(recipe.scales)}; remove it")
            with one_thread():
                degraded = recipe.degradation.hr(hr, self.name) if set(recipe.pairs) - set(kept) else hr
        except (ValueError, OSError) as error:
            return Made(self.name, reason=str(error))
        source = {"source": self.name, "hr_top": top, "hr_left": left, "settings": recipe.key}
        source |= {"source_bytes": bytes_, "source_mtime": time_, "source_checksum": checksum}
        files, patches = 0, {}
        with one_thread():
            try:
                for scale in recipe.scales:
                    slots = [one for one in waiting if one.shelf.scale == scale]
                    methods = [m for m in recipe.methods if slots or (scale, m) in lacking]
                    cropped = crop_to_multiple(degraded, scale)
                    lrs = {}
                    for method in methods:
                        row = kept.get((scale, method))
                        lrs[method], kept[scale, method], written = self._pair(cropped, scale, method, row, source)
                        files += written
                    for one in slots:
                        patches[one.pack] = one.put(crop_to_multiple(hr, scale), lrs, kept.values())
                        files += 1
            except ValueError as error:  # for one, an LR picture of an earlier run that cannot be read again
                return Made(self.name, files=files, reason=str(error))
        return Made(self.name, list(kept.values()), files, time.perf_counter() - start, patches)

    def _pair(
        self, hr: np.ndarray, scale: int, method: str, row: dict | None, source: dict
    ) -> tuple[np.ndarray, dict, int]:
        """Write what is lacking of one pair; returns its LR picture, its row and the number of files written.

        hr: degraded, cropped to a multiple of the scale; row: the pair's when its LR picture is there already;
        source: what the rows of a picture share.
        """
        target, files = self._target(scale, method), 0
        if row is not None:
            lr = read_picture(self.output / target).rgb
        else:
            lr = self.recipe.downscale(hr, self.name, scale, method)
            png = write_png(self.output / target, lr)
            files += 1
            row = dict.fromkeys(COLUMNS, 0) | source | {"scale": scale, "method": method, "upscaled_checksum": ""}
            row |= {"lr": target, "lr_bytes": len(png), "lr_checksum": digest(png)}
            row |= {"hr_height": hr.shape[0], "hr_width": hr.shape[1]}
            row |= {"lr_height": lr.shape[0], "lr_width": lr.shape[1]}
        if self._lacks_upscaled(row):
            png = write_png(self.output / upscaled_path(target), upscale_integers(lr, scale))
            row |= {"upscaled_bytes": len(png), "upscaled_checksum": digest(png)}
            files += 1
        return lr, row, files

    def _target(self, scale: int, method: str) -> str:
        return f"scale_{scale}x/{method}/{self.stem}.png"

    def _is_true(self, row: dict, *, read: bool = False) -> bool:
        """Whether a row still describes its LR picture, the source being the same: by size, with `read` by checksum."""
        path = self.output / row["lr"]
        at = row["lr"] == self._target(row["scale"], row["method"])
        same = at and row["settings"] == self.recipe.key and _bytes(path) == row["lr_bytes"]
        return same and (not read or digest(path.read_bytes()) == row["lr_checksum"])

    def _lacks_upscaled(self, row: dict) -> bool:
        """Whether an upscaled copy is to be there and is not."""
        there = row["upscaled_bytes"] > 0 and _bytes(self.output / upscaled_path(row["lr"])) == row["upscaled_bytes"]
        return self.recipe.upscaled and not there


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
