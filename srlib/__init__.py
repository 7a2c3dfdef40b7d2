"""Super-resolution that stays clean when a large picture is upscaled in tiles.

    model = srlib.load("outputs/demo/artifact_ft/best.safetensors")   # or a published HAT
    picture, report = srlib.upscale(model, srlib.read_picture("photo.png"), statistics="exact")
    srlib.write_picture("large.png", picture)

The rooms, from the top; each imports only those below it:

    show          figures, the seam viewer, the report
    experiments   what each notebook trains and compares, its parameters
    training      the training loop, its settings, states to resume from
    losses        loss terms, learnable weights, their sum; the artifact detector
    evaluation    PSNR-Y, SSIM-Y, seam figures;    inference   files and folders upscaled
    networks      HAT, TiledSR and its eraser, checkpoints, export
    data          pictures in and out, LR pictures, pairs, packed patches, datasets
    tiling        plans of tiles, tiled and exact evaluation, seam figures
    files.py      atomic files and locks

The names below are loaded when they are first used; everything else is imported from its room, such as
`from srlib.evaluation.evaluate import evaluate`. The command is `srlib` (srlib/__main__.py).
"""

import os
from importlib import import_module

# How often threads that wait for each other look before they sleep. libgomp's own 300000 is as fast on an idle machine
# and ten times slower where other processes compute (benchmarks/shared_machine.py). Read when torch is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")

_HOMES = {
    "load": "networks.checkpoints",
    "HAT": "networks.hat",
    "CONFIGS": "networks.hat",
    "TiledSR": "networks.eraser",
    "upscale": "inference.upscale",
    "read_picture": "data.pictures",
    "write_picture": "data.pictures",
    "tiled_apply": "tiling.tiled",
    "plan_tiles": "tiling.plan",
    "seam_report": "tiling.seams",
    "TotalLoss": "losses.total",
    "LearnableWeights": "losses.weights",
    "ArtifactDetector": "losses.detector",
    "train": "training.train",
    "Settings": "training.settings",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    """A public name, from its room, when it is first asked for (PEP 562)."""
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("srlib")
    elif name in _HOMES:
        value = getattr(import_module(f"srlib.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"srlib has no {name!r}; its names are {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
