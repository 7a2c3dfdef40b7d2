"""LR pictures out of HR pictures: every picture decoded once, by every scale and method, with its training patches.

A data folder holds scale_2x/<method>/<subdir>/<name>.png, manifest.csv (a row a pair), processing_stats.json,
packs/ and data.json, which tells the later notebooks what it is. While a run is under way, manifest.journal/ holds
a line for each finished picture: killed at any moment, the same call goes on from there.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from srlib.data.degrade import Degradation
from srlib.data.manifest import COLUMNS, upscaled_path, write_manifest
from srlib.data.packs import Pack, PackSettings
from srlib.data.parallel import one_thread
from srlib.data.passes import Result, run_pass
from srlib.data.pictures import picture_size, read_picture, write_png
from srlib.data.resize import METHODS, centre, crop_to_multiple, downscale_integers, upscale_integers
from srlib.data.sources import list_pictures, sampled
from srlib.files import digest, locked, stamp


@dataclass(frozen=True)
class Recipe:
    """What is made of every picture; travels with every task."""

    scales: tuple[int, ...]
    methods: tuple[str, ...]
    size: int | None
    upscaled: bool
    degradation: Degradation
    overwrite: bool = False

    @property
    def key(self) -> str:
        """Of what changes a pair's pixels; another scale or method is another pair. 2: resampled in levels."""
        degradation = None if self.degradation.nothing else asdict(self.degradation)
        return digest(json.dumps([2, self.size, degradation]).encode())[:16]

    def downscale(self, degraded: np.ndarray, name: str, scale: int, method: str) -> np.ndarray:
        """The LR picture of an HR one that has been degraded and cropped to a multiple of the scale."""
        return self.degradation.lr(downscale_integers(degraded, scale, method), f"{scale}x/{method}/{name}")


