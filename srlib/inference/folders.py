"""Upscale files: a picture, or a folder with its subfolders; what the command `srlib upscale` does."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from srlib.data.pictures import SUFFIXES, Picture, check_format, read_picture, write_picture
from srlib.inference.upscale import upscale
from srlib.networks.eraser import TiledSR
from srlib.progress import progress_bar
from srlib.tiling.tiled import Execution


def upscale_folder(
    model: TiledSR,
    input: Path,
    output: Path,
    *,
    suffix: str = "",
    quality: int = 95,
    overwrite: bool = False,
    how: Execution = Execution(on_oom="shrink"),
    **options: Any,
) -> tuple[int, int, dict[Path, str]]:
    """Upscale `input`, a picture or a folder, into `output`; prints what it does.

    suffix: of the written files, such as ".png"; empty keeps each file's own. quality: of JPEG and WebP, 1-100.
    options: statistics, tile, halo, blend and batch of TiledSR.tiled. Returns what upscale_files returns.
    Raises ValueError or OSError for a mistake in the arguments, before the first picture is read.
    """
    pairs = targets(input, output, suffix)
    tile, halo = options.get("tile", model.tile_size), options.get("halo", 0)
    if tile != "auto" and (not isinstance(tile, int) or tile < 1 or tile % model.window) or halo % model.window:
        raise ValueError(f"tile (or auto) and halo must be multiples of the model's window, {model.window}")
    if halo < 0 or options.get("batch", 1) < 1 or not 1 <= quality <= 100:
        raise ValueError("halo must be at least 0, batch at least 1, quality from 1 to 100")
    if how.features not in ("device", "host") and not Path(how.features).is_dir():
        raise ValueError(f"features {how.features}: give device, host, or a folder that exists")

    def work(picture: Picture, path: Path) -> Picture:
        with progress_bar(total=1, desc=f"   {path.name}", unit="step", leave=False, delay=2, mininterval=0.2) as bar:

            def progress(done: int, total: int) -> None:
                if done == 1:  # the colours' run, the alpha's, or a restart
                    bar.n, bar.total = 0, total
                bar.update(done - bar.n)

            told = replace(how, progress=progress)
            upscaled, report = upscale(model, picture, how=told, **options)
        print("   " + str(report).replace("\n", "\n   "), flush=True)
        return upscaled

    try:
        return upscale_files(pairs, work, scale=model.scale, quality=quality, overwrite=overwrite)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the files written are complete, the same command makes the rest") from None


def targets(source: Path, output: Path, suffix: str = "") -> dict[Path, Path]:
    """Which picture is written where: a file to a file or into a folder, a folder's tree into a folder.

    suffix: of the written files, such as ".png"; empty keeps each file's own. Pictures inside `output` are not
    sources. Raises FileNotFoundError or ValueError when there is nothing to do or two would be written to one.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    if source.is_file():
        into = output / source.name if output.is_dir() or not output.suffix else output
        pairs = {source: into.with_suffix(suffix) if suffix else into}
    else:
        if output.is_file():
            raise ValueError(f"{source} is a folder, {output} a file: give a folder for the output")
        if output.resolve() == source.resolve():
            raise ValueError(f"{output} holds the pictures themselves: give another folder for the output")
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if output.resolve().is_relative_to(source.resolve()):  # an earlier run's pictures are no sources
            files = [p for p in files if not p.resolve().is_relative_to(output.resolve())]
        if not files:
            raise FileNotFoundError(f"no pictures ({', '.join(SUFFIXES)}) in {source}")
        pairs = {p: output / p.relative_to(source).with_suffix(suffix or p.suffix) for p in files}
    sources = {path.resolve() for path in pairs}
    taken: dict[Path, Path] = {}
    for path, target in pairs.items():
        if target.resolve() in sources:
            raise ValueError(f"{path} would be written over {target}, which is to be read: choose another output")
        if target.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{target}: {target.suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}")
        if target in taken:
            raise ValueError(f"{taken[target]} and {path} would both be written to {target}: rename one")
        taken[target] = path
    return pairs


def upscale_files(
    pairs: dict[Path, Path],
    work: Callable[[Picture, Path], Picture],
    *,
    scale: int,
    quality: int = 95,
    overwrite: bool = False,
) -> tuple[int, int, dict[Path, str]]:
    """Read, `work(picture, path)`, write, for each pair of paths; what exists is skipped unless `overwrite`.

    scale: by how much work upscales, to refuse beforehand what the format of the target cannot hold. A file that
    fails is named at once and the others are still upscaled. Returns how many were written and skipped, and what was
    wrong with the others. Files are written atomically.
    """
    written, skipped, failed = 0, 0, {}
    for number, (path, target) in enumerate(pairs.items(), 1):
        if target.exists() and not overwrite:
            skipped += 1
            continue
        print(f"{number}/{len(pairs)} {path}", flush=True)
        try:
            picture = read_picture(path)
            check_format(target, picture, scale)
            write_picture(target, work(picture, path), quality)
            written += 1
        except Exception as error:  # whatever is wrong with one file, the others are not to suffer
            failed[path] = str(error) or type(error).__name__
            print(f"   failed: {failed[path]}", file=sys.stderr, flush=True)
    return written, skipped, failed
