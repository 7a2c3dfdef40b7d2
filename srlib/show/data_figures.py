"""Figures of the data: sizes and counts, the kernels side by side, what they keep of the spectrum.

Pictures are tensors (C, H, W) in [0, 1]. Differences are shown in 8-bit levels (0-255).
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.picture_figures import to_array, upscale_nearest
from srlib.show.style import STAGE_COLOURS


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
