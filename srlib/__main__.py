"""The command `srlib`, also `python -m srlib`. Nothing heavy is imported before the subcommand is known.

srlib upscale MODEL INPUT OUTPUT      pictures, upscaled or restored without seams
srlib reach MODEL                     how far the network looks, and what context costs
srlib hdr MODEL INPUT OUTPUT          LDR pictures as HDR, .exr, .hdr or gain-map JPEG
srlib data --input hr --output data   LR pictures out of HR pictures
srlib train params/<run>/02_stage1.yaml
srlib export MODEL model.onnx         with --tile 64 for tiles of one size, and the eraser beside it
srlib view MODEL PICTURE               tiles, their seams and the whole picture, compared in JupyterLab
srlib report outputs/<run>/05_eval.ipynb
srlib gallery outputs/<run>/*.ipynb   as pages to browse
srlib new mine vram12 my_photos       params/mine/, as params/vram12/ for pictures of one's own
srlib check-parameters params/<run>
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srlib.commands.options import (
    Failed,
    Intermixed,
    device_options,
    ended,
    execution,
    placed,
    plain_warnings,
    tile_size,
    unseen_options,
)
from srlib.commands.upscaling import run_upscale, upscale_options
from srlib.files import printable

# Choices that PyTorch need not be imported for; tests compare them with the constants they repeat.
HDR_FORMATS = ("exr", "hdr", "npy", "jpg")
METHODS = ("nearest", "bilinear", "bicubic", "lanczos", "area")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. 1: some files failed, or a check found differences (data leaves out
    what is no picture, names it, and has not failed); 2: it could not run, or broke off, and says why; 130: it was
    stopped. argparse itself exits with 2.
    """
    parser = argparse.ArgumentParser(prog="srlib", description="Super-resolution without seams.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Intermixed)
    for name, add, run, what in (
        (
            "upscale",
            upscale_options,
            run_upscale,
            "upscale or restore a picture, or a folder of them with its subfolders",
        ),
        ("reach", _reach_options, _reach, "say how far a network looks, found by running it, and what context costs"),
        ("hdr", _hdr_options, _hdr, "make HDR of an LDR picture, or of a folder of them, by a trained DiffIR"),
        ("data", _data_options, _data, "make LR pictures out of a folder of HR pictures"),
        ("train", _train_options, _train, "train what a notebook trains; see accelerate launch for several devices"),
        ("export", _export_options, _export, "write a model as ONNX, for pictures of any size or tiles of one"),
        ("view", _view_options, _view, "compare tilings of a picture in JupyterLab, or in a page to send on"),
        ("report", _report_options, _report, "write an executed notebook as one HTML file without code"),
        ("gallery", _gallery_options, _gallery, "write executed notebooks as pages to browse, without code"),
        ("new", _new_options, _new, "begin a run of your own: another one's parameter files, for your pictures"),
        ("check-parameters", _check_options, _check, "check a run's parameter files before its first notebook"),
    ):
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        add(command)
        command.set_defaults(run=run, prog=command.prog)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is escaped
    given = vars(parser.parse_args(arguments))
    run, prog = given.pop("run"), given.pop("prog")
    try:
        with plain_warnings():
            return run(**given)
    except KeyboardInterrupt as stopped:
        print(f"{prog}: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError, Failed) as error:
        said = "; ".join([f"{prog}: {error}", *getattr(error, "__notes__", ())])
        print("\n".join(map(printable, said.splitlines())), file=sys.stderr)
        return 2


def _reach_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="what srlib upscale takes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU where there is one")
    parser.add_argument("--seconds", type=float, default=120.0, help="what it may take, about; default 120")


def _reach(model: str, *, device: str | None, seconds: float) -> int:
    from srlib.inference.auto_halo import reach_of
    from srlib.networks.checkpoints import load

    print(reach_of(placed(load(model, light=True), device), seconds=seconds))
    return 0


def _hdr_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "An LDR picture is taken as clip(light / 1000 * dgain, 0, 1) ** (1 / gamma) of light in cd/m2. A text file of "
        "its name beside it, with lines dgain: and gamma:, says so for one picture, the options for all others."
    )
    add = parser.add_argument
    add("model", help="a checkpoint of DiffIR's second stage, made by 08_hdr or published")
    add("input", type=Path, help="an LDR picture or a folder")
    add("output", type=Path, help="an HDR file or a folder")
    add("--format", choices=HDR_FORMATS, help="of the written files; jpg: with a gain map, readable everywhere")
    add("--dgain", type=float, default=10.0, help="default 10: white is at 100 cd/m2")
    add("--gamma", type=float, default=2.2, help="default 2.2")
    add("--preview", action="store_true", help="also write a tone-mapped PNG of each, NAME_preview.png")
    add("--tile", default="auto", help="pixels of the chunks, a multiple of 8, or auto (default): as memory allows")
    device_options(parser)
    add("--quality", type=int, default=95, help="quality of JPEG, default 95")
    add("--overwrite", action="store_true", help="write again what exists")


