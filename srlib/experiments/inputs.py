"""What a notebook's parameters name outside its run: pictures, other runs' data, checkpoints. make runs the notebook
again when that has changed; what the notebook before it makes is none of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from srlib.data.listing import find_pictures
from srlib.experiments.notebook import below, named_paths
from srlib.files import digest, stamp

# Pictures, HDR and the values beside it. Repeated here, as PyTorch need not be imported to list them; a test compares.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".hdr", ".exr", ".npy", ".txt")


def state_of_inputs(p: Mapping, root: Path) -> str:
    """A digest of the names, sizes and times of all files that a notebook with the parameters `p` reads so."""
    return digest(_lines(p, root))


def _lines(p: Mapping, root: Path) -> Iterator[str]:
    if (folder := p.get("input")) and folder != "embedded":
        folder = below(root, folder)
        for path in find_pictures(folder, SUFFIXES).files:
            yield _line(path, path.relative_to(folder).as_posix())
    for run in p.get("also", ()):
        yield _line(root / "outputs" / run / "data" / "data.json", run)
    for name in ("start_from", "vgg16_weights", "vgg19_weights", "anime_weights", "lpips_weights"):
        if p.get(name):
            yield _line(below(root, p[name]), name)
    if (model := p.get("model")) and below(root, model).is_file():  # of 09; elsewhere it is a name
        yield _line(below(root, model), "model")
    for entry in p.get("checkpoints", ()):
        try:
            ((name, path),) = named_paths([entry], root).items()
            yield _line(path, name)
        except OSError:
            yield f"{entry} is missing"
    if recipe := p.get("recipe"):
        for path in sorted((root / "params" / recipe).glob("*.yaml")):
            yield f"{path.name} {path.read_text()}"


def _line(path: Path, name: str) -> str:
    try:
        size, time = stamp(path)
        return f"{name} {size} {time}"
    except OSError:
        return f"{name} is missing"
