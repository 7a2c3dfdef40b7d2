"""Upscale pictures with a trained model: `python -m srlib upscale MODEL INPUT OUTPUT`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from srlib.data.pictures import SUFFIXES, Picture, check_format, read_picture, to_float, to_integers, write_picture
from srlib.networks.checkpoints import load_tiled
from srlib.networks.eraser import TiledSR
from srlib.tiling.tiled import Report

MODES = {"exact": "exact", "tiled": "local", "two_pass": "two_pass"}  # of the command: tiled_apply's statistics


def upscale(model: TiledSR, picture: Picture, **options: Any) -> tuple[Picture, Report]:
    """The picture enlarged by model.scale, of the same kind: 8 or 16 bits, grey, alpha, colour profile.

    Alpha goes through the model as a grey picture, beside the colours. options: those of TiledSR.tiled, such as
    statistics, tile, halo, batch. Grey of a model for colour is the mean of what it answers; colour through a
    model for grey goes channel by channel. Returns the picture and the report of the colours' run.
    """
    colours, report = _planes(model, picture.rgb, picture.grey, options)
    alpha = None
    if picture.alpha is not None:
        alpha = _planes(model, np.repeat(picture.alpha[..., None], 3, 2), True, options)[0][..., 0]
    return replace(picture, rgb=colours, alpha=alpha), report


def _planes(model: TiledSR, planes: np.ndarray, grey: bool, options: dict) -> tuple[np.ndarray, Report]:
    """(H, W, 3) -> (H*scale, W*scale, 3) of the same integer type; only bands of it are ever floats."""
    height, width = (side * model.scale for side in planes.shape[:2])
    out = np.empty((height, width, 3), planes.dtype)
    lr = to_float(planes)
    single = model.hat_model.config["in_chans"] == 1
    x = (lr[:1] if grey else lr)[:, None] if single else lr[None]  # (1, 3, H, W), or (1 or 3, 1, H, W)

    def take(band: Tensor, top: int) -> None:
        band = band.float().cpu()
        band = band.transpose(0, 1)[0] if single else band[0]  # (channels, rows, W)
        out[top : top + band.shape[1]] = to_integers(band.mean(0, keepdim=True) if grey else band, planes.dtype)

    _, report = model.tiled(x, out=take, **options)
    return out, report


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

    scale: by how much work enlarges, to refuse beforehand what the format of the target cannot hold. A file that
    fails is named at once and the rest goes on. Returns how many were written and skipped, and what was wrong
    with the others. No file is ever half written.
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m srlib upscale",
        description="Upscale a picture, or a folder of them with its subfolders.",
        epilog="PNG, JPEG, WebP, TIFF and BMP; 8 and 16 bits; grey and transparency; the colour profile is kept, "
        "and EXIF orientation is applied. Files that exist are skipped. Exit status 1 when a file failed.",
    )
    add = parser.add_argument
    add("model", help="a checkpoint saved here, or a published HAT (.safetensors, .pth)")
    add("input", type=Path, help="a picture or a folder")
    add("output", type=Path, help="a picture or a folder")
    add("--mode", choices=MODES, default="exact", help="exact: equal to the whole picture; tiled: independent tiles")
    add("--tile", default="auto", help="LR pixels, a multiple of the window, or auto (default): as memory allows")
    add("--halo", type=int, help="LR pixels of context around a tile, for tiled and two_pass; default two windows")
    add("--blend", choices=("crop", "ramp"), default="crop", help="how tiles meet, for tiled and two_pass")
    add("--batch", type=int, default=1, help="tiles at once")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's arithmetic")
    add("--features", default="device", help="where exact keeps its maps: device, host, or a folder on a fast disk")
    add("--format", choices=[s[1:] for s in SUFFIXES], help="of the written files, whatever the output's suffix")
    add("--quality", type=int, default=95, help="of JPEG and WebP; 100 makes WebP lossless")
    add("--overwrite", action="store_true", help="write again what exists")
    return parser.parse_args()


def main() -> int:
    """The command; returns its exit status."""
    arguments = _arguments()
    try:
        model = load_tiled(arguments.model).to(arguments.device)
        suffix = f".{arguments.format}" if arguments.format else ""
        pairs = targets(arguments.input, arguments.output, suffix)
        window = model.hat_model.window_size
        halo = 2 * window if arguments.halo is None else arguments.halo
        tile = int(arguments.tile) if arguments.tile.isdigit() else arguments.tile
        if tile != "auto" and (not isinstance(tile, int) or tile == 0 or tile % window) or halo < 0 or halo % window:
            raise ValueError(f"--tile (or auto) and --halo must be multiples of the model's window, {window}")
        if arguments.batch < 1 or not 1 <= arguments.quality <= 100:
            raise ValueError("--batch must be at least 1, --quality from 1 to 100")
        if arguments.features not in ("device", "host") and not Path(arguments.features).is_dir():
            raise ValueError(f"--features {arguments.features}: give device, host, or a folder that exists")
    except (ValueError, OSError, RuntimeError, AssertionError) as error:  # the last: torch without CUDA asked for it
        print(f"{error}", file=sys.stderr)
        return 2
    options = {
        "statistics": MODES[arguments.mode],
        "tile": tile,
        "halo": halo,
        "blend": arguments.blend,
        "batch": arguments.batch,
        "features": arguments.features,
        "dtype": {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[arguments.precision],
        "on_oom": "shrink",
    }

    def work(picture: Picture, path: Path) -> Picture:
        every = 0.2 if sys.stdout.isatty() else 30
        with tqdm(total=1, file=sys.stdout, leave=False, delay=2, mininterval=every, desc=f"   {path.name}") as bar:

            def progress(done: int, total: int) -> None:
                if done == 1:  # the colours' run, the alpha's, or a restart
                    bar.n, bar.total = 0, total
                bar.update(done - bar.n)

            enlarged, report = upscale(model, picture, progress=progress, **options)
        print("   " + str(report).replace("\n", "\n   "), flush=True)
        return enlarged

    try:
        written, skipped, failed = upscale_files(
            pairs, work, scale=model.scale, quality=arguments.quality, overwrite=arguments.overwrite
        )
    except KeyboardInterrupt:
        print("stopped; what was written is whole, the rest is left for the next time", file=sys.stderr)
        return 130
    print(f"{written} written, {skipped} skipped because they exist, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