def _hdr(
    model: str,
    input: Path,
    output: Path,
    *,
    device: str | None,
    precision: str,
    features: str,
    format: str | None,
    tile: str,
    **given: Any,
) -> int:
    from srlib.inference.hdr_folder import hdr_folder
    from srlib.networks.checkpoints import load

    network = placed(load(model, light=True), device)
    given |= {"tile": tile_size(tile), "suffix": f".{format}" if format else "", "how": execution(precision, features)}
    return ended(*hdr_folder(network, input, output, **given))


def _data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", required=True, help="folder of HR pictures, searched with its subfolders")
    add("--output", required=True, help="folder to write to")
    add("--scales", type=int, nargs="+", default=[2], help="whole numbers from 2 to 8; default 2")
    add(
        "--methods",
        nargs="+",
        default=["bilinear", "bicubic", "lanczos"],
        choices=METHODS,
        help="default bilinear bicubic lanczos; each makes an LR picture of every HR picture and scale",
    )
    add("--size", type=int, help="crop HR pictures to at most this many pixels a side")
    add("--sample", type=float, default=1.0, help="share of the pictures, the same ones each time")
    add("--upscaled", action="store_true", help="also write LR pictures upscaled back to HR size")
    add(
        "--blur",
        type=float,
        nargs=2,
        default=(0, 0),
        metavar=("LOW", "HIGH"),
        help="before downscaling; sigma in HR pixels",
    )
    add("--noise", type=float, nargs=2, default=(0, 0), metavar=("LOW", "HIGH"), help="on LR; sigma in levels of 255")
    add("--before", default="", help="compress before downscaling: jpeg or webp")
    add("--after", default="", help="compress the LR picture: jpeg or webp")
    add("--quality", type=int, nargs=2, default=(60, 95), metavar=("LOW", "HIGH"), help="of both, 1-100")
    add("--jobs", type=int, default=1, help="processes, -1 for one a core")
    add("--dask", metavar="ADDRESS", help='a Dask scheduler, or "local": its workers do the work')
    add("--overwrite", action="store_true", help="redo what is up to date")
    add("--verify", action="store_true", help="make nothing, compare every file with its checksum in the manifest")


def _data(**given: Any) -> int:
    from srlib.data.degrade import Degradation
    from srlib.data.manifest import verify
    from srlib.data.parallel import cluster
    from srlib.data.pregenerate import Recipe, pregenerate

    check, address = given.pop("verify"), given.pop("dask")
    if check:
        complaints = verify(given["input"], given["output"], jobs=given["jobs"])
        print("\n".join([*complaints, f"{len(complaints)} differences"]))
        return 1 if complaints else 0
    degradation = Degradation(**{name: given.pop(name) for name in ("blur", "noise", "before", "after", "quality")})
    settings = {name: given.pop(name) for name in ("scales", "methods", "size", "upscaled")}
    try:
        with cluster(address, given["jobs"]):
            stats = pregenerate(recipe=Recipe(**settings, degradation=degradation), **given).stats
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command resumes from here") from None
    except RuntimeError as error:  # of a worker that was killed, of a Dask scheduler that is gone
        raise Failed(error) from error
    for failure in stats["failures"]:
        print(f"left out: {failure['reason']}")
    for sentence in stats["left_alone"]:
        print(f"left alone: {sentence}")
    print(
        f"{stats['total_processed']} made, {stats['total_skipped']} up to date, {stats['total_failed']} left out, "
        f"{stats['wall_seconds']:.1f} s ({stats['avg_processing_time'] * 1000:.0f} ms a picture)"
    )
    return 0


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Several devices: accelerate launch -m srlib train params/<run>/02_stage1.yaml."
    parser.add_argument("parameters", type=Path, help="a notebook's parameter file, params/<run>/<notebook>.yaml")
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="VALUE instead of the file's; may be repeated",
    )


