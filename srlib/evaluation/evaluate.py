"""Scores of models on held-out pictures, whole and tiled: PSNR-Y, SSIM-Y, MS-SSIM-Y, seam figures, time, memory."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from srlib.data.pictures import to_float
from srlib.data.resize import crop_to_multiple, downscale_integers, upscale
from srlib.evaluation.metrics import ms_ssim_y, psnr_y, ssim_y
from srlib.networks.eraser import TiledSR
from srlib.progress import progress_bar
from srlib.tiling.memory import peak_of
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seams import Seams, seam_profile, seam_report
from srlib.tiling.tiled import Execution

Pictures = dict[tuple[str, str, str], Tensor]
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET5_BICUBIC = {2: 33.66, 3: 30.39, 4: 28.42}  # dB PSNR-Y, as the field's papers print it


class Pairs(Protocol):
    """Whole pictures to score on: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}, as PicturePairs has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict: ...


@torch.no_grad()
def evaluate(
    models: Mapping[str, TiledSR],
    pairs: Pairs,
    tilings: Mapping[str, dict],
    *,
    tile_batch: int = 16,
    distances: int = 32,
    memory: bool = False,
    keep: bool = True,
    whole_limit: float = 0.25,
) -> tuple[pd.DataFrame, Pictures, dict[tuple[str, str, str], Tensor]]:
    """Bicubic and every model, whole and tiled in each of several ways, on every picture of `pairs`.

    pairs: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}. tilings: by name, arguments of TiledSR.tiled
    such as those `tilings_of` makes. memory: run everything on the first picture
    once more to measure its peak. keep: False returns no pictures, for as many of them as there may be. whole_limit:
    LR megapixels above which "whole" is exact tiling, the same picture to rounding. Returns
    - a table with columns picture, variant, tiling, PSNR-Y (dB), SSIM-Y, MS-SSIM-Y (NaN for pictures below 161
      pixels), seconds, with `memory` MiB (NaN but for the first picture), and for tiled rows, against the same
      model's whole picture, TC (dB), SGR, max_difference and differing_share;
    - the pictures (C, H, W) in [0, 1], on the CPU, by (picture, variant, tiling);
    - the seam profiles E(k) by the same keys, for the tiled ones.
    """
    rows: list[dict] = []
    pictures: Pictures = {}
    profiles = {}
    bar = progress_bar(total=len(pairs) * (1 + len(models) * (1 + len(tilings))), desc="evaluate", unit="score")
    for index in range(len(pairs)):
        item = pairs[index]
        lr, hr = item["lr"][None], item["hr"][None]
        scale = hr.shape[-1] // lr.shape[-1]

        def score(
            variant: str,
            tiling: str,
            run: Callable[..., tuple[Tensor, Any]],
            device: torch.device,
            against: Tensor | None = None,
            index: int = index,
            item: dict = item,
            lr: Tensor = lr,
            hr: Tensor = hr,
            scale: int = scale,
        ) -> Tensor:
            start = time.perf_counter()
            picture, report = run(lr.to(device))
            picture = picture.clamp(0, 1).cpu()  # on a GPU the work is done only when the picture is here
            seconds = time.perf_counter() - start
            if keep:
                pictures[item["name"], variant, tiling] = picture[0]
            row = {"picture": item["name"], "variant": variant, "tiling": tiling}
            row |= {"PSNR-Y": psnr_y(picture, hr, scale).item(), "SSIM-Y": ssim_y(picture, hr, scale).item()}
            row |= {"MS-SSIM-Y": ms_ssim_y(picture, hr, scale).item(), "seconds": seconds}
            if memory and not index:
                row |= {"MiB": peak_of(lambda: run(lr.to(device)), device)[1] / 2**20}
            if against is not None:
                row |= seam_report(picture, against, report.seams)
                profiles[item["name"], variant, tiling] = seam_profile(picture, against, report.seams, distances)
            rows.append(row)
            bar.update()
            return picture

        score("bicubic", "whole", lambda x, scale=scale: (upscale(x, scale, "bicubic"), None), torch.device("cpu"))
        for variant, model in models.items():
            device = next(model.parameters()).device
            whole = score(variant, "whole", lambda x, m=model: (m.whole(x, whole_limit), None), device)
            for name, options in tilings.items():
                options = {"batch": tile_batch, **options}
                score(variant, name, lambda x, m=model, options=options: m.tiled(x, **options), device, whole)
    bar.close()
    return pd.DataFrame(rows), pictures, profiles


def tiling_name(tile: int, halo: int) -> str:
    """What a plain tiling is called in tables; tile and halo in LR pixels."""
    return f"tile {tile} halo {halo}"


def tilings_of(sizes: Sequence[tuple[int, int]]) -> dict[str, dict]:
    """Plain tilings (crop, local statistics) for `evaluate`, from pairs of tile and halo in LR pixels."""
    return {tiling_name(tile, halo): {"tile": tile, "halo": halo} for tile, halo in sizes}


