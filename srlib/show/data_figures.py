"""Figures of the data: what differs between its parts and kernels, kernels and pairs side by side, what they keep.

Pictures are tensors (C, H, W) in [0, 1]. Differences are shown in 8-bit levels (0-255).
"""

import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.utils.data import Dataset

from srlib.data import hdr as hdr_light
from srlib.data.manifest import METHOD
from srlib.show.panels import levels_between, panel_size, show_difference, show_picture
from srlib.show.picture_figures import to_array, upscale_nearest
from srlib.show.style import colours_of, plain, saved_dpi, wrapped

_PARTS = ("train", "validation", "test")
_LEAST = 180  # pixels of the figure that a crop takes at least, for its title
_PAIR = 3.2  # inches of the longer side of a pair's picture
_DIM = hdr_light.PEAK / 10  # cd/m2 shown as white, for what is dark at PEAK


def data_overview(manifest: pd.DataFrame, split: dict[str, str]) -> Figure:
    """Sizes of the HR pictures by part of the split, the pixels of each part, and what HR and LR files take on disk.

    Pictures of one size with theirs (scale 1) are called input and ground truth.
    """
    pictures = manifest.drop_duplicates("source")
    pictures = pictures.assign(part=pictures["source"].map(split))
    low, high = ("input", "ground truth") if (manifest["scale"] == 1).all() else ("LR", "HR")
    sizes, kinds = {high: float(pictures["source_bytes"].sum())}, {high: "HR"}
    for (scale, method), rows in manifest.groupby(["scale", "method"], sort=False):
        made = f"LR x{scale}" if method == METHOD else f"LR x{scale} {method}"  # METHOD: given, made by nobody here
        made = low if low == "input" else made
        sizes[made] = float(rows["lr_bytes"].sum())
        sizes[f"{made}, upscaled"] = float(rows["upscaled_bytes"].sum())
        kinds |= {made: method, f"{made}, upscaled": method}
    sizes = {name: size / 2**20 for name, size in sizes.items() if size or name == high}

    width_and_height = 13.5, max(3.8, 1.2 + 0.22 * len(sizes))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=width_and_height, layout="constrained")
    colours = colours_of([*_PARTS, *kinds.values()])
    for part, marker, size in zip(_PARTS, "os^", (120, 60, 25), strict=True):
        rows = pictures[pictures["part"] == part]
        left.scatter(
            rows["hr_width"], rows["hr_height"], s=size, lw=1.4, fc="none", ec=colours[part], marker=marker, label=part
        )
    left.set(xlim=(0, 1.1 * pictures["hr_width"].max()), ylim=(0, 1.1 * pictures["hr_height"].max()))
    left.set(xlabel="width, pixels", ylabel="height, pixels")
    left.set_title(_sizes(pictures, high), fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="outside lower left")

    of = {part: pictures[pictures["part"] == part] for part in _PARTS if (pictures["part"] == part).any()}
    pixels = [float((rows["hr_width"] * rows["hr_height"]).sum() / 1e6) for rows in of.values()]
    bars = middle.barh(list(of), pixels, color=[colours[part] for part in of])
    counts = [
        f"{len(rows)} picture{'s' * (len(rows) != 1)}, {n:.2g} MP" for rows, n in zip(of.values(), pixels, strict=True)
    ]
    middle.bar_label(bars, counts, fontsize=8, padding=3)
    middle.set_title("What each part holds", fontsize=10)
    middle.set_xlabel(f"megapixels (MP) of {high}")

    bars = right.barh(list(sizes), list(sizes.values()), color=[colours[kinds[name]] for name in sizes])
    right.bar_label(bars, [f"{size:.3g}" for size in sizes.values()], fontsize=8, padding=3)
    right.tick_params(axis="y", labelsize=8)
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.set_title("Files on disk" if len(sizes) > 1 else "Files on disk; LR is made while training", fontsize=10)
    right.set_xlabel("MiB")
    for axis, reach in ((middle, 1.8), (right, 1.25)):
        axis.set_xlim(0, reach * max(bar.get_width() for bar in axis.patches) or 1)
        axis.invert_yaxis()
    return plain(figure)


