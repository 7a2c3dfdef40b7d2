"""Scores of models on held-out pictures, whole and tiled, by the protocol of metrics.py and tiling.py."""

import sys
import time
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from srlib.eraser import TiledSR
from srlib.metrics import psnr_y, ssim_y
from srlib.pictures import enlarge
from srlib.tiling import Seams, plan_tiles, seam_profile, seam_report

Pictures = dict[tuple[str, str, str], Tensor]


@torch.no_grad()
def evaluate(
    models: Mapping[str, TiledSR],
    pairs: Dataset,
    tilings: Sequence[tuple[int, int]],
    *,
    tile_batch: int = 16,
    distances: int = 32,
) -> tuple[pd.DataFrame, Pictures, dict[tuple[str, str, str], Tensor]]:
    """Bicubic and every model, whole and with each (tile, halo) in LR pixels, on every picture of `pairs`.

    pairs: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}. Returns
    - a table with columns picture, variant, tiling, PSNR-Y (dB), SSIM-Y, seconds, and for tiled rows TC (dB),
      SGR, max_difference, differing_share (against the same model's whole picture);
    - the pictures (C, H, W) in [0, 1], on the CPU, by (picture, variant, tiling);
    - the seam profiles E(k) by the same keys, for the tiled ones.
    """
    rows: list[dict] = []
    pictures: Pictures = {}
    profiles = {}
    bar = tqdm(
        total=len(pairs) * (1 + len(models) * (1 + len(tilings))),
        desc="evaluate",
        file=sys.stdout,
        mininterval=0.5 if sys.stdout.isatty() else 30,
    )
    for index in range(len(pairs)):
        item = pairs[index]
        lr, hr = item["lr"][None], item["hr"][None]
        scale = hr.shape[-1] // lr.shape[-1]

        def score(variant, tiling, picture, seconds, extra=None, item=item, hr=hr, scale=scale):
            picture = picture.clamp(0, 1).cpu()
            pictures[item["name"], variant, tiling] = picture[0]
            rows.append(
                {"picture": item["name"], "variant": variant, "tiling": tiling}
                | {"PSNR-Y": psnr_y(picture, hr, scale).item(), "SSIM-Y": ssim_y(picture, hr, scale).item()}
                | {"seconds": seconds}
                | (extra or {})
            )
            bar.update()
            return picture

        start = time.perf_counter()
        score("bicubic", "whole", enlarge(lr, scale, "bicubic"), time.perf_counter() - start)
        for variant, model in models.items():
            device = next(model.parameters()).device
            before = model.use_tiling, model.tile_size, model.tile_pad, model.tile_batch
            start = time.perf_counter()
            whole = model.erase(model.hat_model(lr.to(device)))
            whole = score(variant, "whole", whole, time.perf_counter() - start)
            for tile, halo in tilings:
                model.tile_size, model.tile_pad, model.tile_batch = tile, halo, tile_batch
                start = time.perf_counter()
                tiled, plan = model.tiled(lr.to(device))
                seconds = time.perf_counter() - start
                tiled = tiled.clamp(0, 1).cpu()
                seams = plan.seams(scale)
                tiling = tiling_name(tile, halo)
                score(variant, tiling, tiled, seconds, seam_report(tiled, whole, seams))
                profiles[item["name"], variant, tiling] = seam_profile(tiled, whole, seams, distances)
            model.use_tiling, model.tile_size, model.tile_pad, model.tile_batch = before
    bar.close()
    return pd.DataFrame(rows), pictures, profiles


def tiling_name(tile: int, halo: int) -> str:
    return f"tile {tile} halo {halo}"


def seams_of(model: TiledSR, lr: Tensor, tile: int, halo: int) -> Seams:
    """Where the seams of this tiling of lr (C, h, w) lie in the output."""
    plan = plan_tiles(*lr.shape[-2:], tile=tile, halo=halo, window=model.hat_model.window_size)
    return plan.seams(model.scale)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the pictures by variant and tiling, in the table's order."""
    numbers = table.drop(columns="picture")
    return numbers.groupby(["variant", "tiling"], sort=False).mean()


def gap_closed(table: pd.DataFrame, tiling: str, first: str) -> pd.Series:
    """Share of the mean whole-minus-tiled PSNR-Y gap of `first` that each variant has closed, in %."""
    mean = means(table)["PSNR-Y"]
    gaps = {v: mean[v, "whole"] - mean[v, tiling] for v in dict.fromkeys(table["variant"]) if (v, tiling) in mean}
    return pd.Series({v: 100 * (1 - gap / gaps[first]) for v, gap in gaps.items()}, name="gap closed, %")
