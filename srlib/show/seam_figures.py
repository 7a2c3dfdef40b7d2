"""Figures of what tiling does to a picture: where it differs from the whole one, by place and by distance.

Pictures are tensors (C, H, W) in [0, 1]. Differences are shown in 8-bit levels (0-255).
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.style import STAGE_COLOURS, mark_seams
from srlib.tiling.seams import Seams, seam_profile, seam_report, step_ratios


def seam_maps(pairs: dict[str, tuple[Tensor, Tensor]], seams: Seams, ceiling: float | None = None) -> Figure:
    """|tiled - whole| of each (tiled, whole) in 8-bit levels on one colour scale; ticks mark the tile grid.

    ceiling: levels at the top of the scale; None takes the 99.7th percentile of the first pair.
    """
    maps = {name: (t - r).abs().mean(0).cpu().numpy() * 255 for name, (t, r) in pairs.items()}
    ceiling = ceiling or float(np.percentile(next(iter(maps.values())), 99.7)) or 1.0
    height, width = next(iter(maps.values())).shape
    figure, axes = plt.subplots(
        1,
        len(maps),
        figsize=(5.2 * len(maps), 5.2 * height / width + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, values) in zip(axes.flat, maps.items(), strict=True):
        image = axis.imshow(values, cmap="inferno", vmin=0, vmax=ceiling, interpolation="nearest")
        axis.set_title(f"{name}: rms {np.sqrt((values**2).mean()):.2f} levels", fontsize=9, pad=12)
        mark_seams(axis, seams)
    figure.colorbar(image, ax=axes, shrink=0.8, label="|tiled - whole|, 8-bit levels", extend="max")
    return figure


def seam_profiles(profiles: dict[str, Tensor]) -> Figure:
    """rms error against the distance to the nearest seam, output pixels, one line an entry (log scale)."""
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for (name, profile), colour in zip(profiles.items(), STAGE_COLOURS[1:], strict=False):
        levels = np.maximum(profile.numpy() * 255, 1e-6)  # equal pictures have no place on a log scale
        axis.plot(np.arange(len(profile)), levels, "o-", ms=3, color=colour, label=name)
    axis.set(
        xlabel="distance to the nearest seam, output pixels",
        ylabel="rms |tiled - whole|, levels",
        yscale="log",
        title="Where the tiled picture differs from the whole one",
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def seam_sheet(tiled: Tensor, whole: Tensor, seams: Seams, title: str = "") -> Figure:
    """The seam metrics of one tiled picture: where it differs, by distance from the seams, and seam by seam."""
    report = seam_report(tiled, whole, seams)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    values = (tiled - whole).abs().mean(0).cpu().numpy() * 255
    image = left.imshow(values, cmap="inferno", vmax=float(np.percentile(values, 99.7)) or 1.0, interpolation="nearest")
    left.set_title("|tiled - whole|; ticks: seams", fontsize=9, pad=10)
    mark_seams(left, seams)
    figure.colorbar(image, ax=left, shrink=0.8, label="8-bit levels", extend="max")
    profile = seam_profile(tiled, whole, seams).numpy() * 255
    middle.plot(profile, "o-", ms=3, color=STAGE_COLOURS[1])
    middle.set(xlabel="distance to the nearest seam, output pixels", ylabel="rms, 8-bit levels", ylim=(0, None))
    middle.set_title("error by distance: level means no seam", fontsize=9)
    ratios_of = step_ratios(tiled, whole, seams)
    for ratios, at, name, colour in zip(ratios_of, seams, ("rows", "columns"), "br", strict=True):
        right.scatter(at, ratios, s=22, color=colour, label=f"seams along {name}", alpha=0.7)
    right.axhline(1, color="grey", lw=1)
    right.set(xlabel="position of the seam, output pixels", ylabel="step energy, tiled / whole", yscale="log")
    right.set_title("steps across each seam: 1 is ideal", fontsize=9)
    right.legend(fontsize=8)
    for axis in (middle, right):
        axis.grid(alpha=0.3, which="both")
    figures = (
        f"TC {report['TC']:.1f} dB, SGR {report['SGR']:.3f}, largest difference "
        f"{report['max_difference'] * 255:.2f} levels, {report['differing_share']:.1%} of the 8-bit values differ"
    )
    figure.suptitle(f"{title}: {figures}" if title else figures, fontsize=10)
    return figure


def ways_to_tile(table: pd.DataFrame) -> Figure:
    """Ways of tiling (rows, by name) by TC, SGR, seconds and MiB; "whole" is the reference of the last two."""
    names = [name for name in table.index if name != "whole"]
    whole = table.loc["whole"] if "whole" in table.index else None
    panels = [
        ("TC", "TC, dB (more is better)", None),
        ("SGR", "SGR (1 is ideal)", 1.0),
        ("seconds", "time, s", None if whole is None else whole["seconds"]),
        ("MiB", "peak memory, MiB", None if whole is None else whole["MiB"]),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(14, 0.36 * len(names) + 1.5), sharey=True, layout="constrained")
    colours = ["#1b9e77" if name == "exact" else "#7570b3" for name in names]
    for axis, (column, label, line) in zip(axes, panels, strict=True):
        values = table.loc[names, column]
        shown = values.clip(upper=160) if column == "TC" else values  # equal pictures have an infinite TC
        bars = axis.barh(names, shown, color=colours)
        axis.bar_label(bars, [f"{v:.3g}" if column != "TC" else f"{v:.1f}" for v in values], fontsize=8, padding=2)
        if line is not None:
            axis.axvline(line, color="#d95f02", ls="--", lw=1)
            axis.set_title(f"dashed: {'ideal' if column == 'SGR' else 'whole picture'} {line:.3g}", fontsize=8)
        axis.set(xlabel=label)
        axis.margins(x=0.22)
    axes[0].invert_yaxis()
    return figure