def ways_to_tile(tile: int, halo: int, window: int) -> dict[str, dict]:
    """Tilings for `evaluate` that differ in one thing each; all but the first read `halo` pixels of context."""
    base = {"tile": tile, "halo": halo}
    return {
        "crop, no halo": {**base, "halo": 0},
        "crop": base,
        "mean": {**base, "blend": "mean"},
        "gaussian": {**base, "blend": "gaussian"},
        "ramp": {**base, "blend": "ramp"},
        "crop, misaligned": {**base, "halo": halo + window // 2, "window": 1},
        "two_pass": {**base, "statistics": "two_pass"},
        "exact": {"tile": tile, "statistics": "exact"},
    }


def seams_of(model: TiledSR, lr: Tensor, tile: int, halo: int) -> Seams:
    """Where the seams of this tiling of lr (C, h, w) lie in the output."""
    plan = plan_tiles(*lr.shape[-2:], tile=tile, halo=halo, window=model.window)
    return plan.seams(model.scale)


def best_median_worst(table: pd.DataFrame, variant: str, tiling: str) -> dict[str, str]:
    """{"best": name, "median": ..., "worst": ...}: pictures by how many dB PSNR-Y `variant` gains there over bicubic.

    Fewer when there are fewer than three pictures.
    """
    scores = table.pivot(index="picture", columns=["variant", "tiling"], values="PSNR-Y")
    gains = (scores[variant, tiling] - scores["bicubic", "whole"]).sort_values(ascending=False)
    ranked = {"best": gains.index[0], "worst": gains.index[-1], "median": gains.index[len(gains) // 2]}
    first = {name: rank for rank, name in reversed(ranked.items())}  # one picture can be all three
    return {rank: ranked[rank] for rank in ("best", "median", "worst") if first[ranked[rank]] == rank}


def bicubic_check(pictures: Iterable[tuple[str, np.ndarray]], scales: Sequence[int] = (2, 3, 4)) -> pd.DataFrame:
    """Mean PSNR-Y (dB) of HR pictures (name, (H, W, 3) integers) downscaled and upscaled by bicubic; index "scale".

    Every paper prints this figure for its test pictures, so it shows whether ours can be compared with theirs. For
    Set5, known by its file names, the column "published" stands beside it.
    """
    rows, names = [], []
    for name, original in pictures:
        names.append(Path(name).stem.lower().split("_")[0])
        for scale in scales:
            hr = crop_to_multiple(original, scale)
            lr = to_float(downscale_integers(hr, scale, "bicubic"))[None]
            again = upscale(lr, scale, "bicubic").clamp(0, 1)
            rows.append({"scale": scale, "PSNR-Y": psnr_y(again, to_float(hr)[None], scale).item()})
    check = pd.DataFrame(rows).groupby("scale").mean()
    if sorted(names) == sorted(SET5):
        check["published"] = check.index.map(SET5_BICUBIC)
    return check


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the pictures by variant and tiling, in the table's order."""
    numbers = table.drop(columns="picture")
    return numbers.groupby(["variant", "tiling"], sort=False).mean()


def gap_closed(table: pd.DataFrame, tiling: str, first: str) -> pd.Series:
    """Share of the mean whole-minus-tiled PSNR-Y gap of `first` that each variant has closed, in %."""
    mean = means(table)["PSNR-Y"]
    gaps = {v: mean[v, "whole"] - mean[v, tiling] for v in dict.fromkeys(table["variant"]) if (v, tiling) in mean}
    return pd.Series({v: 100 * (1 - gap / gaps[first]) for v, gap in gaps.items()}, name="gap closed, %")


def validate_on(pairs: Pairs, border: int) -> Callable[[TiledSR], dict[str, float]]:
    """A `validate` for train: mean PSNR-Y (dB) and SSIM-Y over whole pictures {"lr": (C, h, w), "hr": ...}.

    A TiledSR is run as its own use_tiling says: in tiles, or as the whole picture by exact chunks, so that a
    validation picture never needs more memory than training. Several processes share the pictures.
    """

    def validate(model: TiledSR) -> dict[str, float]:
        process = PartialState()
        options: dict[str, Any] = (
            {"batch": 16} if model.use_tiling else {"statistics": "exact", "tile": 8 * model.window}
        )
        scores = []
        for i in range(process.process_index, len(pairs), process.num_processes):
            item = pairs[i]
            lr, hr = item["lr"][None], item["hr"][None]
            prediction, _ = model.tiled(lr, how=Execution(on_oom="shrink"), **options)
            scores.append((i, psnr_y(prediction, hr, border).item(), ssim_y(prediction, hr, border).item()))
        if process.num_processes > 1:
            scores = gather_object(scores)
        _, psnr, ssim = zip(*sorted(scores), strict=True)
        return {"psnr_y": float(np.mean(psnr)), "ssim_y": float(np.mean(ssim))}

    return validate
