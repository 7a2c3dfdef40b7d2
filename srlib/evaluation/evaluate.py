"""Scores of models on held-out pictures, whole and tiled: PSNR-Y, SSIM-Y, MS-SSIM-Y, seam figures, time, memory."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.data import Subset

from srlib.data.pictures import to_float
from srlib.data.resize import crop_to_multiple, downscale_integers, upscale
from srlib.evaluation.baseline import baseline, baseline_of
from srlib.evaluation.counted import Pairs, counted, listed, need_detail
from srlib.evaluation.lpips import lpips
from srlib.evaluation.metrics import RESTORED, blank, ms_ssim_y, psnr_y, ssim_y
from srlib.evaluation.shares import scored_together
from srlib.networks.eraser import TiledSR
from srlib.progress import progress_bar
from srlib.tiling.memory import peak_of
from srlib.tiling.seams import Seams, seam_profile, seam_report
from srlib.tiling.tiled import Execution

Pictures = dict[tuple[str, str, str], Tensor]
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET5_BICUBIC = {2: 33.66, 3: 30.39, 4: 28.42}  # dB PSNR-Y, as the field's papers print it
LEAST_GAP = 0.02  # dB PSNR-Y between whole and tiled; a share of a smaller gap is noise


@torch.no_grad()
def evaluate(
    models: Mapping[str, TiledSR],
    pairs: Pairs,
    tilings: Mapping[str, dict],
    *,
    tile_batch: int = 16,
    distances: int = 32,
    memory: bool = False,
    keep: float = 0.5,
    whole_limit: float = 0.25,
    perceptual: nn.Module | None = None,
) -> tuple[pd.DataFrame, Pictures, dict[tuple[str, str, str], Tensor]]:
    """Bicubic and every model, whole and tiled in each of several ways, on every picture of `pairs`.

    pairs: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}. tilings: by name, arguments of TiledSR.tiled
    such as those `tilings_of` makes. memory: run everything on the first picture
    once more to measure its peak. keep: GiB that the returned pictures may take; if they take more, none is returned
    (pictures_of makes some of them again). whole_limit: LR megapixels above which "whole" is exact tiling, the same
    picture to rounding. perceptual: lpips_network's, for a column LPIPS. Returns
    - a table with columns picture, variant, tiling, blank (whether no mean counts the picture), for tiled rows TC (dB)
      and SGR against the same model's whole picture, PSNR-Y (dB), SSIM-Y, MS-SSIM-Y (NaN for pictures below 161
      pixels), LPIPS if asked for (NaN below 32 pixels), seconds, with `memory` MiB (NaN but for the first picture), and
      for tiled rows max_difference and differing_share;
    - the pictures (C, H, W) in [0, 1], on the CPU, by (picture, variant, tiling);
    - the seam profiles E(k) by the same keys, for the tiled ones.
    Raises ValueError naming the model and the picture when an output is not finite.
    """
    rows: list[dict] = []
    pictures: Pictures = {}
    profiles = {}
    room = keep * 2**30
    bar = progress_bar(total=len(pairs) * (1 + len(models) * (1 + len(tilings))), desc="evaluate", unit="score")
    for index in range(len(pairs)):
        item = pairs[index]
        lr, hr = item["lr"][None], item["hr"][None]
        scale = hr.shape[-1] // lr.shape[-1]
        facts = {"picture": item["name"], "blank": blank(hr, scale).item()}

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
            facts: dict = facts,
        ) -> Tensor:
            start = time.perf_counter()
            picture, report = run(lr.to(device))
            picture = picture.clamp(0, 1).cpu()  # on a GPU the work is done only when the picture is here
            seconds = time.perf_counter() - start
            if not picture.isfinite().all():
                raise ValueError(f"{variant}, {tiling}: the output for {item['name']} is not finite (NaN)")
            nonlocal room
            room -= picture.nbytes
            if room < 0:
                pictures.clear()
            else:
                pictures[item["name"], variant, tiling] = picture[0]
            row = {"picture": facts["picture"], "variant": variant, "tiling": tiling, "blank": facts["blank"]}
            row |= {"TC": math.nan, "SGR": math.nan} if tilings else {}  # first, and of tiled rows below
            row |= {"PSNR-Y": psnr_y(picture, hr, scale).item(), "SSIM-Y": ssim_y(picture, hr, scale).item()}
            row |= {"MS-SSIM-Y": ms_ssim_y(picture, hr, scale).item()}
            row |= {"LPIPS": lpips(perceptual, picture, hr).item()} if perceptual else {}
            row |= {"seconds": seconds}
            if memory and not index:
                row |= {"MiB": peak_of(lambda: run(lr.to(device)), device)[1] / 2**20}
            if against is not None:
                row |= seam_report(picture, against, report.seams)
                profiles[item["name"], variant, tiling] = seam_profile(picture, against, report.seams, distances)
            rows.append(row)
            bar.update()
            return picture

        score(baseline(scale), "whole", lambda x, scale=scale: (upscale(x, scale), None), torch.device("cpu"))
        for variant, model in models.items():
            device = next(model.parameters()).device
            whole = score(variant, "whole", lambda x, m=model: (m.whole(x, whole_limit), None), device)
            for name, options in tilings.items():
                options = {"batch": tile_batch, **options}
                score(variant, name, lambda x, m=model, options=options: m.tiled(x, **options), device, whole)
    bar.close()
    return pd.DataFrame(rows), pictures, profiles


def pictures_of(
    names: Iterable[str], kept: Pictures, models: Mapping[str, TiledSR], pairs: Any, tilings: Mapping, **options: Any
) -> Pictures:
    """Those of these names, of what `evaluate` of these models and tilings has kept; if it kept none, made again.

    pairs: as evaluate's, with `names`. options: further ones of evaluate.
    """
    wanted = set(names)
    if not kept:
        few = Subset(pairs, [i for i, name in enumerate(pairs.names) if name in wanted])
        _, kept, _ = evaluate(models, few, tilings, keep=float("inf"), **options)
    return {key: picture for key, picture in kept.items() if key[0] in wanted}


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
    return model.plan(lr[None], tile=tile, halo=halo).seams(model.scale)


def best_median_worst(table: pd.DataFrame, variant: str, tiling: str) -> dict[str, str]:
    """{"best": name, "median": ..., "worst": ...}: pictures by the dB PSNR-Y that `variant` gains over the baseline.

    Of the pictures that count (srlib.evaluation.counted); fewer when there are fewer than three.
    """
    scores = counted(table).pivot(index="picture", columns=["variant", "tiling"], values="PSNR-Y")
    gains = (scores[variant, tiling] - scores[baseline_of(table["variant"]), "whole"]).sort_values(ascending=False)
    ranked = {"best": gains.index[0], "worst": gains.index[-1], "median": gains.index[len(gains) // 2]}
    first = {name: rank for rank, name in reversed(ranked.items())}  # one picture can be all three
    return {rank: ranked[rank] for rank in ("best", "median", "worst") if first[ranked[rank]] == rank}


def bicubic_check(pictures: Iterable[tuple[str, np.ndarray]], scales: Sequence[int] = (2, 3, 4)) -> pd.DataFrame:
    """Mean PSNR-Y (dB) of HR pictures (name, (H, W, 3) integers) downscaled and upscaled by bicubic; index "scale".

    Every paper prints this figure for its test pictures, so it shows whether ours can be compared with theirs. For
    Set5, known by its file names, the column "published" stands beside it. Blank pictures, and those restored exactly,
    do not count.
    """
    rows, names = [], []
    for name, original in pictures:
        names.append(Path(name).stem.lower().split("_")[0])
        for scale in scales:
            hr = crop_to_multiple(original, scale)
            lr = to_float(downscale_integers(hr, scale, "bicubic"))[None]
            again, target = upscale(lr, scale, "bicubic").clamp(0, 1), to_float(hr)[None]
            row = {"picture": name, "scale": scale, "blank": blank(target, scale).item()}
            rows.append(row | {"PSNR-Y": psnr_y(again, target, scale).item()})
    check = counted(pd.DataFrame(rows))[["scale", "PSNR-Y"]].groupby("scale").mean()
    if sorted(names) == sorted(SET5):
        check["published"] = check.index.map(SET5_BICUBIC)
    return check


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the pictures by variant and tiling, in the table's order: of seconds and MiB over all, of the scores
    over those that count (srlib.evaluation.counted).

    TC, infinite where tiled and whole are equal, is the mean of the others, and infinite only where all are equal; SGR
    is that of the pictures which have one. Raises ValueError when no picture counts.
    """
    rows = counted(table)
    numbers = [name for name in table if name not in ("picture", "variant", "tiling", "blank")]
    mean = rows.groupby(["variant", "tiling"], sort=False)[numbers].mean()
    for name in {"seconds", "MiB"} & set(numbers):
        mean[name] = table.groupby(["variant", "tiling"], sort=False)[name].mean()
    if "TC" in mean:
        different = rows.assign(TC=rows["TC"].where(np.isfinite(rows["TC"])))
        mean["TC"] = different.groupby(["variant", "tiling"], sort=False)["TC"].mean().fillna(mean["TC"])
    return mean


