"""Super-resolution that stays clean when a large picture is upscaled in tiles.

    model = srlib.load("outputs/demo/artifact_ft/best.safetensors")   # or a published HAT
    picture, report = srlib.upscale(model, srlib.read_picture("photo.png"), statistics="exact")
    srlib.write_picture("large.png", picture)

Names, each loaded when it is first used:

    load                         a model file, trained here or a published HAT
    upscale                      a picture through a model, tiled or exact
    read_picture, write_picture  picture files of 8 or 16 bits, with grey, alpha and profile
    HAT, CONFIGS                 the network and its named configurations
    TiledSR                      HAT through tiles, then the artifact eraser
    plan_tiles, tiled_apply      where tiles lie; any network run by such a plan
    seam_report                  how far a tiled picture is from the whole one: TC, SGR
    TotalLoss, LearnableWeights  the weighted sum of the loss terms; learned weights
    ArtifactDetector             says where a picture has which artifact
    train, Settings              the training loop and its settings

Rooms, from the top; each imports only those below it. Everything else is imported from its room, such as
`from srlib.evaluation.evaluate import evaluate`:

    show          figures, the seam viewer, the report
    experiments   what each notebook trains and compares, its parameters
    training      the training loop, its settings, states to resume from
    losses        loss terms, learnable weights, their sum; the artifact detector
    evaluation    PSNR-Y, SSIM-Y and seam figures of models on held-out pictures
    inference     pictures and folders, upscaled
    networks      HAT, TiledSR and its eraser, model files, export
    data          pictures in and out, LR pictures, pairs, packed patches, datasets
    adapters      other people's networks as lists of steps, for exact tiling
    tiling        plans of tiles, tiled and exact evaluation, seam figures
    files, progress  atomic writes and locks; progress bars

The command is `srlib` (srlib/__main__.py).
"""

import os
from importlib import import_module
from typing import Any

# How many times a waiting thread polls before it sleeps. libgomp's own 300000 is as fast on an idle machine and ten
# times slower where other processes compute (benchmarks/shared_machine.py). Read when torch is first imported.
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


def __getattr__(name: str) -> Any:
    """A public name, from its room, when it is first asked for (PEP 562)."""
    if name == "__version__":
        value = import_module("importlib.metadata").version("srlib")
    elif name in _HOMES:
        value = getattr(import_module(f"srlib.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"srlib has no {name!r}; its names are {', '.join(_HOMES)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
