"""Upscale files: a picture, or a folder with its subfolders; what the command `srlib upscale` does."""

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from srlib.data.listing import Listing, find_pictures
from srlib.data.pictures import SUFFIXES, Picture, check_format, read_picture, write_picture
from srlib.files import check_name, check_writable, printable
from srlib.inference.extras import Extras, upscale_with
from srlib.inference.upscale import check_precision
from srlib.networks.eraser import TiledSR
from srlib.networks.wrappers import unwrapped
from srlib.progress import progress_bar
from srlib.tiling.exact import Chunks
from srlib.tiling.memory import free_bytes
from srlib.tiling.tiled import WALKED, Execution

Results = tuple[int, int, dict[Path, str]]  # how many were written and skipped; what was wrong with the others
# What the output's disk says of every file, not of one.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENODEV, errno.ESTALE)


def upscale_folder(
    model: TiledSR,
    input: Path,
    output: Path,
    *,
    suffix: str = "",
    quality: int = 95,
    overwrite: bool = False,
    extras: Extras = Extras(),
    workers: Callable[[dict[Path, Path]], Results] | None = None,
    how: Execution = Execution(on_oom="shrink"),
    **options: Any,
) -> Results:
    """Upscale `input`, a picture or a folder, into `output`; prints what it does.

    suffix: of the written files, such as ".png"; empty keeps each file's own. quality: of JPEG and WebP, 1-100.
    workers: what does the work instead of this process, after all checks, see srlib.inference.on_dask.
    options: statistics, span, tile, halo, blend and batch of TiledSR.tiled. Returns what upscale_files returns; broken
    links and folders that cannot be read are among what failed.
    Raises ValueError or OSError for a mistake in the arguments, or an output that cannot be written, before the first
    picture is computed; OSError also when the output's disk is full or gone later on.
    """
    pairs, found = targets(input, output, suffix)
    tile, halo = options.get("tile", model.tile_size), options.get("halo", 0)
    halo = halo if isinstance(halo, int) else 0  # chosen for each picture
    if tile != "auto" and (not isinstance(tile, int) or tile < 1 or tile % model.window) or halo % model.window:
        raise ValueError(f"tile (or auto) and halo must be multiples of the model's window, {model.window}")
    span, windowed = options.get("span", 0), options.get("statistics") == "window"
    if windowed and (span < 1 or span % model.window):
        raise ValueError(
            f"statistics window needs span, a multiple of {model.window} LR pixels: the size of the patches that the "
            "network was trained on"
        )
    if span and not windowed:
        raise ValueError(f"span {span} is for statistics window, not {options.get('statistics', 'local')}")
    network: Any = unwrapped(model.hat_model)
    if options.get("statistics") in WALKED and not hasattr(network, "walk"):
        name = getattr(network, "name", type(network).__name__)
        raise ValueError(f"{name} cannot be tiled exactly here: use statistics local, tiles with context")
    check_precision(model, how)
    if (channels := model.hat_model.config["in_chans"]) not in (1, 3):
        raise ValueError(f"the network takes {channels} channels, pictures have 1 or 3: it is not for files")
    if windowed:  # a network that takes no sums over windows says so now
        pixel = torch.zeros(1, channels, 1, 1)
        Chunks(model.window, device=model.out_conv.weight.device, spans=span).steps(model.hat_model, pixel)
    if halo < 0 or options.get("batch", 1) < 1 or not 1 <= quality <= 100:
        raise ValueError("halo must be at least 0, batch at least 1, quality from 1 to 100")
    check_features(how)
    hinted = False

    def work(picture: Picture, path: Path) -> Picture:
        nonlocal hinted
        with shown(path, how) as watched:
            upscaled, report = upscale_with(model, picture, extras, how=watched, **options)
        hints = [note for note in report.notes if note.startswith("hint")]
        if hinted:  # one a run is enough
            report.notes = [note for note in report.notes if note not in hints]
        hinted = hinted or bool(hints)
        print("   " + str(report).replace("\n", "\n   "), flush=True)
        return upscaled

    try:
        if workers is not None:
            written, skipped, failed = workers(pairs)
        else:
            check = partial(check_size, extras)
            about: dict[str, Any] = {"scale": model.scale, "quality": quality, "overwrite": overwrite, "check": check}
            written, skipped, failed = upscale_files(pairs, work, **about)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the files written are complete, the same command makes the rest") from None
    for path, why in found.troubles.items():
        say_failed(f"{path} {why}")
    for sentence in found.left_alone:
        print(f"left alone: {printable(sentence)}")
    return written, skipped, failed | found.troubles


def check_features(how: Execution) -> None:
    """Raise ValueError or OSError when the features are to lie in a folder that is not there or cannot be written."""
    if how.features not in ("device", "host"):
        if not Path(how.features).is_dir():
            raise ValueError(f"features {how.features}: give device, host, or a folder that exists")
        check_writable(Path(how.features))


def check_size(extras: Extras, target: Path, picture: Picture, scale: int) -> None:
    """Raise ValueError when the target's format cannot hold the picture as large as it gets, or memory cannot."""
    factor, rgb = extras.factor(picture, scale), picture.rgb
    check_format(target, picture, factor)
    needed, free = rgb.nbytes * factor**2, free_bytes(torch.device("cpu"))
    if needed > free:
        height, width = (round(side * factor) for side in rgb.shape[:2])
        raise ValueError(
            f"the output, {width}x{height} pixels, needs {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are "
            "free: ask for a smaller output, with --outscale or --width"
        )