def gap_closed(table: pd.DataFrame, tiling: str, first: str) -> pd.Series:
    """Share of the mean whole-minus-tiled PSNR-Y gap of `first` that each variant has closed, in %; NaN for all where
    `first` loses less than LEAST_GAP by tiling, so that there is no gap to close.
    """
    return _closed(_gaps(table, tiling), first)


def gap_in_words(table: pd.DataFrame, tiling: str, first: str) -> str:
    """What gap_closed says, as a sentence without a full stop."""
    gaps = _gaps(table, tiling)
    closed = _closed(gaps, first).drop(first)
    if gaps[first] < LEAST_GAP:
        loss = f"{round(gaps[first], 3) + 0.0:+.3f} dB PSNR-Y, whole minus tiled"
        return f"{first} loses nothing by tiling ({tiling}: {loss}): there is no gap to close"
    shares = ", ".join(f"{variant} closes {share:.0f} %" for variant, share in closed.items())
    return f"of {first}'s gap between whole and tiled ({tiling}: {gaps[first]:.2f} dB PSNR-Y) {shares or 'all is left'}"


def _gaps(table: pd.DataFrame, tiling: str) -> dict[str, float]:
    mean = means(table)["PSNR-Y"]
    return {v: mean[v, "whole"] - mean[v, tiling] for v in dict.fromkeys(table["variant"]) if (v, tiling) in mean}


