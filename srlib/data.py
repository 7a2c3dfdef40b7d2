"""Data: LR pre-generation from HR pictures, the split, packed patches, datasets.

    python -m srlib.data --input hr/ --output data/ --scales 2 3 4 --methods bicubic lanczos --jobs 2

A data folder holds scale_2x/<method>/<subdir>/<name>.png, manifest.csv (a row a pair), processing_stats.json,
packs/ and data.json, which tells the later notebooks what it is.
"""

import argparse
import difflib
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import skimage.data
import torch
from tqdm import tqdm

from srlib.drawings import draw
from srlib.files import atomic
from srlib.pictures import (
    METHODS,
    SUFFIXES,
    crop_to_multiple,
    enlarge,
    read_picture,
    resize,
    to_float,
    to_integers,
    write_png,
)

# Photographs inside the scikit-image package; motorcycle_right shows what motorcycle_left shows, so it is out.
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

_COLUMNS = ["source", "lr", "scale", "method", "hr_top", "hr_left", "hr_height", "hr_width", "lr_height", "lr_width"]
_COLUMNS += ["source_checksum", "lr_checksum", "settings"]


@dataclass(frozen=True)
class Result:
    """What pregenerate did: a row a pair, and the figures of processing_stats.json."""

    manifest: pd.DataFrame
    stats: dict


def embedded_pictures(folder: Path | str, drawings: int = 8) -> None:
    """Fill `folder` with photos/ (from scikit-image, nothing is downloaded) and drawings/; kept when there."""
    folder = Path(folder)
    source = Path(skimage.data.__file__).parent
    for name in _PHOTOGRAPHS:
        target = folder / "photos" / name
        content = (source / name).read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            with atomic(target) as temporary:
                temporary.write_bytes(content)
    for number in range(drawings):
        target = folder / "drawings" / f"drawing_{number:02d}.png"
        if not target.is_file():
            write_png(target, draw(number))


