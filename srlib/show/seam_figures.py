"""Figures of what tiling does to a picture: where it differs from the whole one, by place and by distance.

Pictures are tensors (C, H, W) in [0, 1]. Differences are shown in 8-bit levels (0-255).
"""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from torch import Tensor

from srlib.show.panels import levels_between, panel_size, show_difference, show_picture
from srlib.show.style import BASELINE, colours_of, plain, wrapped
from srlib.tiling.seams import Seams, seam_profile, seam_report, step_ratios

_ACROSS = 4  # panels in a row
_REACH = 12  # output pixels from a seam that a profile is drawn to
_DASHES = ["-", "--", ":", "-."]
_LEAST = 0.05  # levels: a ratio to less says nothing
_SEAMS_ALONG = {"rows": "#1f78b4", "columns": "#e31a1c"}


def seam_maps(pairs: dict[str, tuple[Tensor, Tensor]], seams: Seams, *, against: str = "", title: str = "") -> Figure:
    """|tiled - whole| of each (tiled, whole) in 8-bit levels on one colour scale; ticks mark the tile grid.

    The scale ends at the 99.7th percentile of the first pair. against: an entry whose map is subtracted from each other
    one's, in a panel below it: blue is less error than there, red more.
    """
    maps = {name: (t - r).abs().mean(0).cpu().numpy() * 255 for name, (t, r) in pairs.items()}
    ceiling = _high(next(iter(maps.values())))
    changes = {name: values - maps[against] for name, values in maps.items() if against and name != against}
    across = min(len(maps), _ACROSS)
    rows = -(-len(maps) // across)
    width, height = panel_size(next(iter(maps.values())).shape, longest=4.4)
    width = max(width, 2.4)
    kinds = 2 if changes else 1
    figure, axes = plt.subplots(
        kinds * rows,
        across,
        figsize=(width * across + 1.1, (height + 0.7) * kinds * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    limit = max([_high(np.abs(change)) for change in changes.values()], default=1.0)
    for i, (name, values) in enumerate(maps.items()):
        row, column = kinds * (i // across), i % across
        text = f"{wrapped(name, width)}\nrms {_rms(values):.3g} levels"
        image = show_picture(_titled(axes[row, column], text), values, seams, cmap="inferno", vmin=0, vmax=ceiling)
        if name in changes:
            text = f"change against {wrapped(against, width - 1.1)}\nmean {changes[name].mean():+.3g} levels"
            options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            change = show_picture(_titled(axes[row + 1, column], text), changes[name], seams, **options)
    upper = [axis for row in axes[::kinds] for axis in row]
    figure.colorbar(image, ax=upper, shrink=0.8, extend="max").set_label("|tiled - whole|, levels", fontsize=8)
    if changes:
        lower = [axis for row in axes[1::2] for axis in row]
        figure.colorbar(change, ax=lower, shrink=0.8, extend="both").set_label("change, levels", fontsize=8)
    figure.suptitle(wrapped(title, width * across, 10), fontsize=10)
    return plain(figure)


def _titled(axis: Axes, title: str) -> Axes:
    axis.set_axis_on()
    axis.set_title(title, fontsize=9, pad=10)
    return axis


def _high(values: np.ndarray) -> float:
    """The top of a colour scale: nearly the largest value, or one level where there is none."""
    return float(np.percentile(values, 99.7)) or float(values.max()) or 1.0


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def seam_profiles(profiles: Mapping[tuple[str, str], Tensor]) -> Figure:
    """rms error against the distance to the nearest seam, to 12 output pixels; beside it, of several models, the same
    relative to the first model's, tiled the same way.

    profiles: {(model, tiling): E(k)} in [0, 1], as of seam_profile. Colours are models, dashes are tilings. A ratio to
    less than 0.05 levels is left out.
    """
    models, tilings = (list(dict.fromkeys(key[i] for key in profiles)) for i in (0, 1))
    panels = 2 if len(models) > 1 else 1
    figure, axes = plt.subplots(1, panels, figsize=(5.2 * panels + 2.4, 3.8), squeeze=False, layout="constrained")
    colours, dashes = draw_profiles(axes[0, 0], profiles)
    if panels == 2:
        _draw_ratios(axes[0, 1], profiles, models[0], colours, dashes)
    entries = [plt.Line2D([], [], color=colours[m], lw=2, label=wrapped(m, 1.9, 8)) for m in models]
    if any(tilings):
        entries += [plt.Line2D([], [], color="black", ls=dashes[t], label=wrapped(t, 1.9, 8)) for t in tilings]
    figure.legend(handles=entries, fontsize=8, loc="outside right center")
    return plain(figure)


def draw_profiles(axis: Axes, profiles: Mapping[tuple[str, str], Tensor]) -> tuple[dict[str, str], dict[str, str]]:
    """The profiles of seam_profiles in one axes; returns the models' colours and the tilings' dashes."""
    colours = colours_of(model for model, _ in profiles)
    dashes = {t: _DASHES[i % len(_DASHES)] for i, t in enumerate(dict.fromkeys(t for _, t in profiles))}
    for (model, tiling), profile in profiles.items():
        _line(axis, _levels(profile), colours[model], dashes[tiling])
    axis.set(xlabel="distance to the nearest seam, output pixels", ylabel="rms |tiled - whole|, 8-bit levels")
    axis.set_title("by distance: a level line means no seam", fontsize=9, pad=10)
    _from_zero(axis, "no seams")
    return colours, dashes


def _draw_ratios(axis: Axes, profiles: Mapping, first: str, colours: dict[str, str], dashes: dict[str, str]) -> None:
    for (model, tiling), profile in profiles.items():
        if model != first and (first, tiling) in profiles:
            values, base = _levels(profile), _levels(profiles[first, tiling])
            ratio = np.divide(values, base, out=np.full(len(values), np.nan), where=base >= _LEAST)
            _line(axis, ratio, colours[model], dashes[tiling])
    axis.axhline(1, color=colours[first], lw=1)
    axis.set(xlabel="distance to the nearest seam, output pixels", ylabel="rms, relative (below 1 is better)")
    axis.set_title(f"relative to {wrapped(first, 2, 9, 1)}, where that has {_LEAST} levels", fontsize=9, pad=10)
    _from_zero(axis, f"{wrapped(first, 2, 9, 1)} has less than {_LEAST} levels everywhere")


def _levels(profile: Tensor) -> np.ndarray:
    return profile.cpu().numpy()[: _REACH + 1] * 255


def _line(axis: Axes, values: np.ndarray, colour: str, dashes: str) -> None:
    axis.plot(np.arange(len(values)), values, color=colour, ls=dashes, marker="o", ms=3)


def _from_zero(axis: Axes, otherwise: str) -> None:
    """From the seam to 12 pixels, the y axis from 0; an axis without a finite point says why."""
    points = [line.get_ydata() for line in axis.lines if line.get_transform() == axis.transData]
    finite = np.concatenate([np.asarray(p, float) for p in points] or [np.array([])])
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        axis.text(0.5, 0.5, otherwise, ha="center", va="center", transform=axis.transAxes, fontsize=9)
    axis.set(xlim=(-0.4, _REACH + 0.4), ylim=(0, 1.08 * max(finite, default=0) or 1))
    axis.grid(alpha=0.3)


def seam_sheet(tiled: Tensor, whole: Tensor, seams: Seams, title: str = "") -> Figure:
    """The seam metrics of one tiled picture: where it differs, by distance from the seams, and seam by seam."""
    report = seam_report(tiled, whole, seams)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    difference = levels_between(tiled, whole)
    show_difference(left, difference, _high(np.abs(difference)), seams)
    left.set_title("tiled - whole; ticks: seams", fontsize=9, pad=10)
    draw_profiles(middle, {("whole", ""): seam_profile(tiled, whole, seams)})
    ratios_of = step_ratios(tiled, whole, seams)
    for ratios, at, (name, colour) in zip(ratios_of, seams, _SEAMS_ALONG.items(), strict=True):
        right.scatter(at, ratios, s=22, color=colour, label=f"seams along {name}", alpha=0.7)
    right.axhline(1, color=BASELINE, lw=1)
    right.set(xlabel="position of the seam, output pixels", ylabel="step energy, tiled / whole")
    finite = [ratio for ratios in ratios_of for ratio in ratios if math.isfinite(ratio)]
    if not finite:
        right.text(0.5, 0.6, "no seams, or none in detail", ha="center", transform=right.transAxes, fontsize=9)
    elif min(finite) > 0:
        right.set_yscale("log")
        right.yaxis.set_major_formatter(LogFormatter())
        right.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    right.set_title("steps across each seam: 1 is ideal", fontsize=9)
    right.legend(fontsize=8)
    right.grid(alpha=0.3)
    figures = (
        f"TC {report['TC']:.1f} dB, SGR {report['SGR']:.3f}, largest difference "
        f"{report['max_difference'] * 255:.2f} levels, {report['differing_share']:.1%} of the 8-bit values differ"
    )
    figure.suptitle(f"{wrapped(title, 12, 10)}\n{figures}" if title else figures, fontsize=10)
    return plain(figure)


def ways_to_tile(table: pd.DataFrame) -> Figure:
    """Ways of tiling (rows, by name) by TC, SGR, seconds and MiB; "whole" is the reference of the last two."""
    names = [name for name in table.index if name != "whole"]
    places = np.arange(len(names))
    figure, axes = plt.subplots(1, 4, figsize=(14, 0.36 * len(names) + 1.6), sharey=True, layout="constrained")
    ways = table.loc[names]
    _dots(axes[0], ways["TC"])
    _dots(axes[1], (ways["SGR"] - 1).abs(), log=True)
    axes[0].set(xlabel="TC, dB (more is better)")
    axes[1].set(xlabel="|SGR - 1| (less is better)")
    for axis, column, label in ((axes[2], "seconds", "time, s"), (axes[3], "MiB", "peak memory, MiB")):
        drawn = axis.barh(places, ways[column], color="#a6cee3")
        axis.bar_label(drawn, [f"{value:.3g}" for value in ways[column]], fontsize=8, padding=2)
        for place in places[~np.isfinite(ways[column])]:
            axis.text(0.03, place, "not measured", va="center", fontsize=8, transform=axis.get_yaxis_transform())
        if "whole" in table.index and np.isfinite(table.loc["whole", column]):
            axis.axvline(table.loc["whole", column], color=BASELINE, ls="--", lw=1)
            axis.set_title(f"dashed: whole picture {table.loc['whole', column]:.3g}", fontsize=8)
        axis.set(xlabel=label)
        axis.margins(x=0.25)
    axes[0].set_yticks(places, labels=[wrapped(name, 2.2, 10) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return plain(figure)


def _dots(axis: Axes, values: pd.Series, log: bool = False) -> None:
    """Dots with their numbers. What has no place on the axis, infinity or the logarithm of 0, is hollow at its end."""
    with np.errstate(divide="ignore"):
        at = np.log10(values) if log else values.copy()
    finite = at[np.isfinite(at)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    span = max(high - low, 1.0)
    at = at.replace({np.inf: high + 0.15 * span, -np.inf: low - 0.15 * span})
    for place, (x, value) in enumerate(zip(at, values, strict=True)):
        if math.isnan(value):
            axis.text(0.03, place, "not defined", va="center", fontsize=8, transform=axis.get_yaxis_transform())
            continue
        x, hollow = 10**x if log else x, math.isinf(value) or (log and value == 0)
        axis.scatter(x, place, s=36, facecolors="none" if hollow else "#333333", edgecolors="#333333", zorder=3)
        readable = value == 0 or value >= 1e-3  # the axis says less than that better
        text = f"{value:.2g}" * readable if log else "equal" if math.isinf(value) else f"{value:.1f}"
        axis.annotate(text, (x, place), (7, 0), textcoords="offset points", va="center", fontsize=8)
    ends = (low - 0.3 * span, high + 0.4 * span)
    axis.set(xscale="log" if log else "linear", xlim=[10**end for end in ends] if log else ends)
    axis.grid(axis="x", alpha=0.3)
