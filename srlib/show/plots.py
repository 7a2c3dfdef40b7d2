"""The figures of the notebooks. Every function returns a matplotlib figure.

Pictures are tensors (C, H, W) in [0, 1], C 1 or 3. Differences are shown in 8-bit levels (0-255).
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from srlib.files import atomic
from srlib.tiling.seams import Seams, seam_profile, seam_report, step_ratios

plt.rcParams["text.parse_math"] = False  # pictures may have $ in their names
SEAM_COLOUR = "#00b7c7"
STAGE_COLOURS = ["#7f7f7f", "#d95f02", "#7570b3", "#1b9e77", "#e7298a", "#66a61e", "#1f78b4", "#a6761d"]


def to_array(picture: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3) uint8."""
    picture = picture.detach().float().cpu().clamp(0, 1)
    return (picture.expand(3, -1, -1).permute(1, 2, 0) * 255 + 0.5).byte().numpy()


def keep_figure(figure: Figure, path: Path | str) -> Figure:
    """Write the figure as PNG and return it for display; closed, so that it is shown once."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return figure


def picture_grid(pictures: dict[str, Tensor], columns: int = 4, width: float = 3.0) -> Figure:
    """Pictures of any sizes under their titles, nearest-neighbour, so that pixels stay pixels."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(p.shape[-2] / p.shape[-1] for p in pictures.values())
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, (width * min(tallest, 1.6) + 0.45) * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(to_array(picture), interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure


def compare_methods(hr: Tensor, lrs: dict[str, Tensor], reference: str, gain: float = 8) -> Figure:
    """Above: the HR crop and each method's LR; below, of several: each LR minus the reference method's, times gain.

    One to one: an HR pixel is a pixel of the figure as it is saved, an LR pixel a square of as many as the scale.
    """
    side, dpi, gap = hr.shape[-1], 110, 26  # dpi as keep_figure saves
    scale = side // next(iter(lrs.values())).shape[-1]
    shown = {f"HR {side}x{side}": to_array(hr)}
    shown |= {f"LR, {method}": to_array(upscale_nearest(lr, scale)) for method, lr in lrs.items()}
    differences = {m: (lr - lrs[reference]).mean(0).cpu().numpy() * 255 for m, lr in lrs.items()}
    rows, legend = (2, 90) if len(lrs) > 1 else (1, 0)
    width, height = len(shown) * (side + gap) + legend, rows * (side + gap) + 8
    figure = plt.figure(figsize=(width / dpi, height / dpi), dpi=dpi)

    def axis(row: int, column: int, title: str) -> plt.Axes:
        place = (column * (side + gap) + gap / 2, 8 + (rows - 1 - row) * (side + gap), side, side)
        result = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
        result.set_title(title, fontsize=8, pad=3)
        result.axis("off")
        return result

    for column, (title, picture) in enumerate(shown.items()):
        axis(0, column, title).imshow(picture, interpolation="none")
    if rows == 1:
        return figure
    for column, difference in enumerate(differences.values(), 1):
        lowest = axis(1, column, f"- {reference}: rms {np.sqrt((difference**2).mean()):.1f} levels")
        large = difference.repeat(scale, 0).repeat(scale, 1)
        image = lowest.imshow(large, cmap="RdBu_r", vmin=-255 / gain, vmax=255 / gain, interpolation="none")
    bar = figure.add_axes((1 - 80 / width, 8 / height, 12 / width, side / height))
    figure.colorbar(image, cax=bar).set_label("8-bit levels", fontsize=8)
    bar.tick_params(labelsize=7)
    return figure


def data_overview(manifest: pd.DataFrame, split: dict[str, str]) -> Figure:
    """Sizes of the HR pictures by split, pairs by method and scale, and what the files take on disk."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    pictures = manifest.drop_duplicates("source")
    for (part, colour), marker in zip(
        {"train": "#1b9e77", "validation": "#7570b3", "test": "#d95f02"}.items(), "os^", strict=True
    ):
        rows = pictures[pictures["source"].map(split) == part]
        label = f"{part}: {len(rows)}"
        left.scatter(rows["hr_width"], rows["hr_height"], c=colour, marker=marker, label=label, alpha=0.7)
    left.set(xlabel="width, pixels", ylabel="height, pixels", title="HR pictures", xlim=(0, None), ylim=(0, None))
    left.legend(fontsize=8)
    by = manifest.groupby(["method", "scale"])
    counts, bytes_ = by.size().unstack("scale"), by[["lr_bytes", "upscaled_bytes"]].sum().sum(axis=1).unstack("scale")
    sources = pd.DataFrame({s: [pictures["source_bytes"].sum()] for s in counts.columns}, index=["HR sources"])
    for axis, table, title, label in (
        (middle, counts, "LR/HR pairs", "pairs"),
        (right, pd.concat([sources, bytes_]) / 2**20, "On disk", "MiB"),
    ):
        table.plot.bar(ax=axis, rot=0, color=STAGE_COLOURS[1:])
        axis.set(xlabel="", ylabel=label, title=title)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.legend([f"x{s}" for s in counts.columns], fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def spectra(lrs: dict[str, list[Tensor]], hrs: list[Tensor]) -> Figure:
    """Power of each method's LR pictures by spatial frequency, against the HR pictures' at the same frequency, in dB.

    Radial means over the largest centred squares, the edges faded out by a Hann window; (3, H, W) in [0, 1]. The
    HR picture's frequencies are counted in cycles an LR pixel.
    """
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    edges = np.linspace(0, 0.5, 33)

    def power(picture: Tensor, scale: int) -> np.ndarray:
        side = min(picture.shape[1:]) // scale * scale
        top, left = ((n - side) // 2 for n in picture.shape[1:])
        luma = picture.mean(0)[top : top + side, left : left + side].cpu().numpy()
        window = np.outer(np.hanning(side), np.hanning(side))
        values = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum() / scale**2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side) * scale, np.fft.fftfreq(side) * scale))
        sums, counts = (np.histogram(frequency, edges, weights=w)[0] for w in (values, None))
        return np.where(sums > 1e-12, sums, np.nan) / np.maximum(counts, 1)  # a flat or tiny picture says nothing

    for (method, pictures), colour in zip(lrs.items(), plt.color_sequences["Dark2"], strict=False):
        scale = hrs[0].shape[-1] // pictures[0].shape[-1]
        shares = [power(lr, 1) / power(hr, scale) for lr, hr in zip(pictures, hrs, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mean of nothing
            decibels = np.nanmean(10 * np.log10(shares), 0)
        axis.plot((edges[1:] + edges[:-1]) / 2, decibels, label=method, color=colour)
    axis.axhline(0, color="#7f7f7f", ls="--", lw=1, label="HR, same frequency")
    axis.set(
        xlabel="spatial frequency, cycles per LR pixel", ylabel="power LR / HR, dB", title="What each kernel keeps"
    )
    axis.legend(fontsize=8)
    return figure


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
        _mark_seams(axis, seams)
    figure.colorbar(image, ax=axes, shrink=0.8, label="|tiled - whole|, 8-bit levels", extend="max")
    return figure


def _mark_seams(axis: Axes, seams: Seams) -> None:
    """The tile grid as ticks outside the picture, which stays uncovered."""
    axis.set_yticks([c - 0.5 for c in seams[0]], labels=[])
    axis.set_xticks([c - 0.5 for c in seams[1]], labels=[])
    axis.tick_params(color=SEAM_COLOUR, length=7, width=2, top=True, right=True)


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
    _mark_seams(left, seams)
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


def crops(
    pictures: dict[str, Tensor],
    top: int,
    left: int,
    size: int,
    seams: Seams | None = None,
    *,
    title: str = "",
    columns: int = 5,
) -> Figure:
    """The same square of each picture side by side; ticks mark the seams that cross it."""
    columns = min(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.axis("on")
        axis.imshow(to_array(picture[:, top : top + size, left : left + size]), interpolation="nearest")
        axis.set_title(name, fontsize=9, pad=12)
        rows_in, columns_in = seams or ([], [])
        inside = (
            [c - top for c in rows_in if top < c < top + size],
            [c - left for c in columns_in if left < c < left + size],
        )
        _mark_seams(axis, inside)
    figure.suptitle(title, fontsize=10)
    return figure


def busiest(picture: Tensor, size: int) -> tuple[int, int, int]:
    """(top, left, size) of the square with the most gradient energy, where detail can be judged."""
    grey = picture.mean(0)
    energy = grey[1:, 1:].sub(grey[:-1, 1:]).square() + grey[1:, 1:].sub(grey[1:, :-1]).square()
    size = min(size, *energy.shape)
    means = F.avg_pool2d(energy[None, None], size, stride=4)[0, 0]
    best = int(means.argmax())
    return best // means.shape[1] * 4, best % means.shape[1] * 4, size


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
        _mark_seams(axis, seams or ([], []))
    figure.colorbar(image, ax=axes[1:], shrink=0.8, label="probability")
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


def upscale_nearest(picture: Tensor, scale: int) -> Tensor:
    """(C, H, W) -> (C, H*scale, W*scale), to show an LR picture at the HR picture's size."""
    return torch.repeat_interleave(torch.repeat_interleave(picture, scale, -1), scale, -2)


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
