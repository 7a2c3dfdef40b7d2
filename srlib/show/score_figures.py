"""Figures of scores: what is gained by picture, by seed, by class of artifact."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.panels import panel_size, show_picture
from srlib.show.picture_figures import to_array
from srlib.show.style import BASELINE, colours_of, plain, wrapped
from srlib.tiling.seams import Seams

_PICTURES = 25  # below one another; more stand in further columns


def artifact_heat(
    rows: Mapping[str, tuple[Tensor, Tensor]], classes: Sequence[str], seams: Mapping[str, Seams], *, title: str = ""
) -> Figure:
    """A row for each entry {title: (picture, heat)}: the picture (C, H, W) and the detector's probability of each
    artifact class, heat (K, H, W), on one scale 0-1, with its mean. seams: of those entries that have some, for ticks.
    """
    width, height = panel_size(next(iter(rows.values()))[0].shape[-2:], 2.6)
    width = max(width, 1.4)
    columns = len(classes) + 1
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=((width + 0.15) * columns + 0.8, (height + 0.75) * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for row, (of, (picture, heat)) in zip(axes, rows.items(), strict=True):
        marks = seams.get(of)
        show_picture(row[0], to_array(picture), marks)
        row[0].set_title(wrapped(of, width, lines=3), fontsize=9, pad=10)
        for axis, name, values in zip(row[1:], classes, heat, strict=True):
            image = show_picture(axis, values.cpu().numpy(), marks, cmap="magma", vmin=0, vmax=1)
            axis.set_title(f"{wrapped(name, width)}\nmean {values.mean():.2f}", fontsize=9, pad=10)
    figure.colorbar(image, ax=axes[:, 1:], shrink=0.8, label="probability")
    figure.suptitle(wrapped(title, width * columns, 10), fontsize=10)
    return plain(figure)


def bars(values: dict[str, float], label: str, bar_line: float | None = None) -> Figure:
    """Named values as bars with their numbers; bar_line draws the bar they are to reach."""
    figure, axis = plt.subplots(figsize=(1.3 * len(values) + 1.5, 3.4), layout="constrained")
    places = np.arange(len(values))
    drawn = axis.bar(places, list(values.values()), color="#a6cee3", width=0.7)
    axis.bar_label(drawn, [f"{v:.2f}" if v == v else "not defined" for v in values.values()], fontsize=8)
    axis.set_xticks(places, labels=[wrapped(name, 1.2, 9) for name in values], fontsize=9)
    axis.set_xlim(-0.6, len(values) - 0.4)
    if bar_line is not None:
        axis.axhline(bar_line, color=BASELINE, ls="--", lw=1)
        beside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axis.text(1.01, bar_line, f"bar {bar_line:g}", color=BASELINE, **beside)
    axis.set(ylabel=label)
    axis.margins(y=0.12)
    return plain(figure)


def gains(table: pd.DataFrame, value: str, label: str, over: str) -> Figure:
    """Per picture: what each variant has more of `value` than the variant `over`, a mark for each way of tiling.

    table: columns "picture", "variant", "tiling" and `value`, in the order to show; `over` has one row a picture.
    """
    base = table[table["variant"] == over].set_index("picture")[value]
    digits = 3 if base.max() < 1 else 2  # LPIPS
    rest = table[table["variant"] != over]
    tilings, variants = list(dict.fromkeys(rest["tiling"])), list(dict.fromkeys(rest["variant"]))
    colours = colours_of(variants)
    names = list(base.index)
    parts = [names[i : i + _PICTURES] for i in range(0, len(names), _PICTURES)]
    figure, axes = plt.subplots(
        1,
        len(parts),
        figsize=(6.4 * len(parts) + 2.2, 0.55 * len(parts[0]) + 1.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, part in zip(axes.flat, parts, strict=True):
        for variant in variants:
            for j, tiling in enumerate(tilings):
                rows = rest[(rest["variant"] == variant) & (rest["tiling"] == tiling)].set_index("picture")[value]
                style: dict[str, Any] = {"edgecolors": colours[variant], "marker": "os^D"[j % 4], "linewidths": 1.4}
                style["facecolors"] = colours[variant] if j == 0 else "none"
                text = wrapped(f"{variant}, {tiling}", 1.8, 8, 3)
                axis.scatter(rows.reindex(part) - base[part], range(len(part)), s=50, label=text, **style)
        axis.axvline(0, color=BASELINE, lw=1)
        if not any(np.isfinite(np.ma.filled(marks.get_offsets(), np.nan)).all(1).any() for marks in axis.collections):
            axis.text(0.5, 0.5, "not defined", ha="center", transform=axis.transAxes, fontsize=9)
        ticks = [f"{wrapped(name, 2, 8, 1)}\n{over} {base[name]:.{digits}f}" for name in part]
        axis.set_yticks(range(len(part)), labels=ticks, fontsize=8)
        axis.set_ylim(max(len(part), 1) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
        axis.set(xlabel=label)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, fontsize=8, loc="outside right center")
    return plain(figure)


def seed_dots(rows: pd.DataFrame, labels: dict[str, str], level: str, reference: float | None = None) -> Figure:
    """One panel a column of `labels` (with its axis label), one line an entry of the index's `level`: a pale dot for
    each seed, a strong one for their mean.

    reference: where a thin line stands; None: at the first line's mean.
    """
    names = list(dict.fromkeys(rows.index.get_level_values(level)))
    shown = [wrapped(name, 3.2, 10, 3) for name in names]
    line = 0.2 + 0.16 * max(name.count("\n") + 1 for name in shown)
    figure, axes = plt.subplots(
        1,
        len(labels),
        figsize=(2.6 * len(labels) + 3, line * len(names) + 1.3),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (column, label) in zip(axes.flat, labels.items(), strict=True):
        mean = rows[column].groupby(level=level).mean()
        axis.axvline(mean[names[0]] if reference is None else reference, color=BASELINE, lw=1, ls="--")
        places = [names.index(name) for name in rows.index.get_level_values(level)]
        axis.scatter(rows[column], places, s=22, color="#a6cee3", lw=0)
        axis.scatter(mean[names], range(len(names)), s=42, color="#333333", marker="D", zorder=3)
        if not np.isfinite(rows[column]).any():
            axis.text(0.5, 0.5, "not defined", ha="center", transform=axis.transAxes, fontsize=9)
        axis.set_xlabel(wrapped(label, 2.3, 10))
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="both", alpha=0.25)
    axes[0, 0].set_yticks(range(len(names)), labels=shown)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return plain(figure)