@contextmanager
def shown(path: Path, how: Execution) -> Iterator[Execution]:
    """`how`, with a progress bar of this file that appears after two seconds."""
    name = printable(path.name)
    with progress_bar(total=1, desc=f"   {name}", unit="step", leave=False, delay=2, mininterval=0.2) as bar:

        def progress(done: int, total: int) -> None:
            if done == 1:  # the run, or a restart
                bar.n, bar.total = 0, total
            bar.update(done - bar.n)

        yield replace(how, progress=progress)


def targets(
    source: Path, output: Path, suffix: str = "", known: Sequence[str] = SUFFIXES
) -> tuple[dict[Path, Path], Listing]:
    """Which picture is written where: a file to a file or into a folder, a folder's tree into a folder; and what a
    folder holds besides (find_pictures).

    suffix: of the written files, such as ".png"; empty keeps each file's own. known: those that can be written.
    Pictures inside `output` are not
    sources. Raises FileNotFoundError or ValueError when there is nothing to do or two would be written to one.
    """
    found = Listing()
    if not source.exists():
        broken = f"is a broken link to {source.readlink()}" if source.is_symlink() else "does not exist"
        raise FileNotFoundError(f"{source} {broken}")
    if not source.is_dir():
        if not source.is_file():
            raise ValueError(f"{source} is a pipe, socket or device, not a file")
        into = output / source.name if output.is_dir() or not output.suffix else output
        pairs = {source: into.with_suffix(suffix) if suffix else into}
    else:
        if output.is_file() or (output.suffix.lower() in known and not output.exists()):
            raise ValueError(f"{source} is a folder, {output} a file: give a folder for the output")
        if output.resolve() == source.resolve():
            raise ValueError(f"{output} holds the pictures themselves: give another folder for the output")
        inside = output.resolve().is_relative_to(source.resolve())
        found = find_pictures(source, output=output if inside else None)  # an earlier run's pictures are no sources
        if not found.files:
            why = "".join(f"; {path} {trouble}" for path, trouble in list(found.troubles.items())[:3])
            why += "".join(f"; left alone: {sentence}" for sentence in found.left_alone[:3])
            raise FileNotFoundError(f"no pictures ({', '.join(SUFFIXES)}) in {source}{why}")
        pairs = {p: output / p.relative_to(source).with_suffix(suffix or p.suffix) for p in found.files}
    sources = {path.resolve() for path in pairs}
    taken: dict[Path, Path] = {}
    for path, target in pairs.items():
        if target.resolve() in sources:
            raise ValueError(f"{path} would be written over {target}, which is to be read: choose another output")
        if target.suffix.lower() not in known:
            raise ValueError(f"{target}: {target.suffix or 'no suffix'} is none of {', '.join(known)}")
        if target in taken:
            raise ValueError(f"{taken[target]} and {path} would both be written to {target}: rename one")
        taken[target] = path
    for target in taken:
        if above := next((folder for folder in target.parents if folder in taken), None):
            raise ValueError(f"{taken[above]} would be written to {above}, a folder of {target}: rename one")
    return pairs, found


def upscale_files(
    pairs: dict[Path, Path],
    work: Callable[[Picture, Path], Any],
    *,
    scale: int,
    quality: int = 95,
    overwrite: bool = False,
    check: Callable[[Path, Picture, int], None] | None = None,
    write: Callable[[Path, Any, int], object] | None = None,
) -> tuple[int, int, dict[Path, str]]:
    """Read, `work(picture, path)`, write, for each pair of paths; what exists is skipped unless `overwrite`.

    scale: by how much work upscales, for `check(target, picture, scale)`, by default check_format, to refuse beforehand
    what the format of the target cannot hold. write: called with the target, what work made of the picture, and the
    quality; by default write_picture. A file that
    fails is named at once and the others are still upscaled. Returns how many were written and skipped, and what was
    wrong with the others. Files are written atomically. Raises OSError when nothing can be written, a full disk or a
    folder that is read-only: before the first picture is read, or as soon as it is known.
    """
    written, skipped, failed = 0, 0, {}
    for folder in dict.fromkeys(p.parent for p in pairs.values() if overwrite or not os.path.exists(p)):
        check_writable(folder)
    for path, target in pairs.items():
        try:
            check_name(target)
            if target.is_dir():
                raise IsADirectoryError(f"{target} is a folder: rename it, or choose another output")
        except OSError as error:
            failed[path] = str(error)
            say_failed(f"{path}: {error}")
    for number, (path, target) in enumerate(pairs.items(), 1):
        if path in failed:
            continue
        if target.exists() and not overwrite:
            skipped += 1
            continue
        try:
            check_writable(target.parent)  # it may have filled up since
        except OSError as error:
            raise _ended(str(error), written) from error
        print(f"{number}/{len(pairs)} {printable(path)}", flush=True)
        try:
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always", UserWarning)
                picture = read_picture(path)
                (check or check_format)(target, picture, scale)
            for note in noted:
                print(f"   {printable(str(note.message))}", flush=True)
            if picture.pages > 1:
                print(f"   {picture.pages} pages or frames, only the first is written", flush=True)
            upscaled = work(picture, path)
        except Exception as error:  # whatever is wrong with one file, the others are not to suffer
            failed[path] = str(error) or type(error).__name__
            say_failed(failed[path])
            continue
        try:
            (write or write_picture)(target, upscaled, quality)
            written += 1
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise _ended(f"cannot write {printable(target)} ({error.strerror})", written) from error
            failed[path] = str(error) or type(error).__name__
            say_failed(failed[path])
    return written, skipped, failed


def _ended(why: str, written: int) -> OSError:
    return OSError(f"{why}: the {written} written are complete, the same command makes the rest")


def say_failed(what: str) -> None:
    """Print why a file failed, where errors go."""
    print(f"   failed: {printable(what)}", file=sys.stderr, flush=True)
