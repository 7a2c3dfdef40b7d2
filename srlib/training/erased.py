"""How well an eraser does on held-out pictures, out of the frozen network's answers to them."""

import math
from collections.abc import Callable

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from srlib.evaluation.metrics import RESTORED, blank, psnr_y
from srlib.networks.eraser import TiledSR
from srlib.tiling.seams import consistency, seam_gradient_ratio
from srlib.training.answers import Answers

_EQUAL = 150.0  # dB: TC of pictures that are equal to rounding, which infinity would keep from being compared


def erased(model: TiledSR, item: dict, halo: int) -> Tensor:
    """The stitched picture of an item of Answers as `model` erases it in use: in its own unit for tiles with `halo` LR
    pixels of context, not in that of these pictures, which nobody knows in use. (1, C, H, W).
    """
    lr, stitched, seams, _ = (part[None].to(model.out_conv.weight.device) for part in item["lr"])
    return model(lr, stitched, seams, model.unit(halo))


def validate_erased(answers: Answers) -> Callable[[TiledSR], dict[str, float]]:
    """A `validate` for train: mean TC (dB) of the erased against the whole pictures, SGR, and PSNR-Y (dB) against the
    ground truth, over the crops of `answers`, whose network runs for this only once.

    Of the grids with several sizes of tiles and contexts those count whose tiling makes an error that is worth erasing.
    Means are over the pictures that have the figure: SGR of flat ones and PSNR-Y of blank or tiny ones are left out.
    """

    def validate(model: TiledSR) -> dict[str, float]:
        crops, process = answers.turn(0), PartialState()
        answers.measure()
        answers.make(crops)
        plans = [(crop, grid, answers.plan(crop, grid)) for crop in crops for grid in range(answers.crops.grids)]
        items = list({(crop, plan.tile, plan.halo): (crop, grid, plan) for crop, grid, plan in plans}.values())
        erasing = [entry for entry in items if model.unit(entry[2].halo)] or items
        rows = []
        for crop, grid, plan in erasing[process.process_index :: process.num_processes]:
            item = answers.patch(crop, grid)
            picture, whole, hr = erased(model, item, plan.halo).cpu(), item["target"][0][None], item["hr"][None]
            picture, whole = picture.clamp(0, 1), whole.clamp(0, 1)
            detail = not blank(hr, answers.scale).item()
            psnr = psnr_y(picture, hr, answers.scale).clamp(max=RESTORED).item() if detail else math.nan
            sgr = seam_gradient_ratio(picture, whole, plan.seams(answers.scale))
            rows.append((crop, grid, {"tc": min(consistency(picture, whole), _EQUAL), "sgr": sgr, "psnr_y": psnr}))
        if process.num_processes > 1:
            rows = gather_object(rows)
        ordered = [row for *_, row in sorted(rows, key=lambda entry: entry[:2])]
        means = {}
        for name in ("tc", "sgr", "psnr_y"):
            values = [row[name] for row in ordered if math.isfinite(row[name])]
            means[name] = float(np.mean(values)) if values else math.nan
        return means

    return validate