def list_pictures(folder: Path | str) -> list[str]:
    """Paths of the pictures below `folder`, relative to it, sorted. FileNotFoundError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds the HR pictures")
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    names = sorted(p.relative_to(folder).as_posix() for p in found if p.is_file())
    if not names:
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return names


def sampled(names: Sequence[str], share: float, seed: int = 0) -> list[str]:
    """The share (0-1) of the names with the smallest hash: the same ones each time, at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"sample {share} is no share of the pictures: give more than 0 and at most 1")
    ranked = sorted(names, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    return sorted(ranked[: max(1, round(share * len(names)))])


def pregenerate(
    input: Path | str,
    output: Path | str,
    *,
    scales: Sequence[int] = (2,),
    methods: Sequence[str] = ("bilinear", "bicubic", "lanczos"),
    sample: float = 1.0,
    size: int | None = None,
    upsampled: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Make the LR pictures of every HR picture below `input`, by every method and scale, below `output`.

    sample: share of the pictures; size: HR is cropped to at most size x size (centre); upsampled: also write
    each LR picture enlarged back by bicubic; jobs: processes, with no influence on the result.
    A picture whose source and settings have not changed is skipped; one that cannot be read is recorded in
    the stats and the rest goes on. What a stopped run has made is not made again.
    Raises FileNotFoundError for a missing or empty folder, ValueError for an unknown method or scale or for an
    output inside the input, OSError when nothing can be written (disk full): that is no fault of a picture.
    """
    input, output = Path(input), Path(output)
    scales, methods = list(dict.fromkeys(scales)), list(dict.fromkeys(methods))
    _check(input, output, scales, methods, size, jobs)
    everything = list_pictures(input)
    stems = _lr_stems(everything)
    names = sampled(everything, sample, seed)
    output.mkdir(parents=True, exist_ok=True)
    before = _read_manifest(output) if not overwrite else {}
    settings = {"scales": scales, "methods": methods, "size": size, "upsampled": upsampled}

    start = saved = time.perf_counter()
    tasks = (
        joblib.delayed(process_picture)(input, output, n, stems[n], settings=settings, before=before.get(n, []))
        for n in names
    )
    bar = tqdm(
        joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks),
        total=len(names),
        desc="pre-generate",
        unit="picture",
        file=sys.stdout,
        disable=not progress,
        mininterval=0.5 if sys.stdout.isatty() else 30,
    )
    done = []
    try:
        for one in bar:
            done.append(one)
            if time.perf_counter() - saved > 300:  # so that a run killed after hours goes on where it was
                _write_manifest(output, done, before, names)
                saved = time.perf_counter()
    finally:
        manifest = _write_manifest(output, done, before, names)
    made = [d for d in done if d["rows"] and not d["skipped"]]
    failed = [d for d in done if not d["rows"]]
    stats = {
        "total_processed": len(made),
        "total_skipped": len(done) - len(made) - len(failed),
        "total_failed": len(failed),
        "avg_processing_time": float(np.mean([d["seconds"] for d in made])) if made else 0.0,
        "wall_seconds": time.perf_counter() - start,
        "jobs": jobs,
        "pairs": {f"{s}x": manifest[manifest["scale"] == s]["method"].value_counts().to_dict() for s in scales},
        "failures": [{"path": d["name"], "reason": d["reason"]} for d in failed],
    }
    with atomic(output / "processing_stats.json") as temporary:
        temporary.write_text(json.dumps(stats, indent=2) + "\n")
    return Result(manifest.drop(columns="settings"), stats)


def _check(input: Path, output: Path, scales: list, methods: list, size: int | None, jobs: int) -> None:
    """Everything that can be wrong with pregenerate's arguments, before the first picture is opened."""
    if not scales or not methods:
        raise ValueError("nothing to make: give at least one scale and one method")
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    for scale in scales:
        if not isinstance(scale, int) or not 1 < scale <= 8:
            raise ValueError(f"scale {scale!r} is not a whole number from 2 to 8")
    if size is not None and size < max(scales):
        raise ValueError(f"size {size} leaves no pixel at scale {max(scales)}: give a larger one, or none")
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
    owner = {}
    for name, stem in stems.items():
        if owner.setdefault(stem, name) != name:
            raise ValueError(f"{owner[stem]} and {name} would both become {stem}.png: rename one")
    return stems


def process_picture(input: Path, output: Path, name: str, stem: str, *, settings: dict, before: list[dict]) -> dict:
    """One picture, decoded once, by every scale and method. Pure: what it writes depends on its arguments.

    stem: LR path without scale, method and .png; before: the picture's rows of an earlier manifest. Returns
    {"name", "rows", "skipped", "seconds"}; without rows there is a "reason".
    """
    start = time.perf_counter()
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    targets = {(s, m): f"scale_{s}x/{m}/{stem}.png" for s in settings["scales"] for m in settings["methods"]}
    try:
        checksum = _checksum(input / name)
        if _up_to_date(output, before, set(targets.values()), checksum, key, settings["upsampled"]):
            return {"name": name, "rows": before, "skipped": True, "seconds": 0.0}
        hr = read_picture(input / name).rgb
        size = settings["size"] or max(hr.shape)
        top, left = (max(0, (side - size) // 2) for side in hr.shape[:2])
        hr = hr[top : top + size, left : left + size]
        if min(hr.shape[:2]) < max(settings["scales"]):
            raise ValueError(f"{name} is smaller than one pixel at 1/{max(settings['scales'])}; remove it")
    except (ValueError, OSError) as error:
        return {"name": name, "rows": [], "skipped": False, "seconds": 0.0, "reason": str(error)}
    rows = []
    with _one_thread():
        for scale in settings["scales"]:
            cropped = crop_to_multiple(hr, scale)
            x = to_float(cropped)
            for method in settings["methods"]:
                target = targets[scale, method]
                lr = to_integers(resize(x, scale, method), hr.dtype)
                write_png(output / target, lr)
                if settings["upsampled"]:
                    write_png(output / _enlarged(target), to_integers(enlarge(to_float(lr), scale), hr.dtype))
                row = [name, target, scale, method, top, left, *cropped.shape[:2], *lr.shape[:2]]
                row += [checksum, _checksum(output / target), key]
                rows.append(dict(zip(_COLUMNS, row, strict=True)))
    return {"name": name, "rows": rows, "skipped": False, "seconds": time.perf_counter() - start}


def _up_to_date(output: Path, before: list[dict], targets: set[str], checksum: str, key: str, upsampled: bool) -> bool:
    return {r["lr"] for r in before} == targets and all(
        r["source_checksum"] == checksum
        and r["settings"] == key
        and (output / r["lr"]).is_file()
        and (not upsampled or (output / _enlarged(r["lr"])).is_file())
        for r in before
    )


def _enlarged(target: str) -> str:
    """scale_2x/bicubic/a.png -> scale_2x/bicubic_upsampled/a.png"""
    scale, method, rest = target.split("/", 2)
    return f"{scale}/{method}_upsampled/{rest}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes are the parallel part; the caller's own setting comes back, for with one job this is its process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read_manifest(output: Path) -> dict[str, list[dict]]:
    path = output / "manifest.csv"
    if not path.is_file():
        return {}
    text = dict.fromkeys(("source_checksum", "lr_checksum", "settings"), str)  # or 16 digits become a number
    return {name: rows.to_dict("records") for name, rows in pd.read_csv(path, dtype=text).groupby("source")}


def _write_manifest(output: Path, done: list[dict], before: dict[str, list[dict]], names: list[str]) -> pd.DataFrame:
    """manifest.csv: what is done, then, of a run that is not over, what is known of the rest."""
    rows = [row for d in done for row in d["rows"]]
    rows += [row for name in names[len(done) :] for row in before.get(name, [])]
    manifest = pd.DataFrame(rows, columns=_COLUMNS)
    with atomic(output / "manifest.csv") as temporary:
        manifest.to_csv(temporary, index=False)
    return manifest


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def split_pictures(
    names: Sequence[str],
    *,
    validation: float | Sequence[str],
    test: float | Sequence[str],
    seed: int = 0,
) -> dict[str, str]:
    """{name: "train", "validation" or "test"}, by picture. validation, test: names (with or without suffix),
    or a share, which gets at least one picture. Independent of the order of `names`.
    Raises ValueError for an unknown name, a name in both parts, or when nothing is left to train on.
    """
    stems = Counter(Path(n).with_suffix("").as_posix() for n in names)
    by_stem = {Path(n).with_suffix("").as_posix(): n for n in names} | {n: n for n in names}
    split = dict.fromkeys(sorted(names), "train")
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
            if split[by_stem[name]] != "train":
                raise ValueError(f"{name} is named for validation and for test: choose one")
            split[by_stem[name]] = part
    free = [n for n, part in split.items() if part == "train"]
    free.sort(key=lambda n: hashlib.sha256(f"split/{seed}/{n}".encode()).digest())
    for part, wanted in (("validation", validation), ("test", test)):
        if isinstance(wanted, int | float) and wanted > 0:
            count = max(1, round(wanted * len(names)))
            for name in free[:count]:
                split[name] = part
            free = free[count:]
    if not free:
        raise ValueError(
            f"{len(names)} pictures leave none to train on: name fewer for validation and test, or add some"
        )
    return split


def write_description(
    data_dir: Path | str,
    *,
    hr_root: Path | str,
    split: Mapping[str, str],
    scales: Sequence[int],
    methods: Sequence[str],
) -> None:
    """data.json: what the later notebooks need to know, so that nobody tells them twice."""
    content = {
        "hr_root": str(hr_root),
        "scales": list(scales),
        "methods": list(methods),
        "split": dict(split),
    }
    with atomic(Path(data_dir) / "data.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_description(data_dir: Path | str) -> dict:
    """The content of data.json. FileNotFoundError, naming the notebook to run, when it is not there."""
    path = Path(data_dir) / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run notebooks/01_data.ipynb first, with the same `run`")
    return json.loads(path.read_text())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; a mistake ends in one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m srlib.data", description=pregenerate.__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="folder of HR pictures, searched with its subfolders")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--scales", type=int, nargs="+", default=[2])
    parser.add_argument("--methods", nargs="+", default=["bilinear", "bicubic", "lanczos"], choices=METHODS)
    parser.add_argument("--size", type=int, help="crop HR pictures to at most this many pixels a side")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the pictures, the same ones each time")
    parser.add_argument("--upsampled", action="store_true", help="also write LR pictures enlarged back")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--overwrite", action="store_true", help="redo what is up to date")
    try:
        stats = pregenerate(**vars(parser.parse_args(arguments))).stats
    except (ValueError, OSError) as error:
        print(f"srlib.data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("srlib.data: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for failure in stats["failures"]:
        print(f"left out: {failure['reason']}")
    print(
        f"{stats['total_processed']} made, {stats['total_skipped']} up to date, {stats['total_failed']} left out, "
        f"{stats['wall_seconds']:.1f} s ({stats['avg_processing_time'] * 1000:.0f} ms a picture)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
