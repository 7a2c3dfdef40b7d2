"""What 07_restoration trains and measures: networks of transposed attention on pairs of one size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from srlib.data.datasets import PicturePairs, training_patches
from srlib.evaluation.restored import Restore, evaluate_restored
from srlib.evaluation.shares import scored_together
from srlib.experiments.notebook import existing_file, need
from srlib.experiments.stages import Training
from srlib.losses.perceptual import vgg16_loss, vgg19_loss
from srlib.losses.total import TotalLoss
from srlib.losses.two_sizes import TwoSizes
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.restormer import CONFIGS, Restormer
from srlib.networks.transposed import Gate
from srlib.networks.walk import whole
from srlib.tiling.tiled import Execution
from srlib.training.settings import settings_from


def restoration(root: Path, p: Mapping) -> Training:
    """The network of p["model"], or the checkpoint p["start_from"], on the run's pairs; the four terms of each answer,
    with the learned weights of both levels. Validated by PSNR of the answer at the picture's size, 256x256 RGB.
    """
    out = root / "outputs" / p["run"]
    data = need(out / "data" / "data.json", "01_data").parent
    side = max([p["lr_patch"], *p["progressive_patches"]])
    patches = training_patches(data, scale=1, lr_patch=side)
    model = _network(root, p)
    perceptual = None
    if p["vgg16_weights"]:
        perceptual = vgg16_loss(existing_file(p["vgg16_weights"], root))
    elif p["perceptual"]:
        perceptual = vgg19_loss(existing_file(p["vgg19_weights"], root) if p["vgg19_weights"] else None)
    loss: Any
    if model.answers == "two":
        loss = TwoSizes(p["learnable"], perceptual_network=perceptual)
    else:
        weight = float(perceptual is not None)
        loss = TotalLoss(learnable=p["learnable"], perceptual=weight, perceptual_network=perceptual)
    pairs = PicturePairs(data, "validation", scale=1)
    for name, least in (("span", model.window), ("halo", 0)):  # of tiles, after the training
        if p[name] < least or p[name] % model.window:
            raise ValueError(f"{name} {p[name]} must be a multiple of {model.window} pixels, at least {least}")
    return Training(
        model,
        loss,
        patches,
        pairs,
        settings_from(p),
        out / "restoration",
        p["resume"],
        validate=_validate(pairs),
        best_by="psnr",
    )


def _network(root: Path, p: Mapping) -> Restormer:
    torch.manual_seed(p["seed"])
    if p["start_from"]:
        model: Any = load(existing_file(p["start_from"], root), checkpointing=p["checkpointing"]).hat_model
        if not isinstance(model, Restormer):
            raise ValueError(f"start_from {p['start_from']} holds a {type(model).__name__}, not a Restormer")
        model.answer = "both"
        return model
    if p["model"] not in CONFIGS:
        raise ValueError(f"model {p['model']!r} is none of {', '.join(CONFIGS)}")
    return Restormer(**CONFIGS[p["model"]], checkpointing=p["checkpointing"])


def _validate(pairs: PicturePairs) -> Any:
    """A `validate` for train: mean PSNR (dB) and SSIM at 256x256 RGB of the answer at the picture's size. Several
    processes share the pictures.
    """

    def validate(model: Restormer) -> dict[str, float]:
        ways = {"": lambda x: low(model, x)}
        table = pd.concat(scored_together(pairs, lambda item: evaluate_restored(ways, [item], full=False)))
        return {"psnr": float(np.mean(table["PSNR"])), "ssim": float(np.mean(table["SSIM"]))}

    return validate


def low(model: Restormer, x: Tensor) -> Tensor:
    """The answer at the picture's size, (1, 3, H, W), on the CPU."""
    answer = model(x.to(next(model.parameters()).device))
    return (answer[0] if isinstance(answer, tuple) else answer).float().cpu()


def ways_of(model: TiledSR, span: int, halo: int) -> dict[str, Restore]:
    """The network over the whole picture (exact, in bounded memory), with statistics over windows of `span` pixels
    where its attention allows that, and in independent tiles of `span` with `halo` pixels of context.
    """

    def by(**options: Any) -> Restore:
        return lambda x: model.tiled(x, how=Execution(on_oom="shrink"), **options)[0].clamp(0, 1)

    ways = {"whole": by(statistics="exact", tile=16 * model.window)}
    if model.hat_model.config.get("attention") == "channel":
        ways[f"windows of {span}"] = by(statistics="window", span=span, tile=16 * model.window)
    return ways | {f"tiles of {span} + {halo}": by(tile=span, halo=halo)}


@torch.no_grad()
def gates_of(model: Restormer, x: Tensor) -> dict[str, Tensor]:
    """{skip: (2, C)}: what its gate, learned, makes of the skip's means (ECA), and what it would make of the means of
    the skip's phases alone, as the published block does. x: (1, 3, H, W).
    """
    found: dict[str, Tensor] = {}

    def run(step: Any, *maps: Tensor, then: Any = None, **how: Any) -> Any:
        result = whole(step, *maps, then=then, **how)
        if isinstance(then, Gate):
            skip = maps[0].permute(0, 3, 1, 2)
            phases = torch.fft.ifft2(torch.sgn(torch.fft.fft2(skip))).real
            learned_of_phases = then(phases.sum((2, 3)), skip.shape[2] * skip.shape[3])
            found[f"level {model.levels - 1 - len(found)}"] = torch.cat([result, learned_of_phases])
        return result

    before, model.answer = model.answer, "low" if model.answers == "two" else model.answer
    try:
        model.walk(x, run)
    finally:
        model.answer = before
    return found
