"""The seam viewer on models and pictures of one's own: for notebooks/viewer.ipynb and `srlib view`."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import torch
from nbformat.v4 import new_code_cell

from srlib.data.datasets import PicturePairs
from srlib.data.pictures import picture_size
from srlib.evaluation.baseline import baseline
from srlib.experiments.notebook import below, existing_file, need, project_root
from srlib.files import atomic, check_suffix, check_writable
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.show.seam_viewer import SeamViewer
from srlib.show.sides import Pair, own_picture

_STAGES = {"stage 1": "stage1", "stage 2": "tiling", "stage 3": "artifact_ft"}
_TILES, _HALOS = (16, 32, 64, 128), (0, 8, 16, 32)  # LR pixels, rounded up to the models' windows
_TESTED = 8  # of a run's test pictures at most so many


def viewer_of(
    models: Sequence[str], pictures: Sequence[Path | str], *, run: str = "demo", crop: int = 256, truth: bool = False
) -> SeamViewer:
    """The viewer on these models, "name=path" or what `load` takes, and picture files; of each the middle square of
    `crop` LR pixels. truth: the files are ground truth, and are downscaled. Without models the stages of `run`, without
    pictures its test pictures. Paths are relative to the project, where one is in one.

    Raises ValueError or FileNotFoundError naming what is wrong.
    """
    if crop < 1:
        raise ValueError(f"crop is {crop}; it must be at least 1 LR pixel")
    root = _root()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {name: model.to(device) for name, model in (_named(models, root) or _stages(run, root)).items()}
    first = next(iter(found.values()))
    files = _by_name([existing_file(path, root) for path in pictures])
    shown = {name: own_picture(file, first, crop=crop, truth=truth) for name, file in files.items()}
    shown = shown or _tested(root / "outputs" / run / "data", first.scale)
    windows = {model.window for model in found.values()}
    tiles, halos = ({-(-size // w) * w for size in sizes for w in windows} for sizes in (_TILES, _HALOS))
    return SeamViewer(shown, found, tiles=sorted(tiles), halos=sorted(halos), crop=crop)


def _root() -> Path:
    try:
        return project_root()
    except FileNotFoundError:  # installed, and used elsewhere
        return Path.cwd()


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    """Files by their names, with as many folders before them as it takes to tell them apart."""
    files = list(dict.fromkeys(files))
    for depth in range(1, max((len(file.parts) for file in files), default=0) + 1):
        named = {"/".join(file.parts[-depth:]): file for file in files}
        if len(named) == len(files):
            return named
    return {}


def _named(entries: Sequence[str], root: Path) -> dict[str, TiledSR]:
    found: dict[str, TiledSR] = {}
    for entry in entries:
        name, path = ("", entry) if below(root, entry).is_file() or "=" not in entry else entry.split("=", 1)
        file = below(root, path)
        name = name or (f"{file.parent.name}/{file.stem}" if file.is_file() else path)
        if name in found:
            raise ValueError(f"two of {list(entries)} are called {name!r}: write name=path")
        found[name] = load(file if file.is_file() else path)
    return found


def _stages(run: str, root: Path) -> dict[str, TiledSR]:
    files = {name: root / "outputs" / run / folder / "best.safetensors" for name, folder in _STAGES.items()}
    need(files["stage 1"], "02_stage1")
    return {name: load(file) for name, file in files.items() if file.is_file()}


def _tested(folder: Path, scale: int) -> dict[str, Pair]:
    pairs = PicturePairs(need(folder / "data.json", "01_data").parent, "test", scale=scale)
    items = [pairs[i] for i in range(min(_TESTED, len(pairs)))]
    return {item["name"]: (item["lr"], item["hr"]) for item in items}


def open_viewer(model: str, pictures: Sequence[Path], *, crop: int, truth: bool, page: Path | None, lab: str) -> Path:
    """`srlib view`: write outputs/viewer/viewer.ipynb, a copy of notebooks/viewer.ipynb with these parameters, and open
    it in JupyterLab, until that is ended; lab: further arguments of it. Or write the viewer as a `page` to send on.
    Returns what was written. What is wrong with the model or a picture is raised before.
    """
    if page is not None:
        check_suffix(page, ".html", ".htm")
        check_writable(page.parent)
    given = Path(model).absolute() if Path(model).is_file() else model  # else a name
    files = [existing_file(path.absolute(), Path.cwd()) for path in pictures]
    for file in files:
        picture_size(file)
    if page is not None:
        viewer = viewer_of([str(given)], files[:1], crop=crop, truth=truth)
        choices = viewer.choices["models"][viewer.a.model]
        others = [{"halo": halo} for halo in choices["halo"][1:]]
        others += [{"statistics": way} for way in choices["statistics"][1:]]
        return viewer.write_page(
            page, [*others, {"shows": baseline(viewer.results.scale)}, *([{"shows": "HR"}] if truth else [])]
        )
    load(given)
    root = project_root()
    parameters = {"models": [str(given)], "pictures": [str(file) for file in files], "crop": crop, "truth": truth}
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    injected = new_code_cell("\n".join(["# Parameters", *lines]), metadata={"tags": ["injected-parameters"]})
    notebook = nbformat.read(root / "notebooks/viewer.ipynb", 4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    notebook.cells.insert(place + 1, injected)
    copy = root / "outputs/viewer/viewer.ipynb"
    with atomic(copy) as temporary:
        nbformat.write(notebook, temporary)
    print(f"{copy}: in JupyterLab, Run > Run All Cells")
    line = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={root}", *shlex.split(lab), str(copy)]
    subprocess.run(line, check=True)
    return copy
