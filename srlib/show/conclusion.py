"""What an evaluation says, in sentences made of its table: gains and losses alike, and on how many pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from srlib.evaluation.baseline import baseline_of, in_words
from srlib.evaluation.counted import left_out
from srlib.evaluation.evaluate import tiling_name

LEVEL = 0.005  # dB; what is closer is called level, as it rounds to 0.00


def conclusion(table: pd.DataFrame, tile: int, halos: Sequence[int], *, scale: int, of: str = "test pictures") -> str:
    """Markdown: how far each model's tiles agree with its whole picture, how strong the seams are, what tiling costs,
    what each gains over the baseline and over the model before it, LPIPS where it was scored, what context and exact
    tiling change.

    table: of `evaluate`, with the baseline, the models in the order of their training, and each "whole" and in tiles of
    `tile` LR pixels with each of `halos` LR pixels of context, of which the first is what is judged. of: what the
    pictures are called. Pictures that are in no mean (srlib.evaluation.counted) do not count, and are named.
    """
    base = baseline_of(table["variant"])
    models = [variant for variant in dict.fromkeys(table["variant"]) if variant != base]
    newest_first, (halo, *others) = models[::-1], halos
    tiled = tiling_name(tile, halo)
    scores = table.pivot(index="picture", columns=["variant", "tiling"], values="PSNR-Y")
    needed = scores[[(base, "whole"), *((model, way) for model in models for way in ("whole", tiled))]]
    unknown = scores.index[~np.isfinite(needed).all(axis=1)]
    why = dict.fromkeys(unknown, "a score is no number") | left_out(table)
    named = ", ".join(f"{name} ({reason})" for name, reason in why.items())
    scores = scores.drop(index=list(why))
    if scores.empty:
        return f"**No conclusion:** not one of the {of} can be counted: {named}."
    table = table[table["picture"].isin(scores.index)]

    def cost(way: str) -> str:
        return _compared({m: scores[m, way] - scores[m, "whole"] for m in newest_first}, "its whole picture")

    def agree(way: str) -> str:
        return _agreement(table[table["tiling"] == way], newest_first)

    where = f"In tiles of {tile} LR pixels {_context(halo)}"
    lines = [f"**{where}, {agree(tiled)}.** Mean of {len(scores)} {of}, x{scale}.", ""]
    lines.append(f"- {_seams(table[table['tiling'] == tiled], models)}")
    lines.append(f"- In PSNR-Y, tiled this way, {cost(tiled)}.")
    over = {m: scores[m, tiled] - scores[base, "whole"] for m in newest_first}
    lines.append(f"- Tiled this way, {_compared(over, in_words(base))}.")
    steps = [*zip(models[1:], models[:-1], strict=True), *([(models[-1], models[0])] if len(models) > 2 else [])]
    for after, before in steps:
        gain = scores[after, tiled] - scores[before, tiled]
        better = f"better on {(gain > 0).sum()} of {len(gain)} pictures"
        lines.append(f"- Tiled this way, {_compared({after: gain}, before)}; {better}.")
    if "LPIPS" in table:
        lines.append(f"- {_perceived(table[table['tiling'].eq(tiled) | table['variant'].eq(base)])}")
    for after, before in steps[: len(models) - 1]:
        if (scores[after, "whole"] == scores[before, "whole"]).all():
            lines.append(f"- Whole, {after} scores as {before} to the last digit: only tiles are changed.")
    for more in others:
        way = tiling_name(tile, more)
        lines.append(f"- W{_context(more)[1:]}, {agree(way)}; in PSNR-Y, {cost(way)}.")
    exact = table[table["tiling"] == "exact"]
    if len(exact):
        largest = exact["max_difference"].max() * 255
        size = "as much as 0.01" if largest < 0.01 else f"more than {largest:.2f}"
        lines.append(f"- In exact tiles no value of any picture differs from the whole one's by {size} levels of 255.")
    if why:
        lines.append(f"- Not counted: {named}.")
    return "\n".join(lines)


def _context(halo: int) -> str:
    return f"with {halo} LR pixels of context" if halo else "without context"


def _agreement(tiled: pd.DataFrame, models: Sequence[str]) -> str:
    """Each model's mean TC over the pictures whose tiles are not equal to the whole, in one sentence."""
    values = tiled.assign(TC=tiled["TC"].where(np.isfinite(tiled["TC"]))).groupby("variant")["TC"].mean()
    said, verb = [], "agrees with its whole picture to a TC of"
    for model in models:
        if np.isnan(values[model]):
            said.append(f"{model} equals its whole picture")
        else:
            said.append(f"{model} {verb} {values[model]:.1f} dB")
            verb = "to"
    return ", ".join(said)


def _compared(gains: dict[str, pd.Series], other: str) -> str:
    """Each model's mean gain over `other`, dB, in one sentence; `other` is named once."""
    said = []
    for i, (model, gain) in enumerate(gains.items()):
        mean = float(gain.mean())
        if np.isnan(mean):
            said.append(f"{model} has no score")
        elif abs(mean) < LEVEL:
            said.append(f"{model} is level" + (f" with {other}, to 0.01 dB" if i == 0 else ""))
        elif mean > 0:
            said.append(f"{model} gains {mean:.2f} dB" + (f" over {other}" if i == 0 else ""))
        else:
            said.append(f"{model} loses {-mean:.2f} dB" + (f" to {other}" if i == 0 else ""))
    return ", ".join(said)


def _perceived(rows: pd.DataFrame) -> str:
    """Mean LPIPS of the baseline and of each model, the newest first."""
    values = rows.groupby("variant", sort=False)["LPIPS"].mean().iloc[::-1]
    if values.isna().all():
        return "LPIPS: not defined for pictures this small."
    said = ", ".join(f"{variant}: {value:.4f}" for variant, value in values.items())
    return f"LPIPS, tiled this way (lower is better): {said}."


def _seams(tiled: pd.DataFrame, models: Sequence[str]) -> str:
    """How strong the steps across seams are; SGR, where there is one."""
    ratios = tiled.assign(SGR=tiled["SGR"].where(np.isfinite(tiled["SGR"]))).groupby("variant")["SGR"].mean()
    ratios = ratios.reindex(models).dropna()
    if ratios.empty:
        return "Seams: there are none in these pictures, or all lie in blank parts."
    said = ", ".join(f"{model}: {ratio:.2f} times" for model, ratio in ratios.items())
    text = f"Steps across the seams have, of the energy that they have in the whole picture (1 is ideal): {said}"
    off = (ratios - 1).abs()
    worse = len(off) > 1 and off.iloc[-1] > off.iloc[0] + 0.005
    return f"{text}; {ratios.index[-1]} is further from it than {ratios.index[0]}." if worse else f"{text}."