def _train(parameters: Path, p: list[list[str]]) -> int:
    import yaml

    from srlib.experiments.commands import train_notebook
    from srlib.training.resume import Stopped

    over = {}
    for name, value in p:
        try:
            over[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"-p {name} {value}: {' '.join(str(error).split())}") from error
    try:
        train_notebook(parameters, over)
    except yaml.YAMLError as error:
        raise ValueError(f"{parameters}: {' '.join(str(error).split())}") from error
    except Stopped as error:
        raise Failed(error) from error
    return 0


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a checkpoint made here, or a published HAT or Restormer")
    parser.add_argument("output", type=Path, help="the ONNX file to write")
    parser.add_argument(
        "--tile",
        type=int,
        help="LR pixels, a multiple of the window: HAT for tiles of this one size, and the eraser as OUTPUT_eraser",
    )
    parser.add_argument("--halo", type=int, help="with --tile: LR pixels of context around it; default the model's")
    parser.add_argument("--answer", choices=("low", "high"), help="of a network with two answers; default low")
    unseen_options(parser)


def _export(
    model: Path, output: Path, *, tile: int | None, halo: int | None, answer: str | None, **unseen: float | None
) -> int:
    from srlib.networks.export import export_file
    from srlib.networks.export_tiles import export_tile_files

    if tile is not None:
        worst = export_tile_files(model, output, tile=tile, halo=halo, **unseen)
    elif halo is not None:
        raise ValueError("--halo is the context of tiles: give their size with --tile, too")
    else:
        worst = export_file(model, output, answer=answer, **unseen)
    if worst > 1e-3:
        print(f"error: {output} does not give PyTorch's picture; do not use it", file=sys.stderr)
        return 1
    return 0


def _view_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="what `srlib upscale` takes")
    add("pictures", type=Path, nargs="+", metavar="PICTURE", help="of the first the viewer shows its middle at once")
    add("--crop", type=int, default=256, help="LR pixels of that square, default 256; more takes longer")
    add("--truth", action="store_true", help="the pictures are ground truth: downscale them first, and compare")
    add("--page", type=Path, help="write an HTML page of the first picture instead, to send on")
    add("--lab", default="", help='arguments for JupyterLab: --lab="--no-browser --allow-root"')


def _view(model: str, pictures: list[Path], **given: Any) -> int:
    import subprocess

    from srlib.show.view import open_viewer

    try:
        print(open_viewer(model, pictures, **given))
    except subprocess.CalledProcessError as error:
        raise Failed(f"JupyterLab ended with status {error.returncode}") from error
    return 0


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", type=Path, help="an executed notebook")
    parser.add_argument("html", type=Path, nargs="?", help="default: beside it, with the suffix .html")


def _report(notebook: Path, html: Path | None) -> int:
    from srlib.show.report import write_report

    print(write_report(notebook, html or notebook.with_suffix(".html")))
    return 0


def _gallery_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebooks", type=Path, nargs="+", help="executed notebooks")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), help="a folder; default docs/results")


def _gallery(notebooks: list[Path], output: Path) -> int:
    from srlib.show.gallery import write_gallery

    print(*(printable(str(page)) for page in write_gallery(notebooks, output)), sep="\n")
    return 0


def _new_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="its name, a new folder of params/ and of outputs/")
    parser.add_argument("start", metavar="FROM", help="the run to begin from, a folder of params/")
    parser.add_argument("pictures", metavar="INPUT", help="a folder of pictures, or embedded")


def _new(name: str, start: str, pictures: str) -> int:
    from srlib.experiments.new_run import new_run
    from srlib.experiments.notebook import project_root

    for file in new_run(project_root(), name, start, pictures):
        print(printable(str(file)))
    return 0


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="params/<run>")


def _check(folder: Path) -> int:
    from srlib.experiments.parameters import complaints

    found = complaints(folder)
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