def _sizes(pictures: pd.DataFrame, what: str) -> str:
    sizes = set(zip(pictures["hr_width"], pictures["hr_height"], strict=True))
    if len(sizes) == 1:
        (size,) = sizes
        return f"{what}: all {len(pictures)} are {size[0]}x{size[1]}"
    return f"{what}: {len(pictures)} pictures in {len(sizes)} sizes"


def different_patches(patches: Dataset, count: int) -> list[dict]:
    """Items of `count` different patches, evenly over all of `patches`; fewer where there are fewer."""
    length = len(patches)  # type: ignore[arg-type]
    order = [i * length // (8 * count) for i in range(8 * count)]
    items: list[dict] = []
    seen = set()
    for number in dict.fromkeys([*order[::8], *order]):
        item = patches[(number, 0)]
        pixels = item["hr"].flatten().sort().values.numpy().tobytes()  # of one patch the same, however it is turned
        if pixels not in seen and len(items) < count:
            seen.add(pixels)
            items.append(item)
    return items


def compare_methods(hr: Tensor, lrs: dict[str, Tensor], reference: str, gain: float = 8) -> Figure:
    """Above: the HR crop and each method's LR; below, of several: each LR minus the reference method's.

    Pixel by pixel: an HR pixel is one of the figure as it is saved, or a square of them where the crop is small; an LR
    pixel is a square of as many more as the scale. gain: the differences' bar ends at 255 / gain 8-bit levels.
    """
    scale = hr.shape[-1] // next(iter(lrs.values())).shape[-1]
    zoom, dpi, gap = math.ceil(_LEAST / hr.shape[-1]), saved_dpi(), 46
    side, gap = hr.shape[-1] * zoom, round(gap * dpi / 110)
    shown = {f"HR {hr.shape[-1]}x{hr.shape[-1]}": to_array(upscale_nearest(hr, zoom))}
    shown |= {f"LR, {method}": to_array(upscale_nearest(lr, scale * zoom)) for method, lr in lrs.items()}
    differences = {m: (lr - lrs[reference]).mean(0).cpu().numpy() * 255 for m, lr in lrs.items() if m != reference}
    rows, legend = (2, round(90 * dpi / 110)) if differences else (1, 0)
    width, height = len(shown) * (side + gap) + legend, rows * (side + gap) + 8
    figure = plt.figure(figsize=(width / dpi, height / dpi), dpi=dpi)

    def axis(row: int, column: int, title: str) -> plt.Axes:
        place = (column * (side + gap) + gap / 2, 8 + (rows - 1 - row) * (side + gap), side, side)
        result = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
        result.set_title(wrapped(title, (side + gap * 0.8) / dpi, 8), fontsize=8, pad=3)
        result.axis("off")
        return result

    for column, (title, picture) in enumerate(shown.items()):
        axis(0, column, title).imshow(picture, interpolation="none")
    for method, difference in differences.items():
        place = list(lrs).index(method) + 1
        lowest = axis(1, place, f"minus {reference}: rms {np.sqrt((difference**2).mean()):.1f} levels")
        large = difference.repeat(scale * zoom, 0).repeat(scale * zoom, 1)
        image = lowest.imshow(large, cmap="RdBu_r", vmin=-255 / gain, vmax=255 / gain, interpolation="none")
    if differences:
        bar = figure.add_axes((1 - 80 * dpi / 110 / width, 8 / height, 12 / width, side / height))
        figure.colorbar(image, cax=bar).set_label("8-bit levels", fontsize=8)
        bar.tick_params(labelsize=7)
    return plain(figure)


def compare_pair(lr: Tensor, hr: Tensor, *, hdr: bool = False, title: str = "") -> Figure:
    """A given pair side by side; of one size, input minus ground truth in 8-bit levels, too.

    hdr: both are log-mapped (srlib/data/hdr.py); shown so, and as light at two exposures.
    """
    scale = hr.shape[-1] // lr.shape[-1]
    views = {"": (lr, hr)}
    if hdr:
        views = {f"log-mapped, white is {hdr_light.PEAK:.0f} cd/m²": (lr, hr)}
        for white in (hdr_light.PEAK, _DIM):
            views[f"gamma 2.2, white is {white:.0f} cd/m²"] = (_exposed(lr, white), _exposed(hr, white))
    names = ["input", "ground truth", "input - ground truth"]
    if scale > 1:
        names = [f"{name} {p.shape[-1]}x{p.shape[-2]}" for name, p in (("LR", lr), ("HR", hr))]
    width, height = panel_size(hr.shape[-2:], _PAIR)
    size = (len(names) * (width + 0.2) + 1.2, len(views) * max(height + 0.4, 1.8))
    figure, axes = plt.subplots(len(views), len(names), figsize=size, squeeze=False, layout="constrained")
    for row, (how, (low, high)) in zip(axes, views.items(), strict=True):
        for axis, name, picture in zip(row, names, (upscale_nearest(low, scale), high), strict=False):
            show_picture(axis, to_array(picture))
            axis.set_title(name, fontsize=9)
        row[0].set_ylabel(wrapped(how, height, 9), fontsize=9)
        if scale == 1:
            low, high = low.clamp(0, 1), high.clamp(0, 1)
            difference, rms = levels_between(low, high), float((low - high).square().mean().sqrt() * 255)
            limit = max(4.0, float(np.quantile(np.abs(difference), 0.995)))
            show_difference(row[2], difference, limit, label="8-bit levels, channel\nthat differs most")
            row[2].set_title(f"{names[2]}: rms {rms:.1f} levels", fontsize=9)
    figure.suptitle(wrapped(title, size[0] - 0.5, 10), fontsize=10)
    return plain(figure)


def _exposed(mapped: Tensor, white: float) -> Tensor:
    light = torch.from_numpy(hdr_light.log_unmapped(mapped.cpu().numpy()))
    return (light / white).clamp(0, 1) ** (1 / 2.2)


def spectra(lrs: dict[str, list[Tensor]], hrs: list[Tensor]) -> Figure:
    """Power of each method's LR pictures by spatial frequency, against the HR pictures' at the same frequency, in dB.

    Radial means over the largest centred squares, the edges faded out by a Hann window; (3, H, W) in [0, 1]. The
    HR picture's frequencies are counted in cycles an LR pixel. Pairs of one size are called input and ground truth.
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

    scale, colours = hrs[0].shape[-1] // next(iter(lrs.values()))[0].shape[-1], colours_of(["HR", *lrs])
    given = scale == 1 or list(lrs) == [METHOD]
    low, high = ("LR", "HR") if scale > 1 else ("input", "ground truth")
    for method, pictures in lrs.items():
        shares = [power(lr, 1) / power(hr, scale) for lr, hr in zip(pictures, hrs, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mean of nothing
            decibels = np.nanmean(10 * np.log10(shares), 0)
        axis.plot(
            (edges[1:] + edges[:-1]) / 2,
            decibels,
            label=low if given else wrapped(method, 1.8, 8),
            color=colours[method],
        )
    if not any(np.isfinite(line.get_ydata()).any() for line in axis.lines):
        axis.text(0.25, 0.1, "these pictures are flat or tiny: nothing to compare", ha="center", fontsize=9)
        axis.set(xlim=(0, 0.5), ylim=(-1, 1))
    axis.axhline(0, color=colours["HR"], ls="--", lw=1, label=f"{high}, same frequency")
    axis.set(
        xlabel=f"spatial frequency, cycles per {low} pixel",
        ylabel=f"power {low} / {high}, dB",
        title=f"What the {low} holds" if given else "What each kernel keeps",
    )
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return plain(figure)
