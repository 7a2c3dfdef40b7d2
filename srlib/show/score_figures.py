"""Figures of scores: what is gained by picture, by seed, by class of artifact."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.picture_figures import to_array
from srlib.show.style import STAGE_COLOURS, mark_seams
from srlib.tiling.seams import Seams


def gains(table: pd.DataFrame, value: str, label: str, over: str = "bicubic") -> Figure:
    """Per picture: what each variant has more of `value` than the variant `over`, a mark for each way of tiling.

    table: columns "picture", "variant", "tiling" and `value`, in the order to show; `over` has one row a picture.
    """
    base = table[table["variant"] == over].set_index("picture")[value]
    names = list(base.index)
    rest = table[table["variant"] != over]
    tilings = list(dict.fromkeys(rest["tiling"]))
    figure, axis = plt.subplots(figsize=(9, 0.55 * len(names) + 1.6), layout="constrained")
    for i, variant in enumerate(dict.fromkeys(rest["variant"])):
        colour = STAGE_COLOURS[1:][i % (len(STAGE_COLOURS) - 1)]
        for j, tiling in enumerate(tilings):
            rows = rest[(rest["variant"] == variant) & (rest["tiling"] == tiling)].set_index("picture")[value]
            face = colour if j == 0 else "none"
            style: dict[str, Any] = {
                "s": 50,
                "edgecolors": colour,
                "facecolors": face,
                "marker": "os^D"[j % 4],
                "linewidths": 1.4,
            }
            axis.scatter(rows.reindex(names) - base, range(len(names)), label=f"{variant}, {tiling}", **style)
    axis.axvline(0, color="#7f7f7f", lw=1)
    axis.set_yticks(range(len(names)), labels=[f"{name}\n{over} {base[name]:.2f}" for name in names], fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    axis.set(xlabel=label)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def bars(values: dict[str, float], label: str, bar_line: float | None = None) -> Figure:
    """Named values as bars with their numbers; bar_line draws the bar they are to reach."""
    figure, axis = plt.subplots(figsize=(1.3 * len(values) + 1.5, 3.2), layout="constrained")
    drawn = axis.bar(list(values), list(values.values()), color="#7570b3")
    axis.bar_label(drawn, fmt="%.2f", fontsize=8)
    if bar_line is not None:
        axis.axhline(bar_line, color="#d95f02", ls="--", lw=1)
        beside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axis.text(1.01, bar_line, f"bar {bar_line:g}", color="#d95f02", **beside)
    axis.set(ylabel=label)
    axis.margins(y=0.12)
    return figure


def seed_dots(rows: pd.DataFrame, labels: dict[str, str], level: str, reference: float | None = None) -> Figure:
    """One panel a column of `labels` (with its axis label), one line an entry of the index's `level`: a pale dot for
    each seed, a strong one for their mean.

    reference: where a thin line stands; None: at the first line's mean.
    """
    names = list(dict.fromkeys(rows.index.get_level_values(level)))
    line = 0.2 + 0.16 * max(name.count("\n") + 1 for name in names)
    figure, axes = plt.subplots(
        1, len(labels), figsize=(2.6 * len(labels) + 2.2, line * len(names) + 1.1), sharey=True, layout="constrained"
    )
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        mean = rows[column].groupby(level=level).mean()
        axis.axvline(mean[names[0]] if reference is None else reference, color="0.7", lw=1, ls=":")
        places = [names.index(name) for name in rows.index.get_level_values(level)]
        axis.scatter(rows[column], places, s=22, color="#7570b3", alpha=0.4, lw=0)
        axis.scatter(mean[names], range(len(names)), s=42, color="#d95f02", marker="D", zorder=3)
        axis.set(xlabel=label)
        axis.grid(axis="both", alpha=0.25)
    axes[0].set_yticks(range(len(names)), labels=names)
    axes[0].invert_yaxis()
    return figure


def artifact_heat(
    picture: Tensor, heat: Tensor, classes: Sequence[str], seams: Seams | None = None, *, title: str = "picture"
) -> Figure:
    """The picture and the detector's probability of each artifact class, (K, H, W), on one scale 0-1."""
    ratio = picture.shape[-2] / picture.shape[-1]
    columns = len(classes) + 1
    figure, axes = plt.subplots(1, columns, figsize=(2.7 * columns, 2.7 * ratio + 0.7), layout="constrained")
    axes[0].imshow(to_array(picture))
    axes[0].set_title(title, fontsize=9, pad=12)
    for axis, name, values in zip(axes[1:], classes, heat, strict=True):
        image = axis.imshow(values.cpu().numpy(), cmap="magma", vmin=0, vmax=1)
        axis.set_title(f"{name}, mean {values.mean():.2f}", fontsize=9, pad=12)
    for axis in axes:
        mark_seams(axis, seams or ([], []))
    figure.colorbar(image, ax=axes[1:], shrink=0.8, label="probability")
    return figure