def pregenerate(
    input: Path | str,
    output: Path | str,
    *,
    scales: Sequence[int] = (2,),
    methods: Sequence[str] = ("bilinear", "bicubic", "lanczos"),
    sample: float = 1.0,
    size: int | None = None,
    upscaled: bool = False,
    degradation: Degradation | None = None,
    split: Mapping[str, str] | None = None,
    packs: Sequence[PackSettings] = (),
    jobs: int = 1,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Make the LR pictures of every HR picture below `input`, by every method and scale, below `output`.

    sample: share of the pictures; size: HR is cropped to at most size x size (centre); upscaled: also write
    each LR picture upscaled back by bicubic; degradation: compression, blur and noise on top; packs: training
    patches, at every scale, of the pictures that `split` calls "train", in place of all packs of other settings;
    jobs: processes, with no influence on the result. Inside `joblib.parallel_config(backend="dask")` the workers of
    that cluster do it.
    A picture whose source and settings have not changed is skipped; one that cannot be read is recorded in
    the stats and the rest goes on. What a stopped or killed run has made is not made again. Pairs of other scales
    and methods that are still true stay in the manifest.
    Raises FileNotFoundError for a missing or empty folder, ValueError for an unknown method or scale or for an
    output inside the input, OSError when nothing can be written (disk full): that is no fault of a picture.
    """
    input, output = Path(input).absolute(), Path(output).absolute()  # a cluster's workers have another directory
    once = tuple(dict.fromkeys(scales)), tuple(dict.fromkeys(methods))
    recipe = Recipe(*once, size, upscaled, degradation or Degradation(), overwrite)
    _check(input, output, recipe, jobs)
    everything = list_pictures(input)
    stems = _lr_stems(everything)
    names = sampled(everything, sample, seed)
    training = [n for n in names if (split or {}).get(n) == "train"]
    if packs and not training:
        raise ValueError('no picture of the split is "train": packs need some')
    result = run_pass(
        output,
        names,
        process_picture,
        lambda name: (input, output, name, stems[name], recipe),
        lambda name, rows: _untouched(input, output, name, stems[name], recipe, rows),
        key=recipe.key,
        sources=set(everything),
        packs=list(_plan(input, output, training, recipe, packs)) if packs else [],
        jobs=jobs,
        overwrite=overwrite,
        progress=progress,
    )
    asked = result.manifest[result.manifest["source"].isin(names)]
    asked = asked[asked["scale"].isin(recipe.scales) & asked["method"].isin(recipe.methods)]
    return replace(result, manifest=asked.reset_index(drop=True))


def list_online(
    input: Path | str,
    output: Path | str,
    *,
    scales: Sequence[int],
    methods: Sequence[str],
    sample: float = 1.0,
    size: int | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, list[dict]]:
    """manifest.csv of pairs whose LR pictures are made when they are asked for (datasets.OnlinePairs), and no picture.

    As pregenerate; sizes come from the headers, `lr` is empty. Returns the manifest and what has no readable header, as
    {"path", "reason"}; whether the rest of a file is whole shows when it is drawn.
    """
    input, output = Path(input), Path(output)
    recipe = Recipe(tuple(dict.fromkeys(scales)), tuple(dict.fromkeys(methods)), size, False, Degradation())
    _check(input, output, recipe, 1)
    rows, failures = [], []
    for name in sampled(list_pictures(input), sample, seed):
        try:
            sides = picture_size(input / name)
            bytes_, time_ = stamp(input / name)
        except (ValueError, OSError) as error:
            failures.append({"path": name, "reason": str(error)})
            continue
        height, width = (min(n, size or n) for n in sides)
        top, left = ((n - min(n, size or n)) // 2 for n in sides)
        shared = dict.fromkeys(COLUMNS, 0) | {"source": name, "lr": "", "hr_top": top, "hr_left": left}
        shared |= {"source_bytes": bytes_, "source_mtime": time_}
        for s, m in ((s, m) for s in recipe.scales for m in recipe.methods):
            row = {"scale": s, "method": m, "hr_height": height - height % s, "hr_width": width - width % s}
            rows.append(shared | row | {"lr_height": height // s, "lr_width": width // s})
    with locked(output):
        return write_manifest(output, rows), failures


def _check(input: Path, output: Path, recipe: Recipe, jobs: int) -> None:
    """Everything that can be wrong with pregenerate's arguments, before the first picture is opened."""
    if not recipe.scales or not recipe.methods:
        raise ValueError("nothing to make: give at least one scale and one method")
    for method in recipe.methods:
        if method not in METHODS:
            raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    for scale in recipe.scales:
        if not isinstance(scale, int) or not 1 < scale <= 8:
            raise ValueError(f"scale {scale!r} is not a whole number from 2 to 8")
    if recipe.size is not None and recipe.size < max(recipe.scales):
        raise ValueError(
            f"size {recipe.size} leaves no pixel at scale {max(recipe.scales)}: give a larger one, or none"
        )
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


def _plan(input: Path, output: Path, names: list[str], recipe: Recipe, packs: Sequence[PackSettings]) -> Iterator[Pack]:
    """One Pack a scale and setting, from the pictures' headers alone; what has no readable header gets no slots."""
    sizes, marks = {}, {}
    for name in names:
        try:
            sizes[name] = tuple(min(side, recipe.size or side) for side in picture_size(input / name))
            marks[name] = [stamp(input / name)[0], recipe.key]
        except (ValueError, OSError):
            continue  # process_picture will say why
    for scale in recipe.scales:
        cropped = {n: (h - h % scale, w - w % scale) for n, (h, w) in sizes.items()}
        for settings in packs:
            yield Pack(output, cropped, scale=scale, methods=recipe.methods, settings=settings, marks=marks)


def process_picture(
    input: Path, output: Path, name: str, stem: str, recipe: Recipe, *, before: list[dict], shelves: list
) -> dict:
    """One picture, decoded once, by every scale and method. Pure: what it writes depends on its arguments.

    stem: LR path without scale, method and .png; before: the picture's rows of an earlier manifest, kept where
    they are still true; shelves: (name, Shelf, slots) of the packs that wait for its patches. Returns {"name",
    "rows", "files" written, "seconds", "patches": {name: what Shelf.put returned}}; on failure no rows and a "reason".
    """
    start = time.perf_counter()
    done: dict[str, Any] = {"name": name, "rows": [], "files": 0, "seconds": 0.0, "patches": {}}
    wanted = [(s, m) for s in recipe.scales for m in recipe.methods]
    try:
        now = stamp(input / name)
        content = (input / name).read_bytes()
        checksum = digest(content)
        kept = {
            (r["scale"], r["method"]): r | {"source_mtime": now[1]}
            for r in before
            if r["source_checksum"] == checksum and _is_true(output, r, stem, recipe, read=bool(shelves))
        }
        if recipe.overwrite:
            kept = {pair: row for pair, row in kept.items() if pair not in wanted}
        lacking = {p for p in wanted if p not in kept or recipe.upscaled and not _upscaled_there(output, kept[p])}
        if not lacking and not shelves:
            return done | {"rows": list(kept.values())}
        hr, top, left = centre(read_picture(input / name, content).rgb, recipe.size)
        if min(hr.shape[:2]) < max(recipe.scales):
            raise ValueError(f"{name} is smaller than one pixel at 1/{max(recipe.scales)}; remove it")
        with one_thread():
            degraded = recipe.degradation.hr(hr, name) if set(wanted) - set(kept) else hr
    except (ValueError, OSError) as error:
        return done | {"reason": str(error)}
    common = {"source": name, "hr_top": top, "hr_left": left, "settings": recipe.key, "source_checksum": checksum}
    common |= dict(zip(("source_bytes", "source_mtime"), now, strict=True))
    with one_thread():
        try:
            for scale in recipe.scales:
                waiting = [one for one in shelves if one[1].scale == scale]
                methods = [m for m in recipe.methods if waiting or (scale, m) in lacking]
                lrs, files = _make(
                    output, stem, crop_to_multiple(degraded, scale), scale, methods, recipe, common, kept
                )
                for own, shelf, slots in waiting:
                    put = shelf.put(slots, crop_to_multiple(hr, scale), lrs)
                    done["patches"][own] = put | {"content": shelf.content(kept.values())}
                done["files"] += files + len(waiting)
        except ValueError as error:  # an LR picture of an earlier run cannot be read again, for one
            return done | {"rows": [], "patches": {}, "reason": str(error)}
    return done | {"rows": list(kept.values()), "seconds": time.perf_counter() - start}


def _make(
    output: Path, stem: str, hr: np.ndarray, scale: int, methods: list[str], recipe: Recipe, common: dict, kept: dict
) -> tuple[dict[str, np.ndarray], int]:
    """Write what is lacking at one scale; returns the LR picture of every method and the number of files written.

    hr: degraded, cropped to a multiple of the scale; common: what all rows of the picture share; kept: (scale,
    method) -> row of what is there already, and where new rows are put.
    """
    lrs, files = {}, 0
    for method in methods:
        target = _target(scale, method, stem)
        row = kept.get((scale, method))
        if row is None:
            lrs[method] = lr = recipe.downscale(hr, common["source"], scale, method)
            png = write_png(output / target, lr)
            files += 1
            row = kept[scale, method] = dict.fromkeys(COLUMNS, 0) | common
            row |= {"lr": target, "scale": scale, "method": method, "lr_bytes": len(png), "lr_checksum": digest(png)}
            row |= dict(
                zip(("hr_height", "hr_width", "lr_height", "lr_width"), hr.shape[:2] + lr.shape[:2], strict=True)
            )
            row["upscaled_checksum"] = ""
        else:
            lrs[method] = lr = read_picture(output / target).rgb
        if recipe.upscaled and not _upscaled_there(output, row):
            png = write_png(output / upscaled_path(target), upscale_integers(lr, scale))
            row |= {"upscaled_bytes": len(png), "upscaled_checksum": digest(png)}
            files += 1
    return lrs, files


def _target(scale: int, method: str, stem: str) -> str:
    return f"scale_{scale}x/{method}/{stem}.png"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _is_true(output: Path, row: dict, stem: str, recipe: Recipe, *, read: bool = False) -> bool:
    """Whether a manifest's row still describes the file, given that its source has not changed. read: by checksum,
    where patches are to be cut out of it.
    """
    path = output / row["lr"]
    at = row["lr"] == _target(row["scale"], row["method"], stem)
    same = at and row["settings"] == recipe.key and _bytes(path) == row["lr_bytes"]
    return same and (not read or digest(path.read_bytes()) == row["lr_checksum"])


def _upscaled_there(output: Path, row: dict) -> bool:
    return row["upscaled_bytes"] > 0 and _bytes(output / upscaled_path(row["lr"])) == row["upscaled_bytes"]


def _untouched(input: Path, output: Path, name: str, stem: str, recipe: Recipe, rows: list[dict]) -> bool:
    """The cheap check, by sizes and times; what it doubts, process_picture decides by checksum."""
    pairs = {(r["scale"], r["method"]): r for r in rows}
    wanted = [(s, m) for s in recipe.scales for m in recipe.methods]
    return (
        not recipe.overwrite
        and all(p in pairs for p in wanted)
        and all((r["source_bytes"], r["source_mtime"]) == stamp(input / name) for r in rows)
        and all(_is_true(output, r, stem, recipe) for r in rows)
        and (not recipe.upscaled or all(_upscaled_there(output, pairs[p]) for p in wanted))
    )