def _closed(gaps: Mapping[str, float], first: str) -> pd.Series:
    least = gaps[first] if gaps[first] >= LEAST_GAP else float("nan")
    return pd.Series({v: 100 * (1 - gap / least) for v, gap in gaps.items()}, name="gap closed, %")


def validate_on(pairs: Pairs, border: int) -> Callable[[TiledSR], dict[str, float]]:
    """A `validate` for train: mean PSNR-Y (dB) and SSIM-Y over whole pictures {"lr": (C, h, w), "hr": ...}.

    Blank pictures do not count, which is printed once, and a PSNR-Y above RESTORED counts as RESTORED: else one
    picture that is restored all but exactly would decide which model is best. Raises ValueError when none counts.
    A TiledSR is run as its own use_tiling says: in tiles, or as the whole picture by exact chunks, so that a
    validation picture never needs more memory than training. Several processes share the pictures.
    """
    need_detail(pairs, border)
    said = False

    def score(model: TiledSR, item: dict) -> tuple[float, float] | str:
        lr, hr = item["lr"][None], item["hr"][None]
        if blank(hr, border).item():
            return item["name"]
        options: dict[str, Any] = (
            {"batch": 16} if model.use_tiling else {"statistics": "exact", "tile": 8 * model.window}
        )
        prediction, _ = model.tiled(lr, how=Execution(on_oom="shrink"), **options)
        return _bounded_psnr_y(prediction, hr, border), ssim_y(prediction, hr, border).item()

    def validate(model: TiledSR) -> dict[str, float]:
        nonlocal said
        results = scored_together(pairs, partial(score, model))
        blanks = [result for result in results if isinstance(result, str)]
        if blanks and not said and PartialState().is_main_process:
            print(f"not in the validation's means: {listed(blanks)} (blank or too small)")
        said = True
        psnr, ssim = zip(*(result for result in results if not isinstance(result, str)), strict=True)
        return {"psnr_y": float(np.mean(psnr)), "ssim_y": float(np.mean(ssim))}

    return validate


def baseline_on(pairs: Pairs, border: int) -> float:
    """The mean PSNR-Y (dB) of the baseline, taken as validate_on takes it: a line beside its curve."""
    items = (pairs[index] for index in range(len(pairs)))
    pictures = ((item["lr"][None], item["hr"][None]) for item in items)
    return float(
        np.mean(
            [
                _bounded_psnr_y(upscale(lr, hr.shape[-1] // lr.shape[-1], "bicubic"), hr, border)
                for lr, hr in pictures
                if not blank(hr, border).item()
            ]
        )
    )


def _bounded_psnr_y(prediction: Tensor, hr: Tensor, border: int) -> float:
    return psnr_y(prediction, hr, border).clamp(max=RESTORED).item()
