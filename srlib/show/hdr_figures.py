"""Figures of HDR pictures: LDR exposures, strips of exposures, false colours of luminance, guessed priors."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from srlib.data.tone import to_srgb
from srlib.show.panels import panel_size, show_picture
from srlib.show.style import BASELINE, colours_of, plain, wrapped

_WIDTH = 3.1  # inches of a picture
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def exposed(light: np.ndarray, white: float) -> np.ndarray:
    """Light (H, W, 3) in cd/m2 -> (H, W, 3) uint8 sRGB as a camera shows it whose white is at `white` cd/m2."""
    return np.round(to_srgb(light / white) * 255).astype(np.uint8)


def pictures(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A grid of uint8 pictures (H, W, 3): {row: {title: picture}}; titles above each, the row's name at its left."""
    columns = max(len(row) for row in rows.values())
    height = max(panel_size(p.shape, _WIDTH)[1] for row in rows.values() for p in row.values())
    size = (_WIDTH * columns + 0.4, (height + 0.35) * len(rows) + 0.2)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    for (name, row), line in zip(rows.items(), axes, strict=True):
        for axis in line[len(row) :]:
            axis.remove()
        for axis, (title, picture) in zip(line, row.items(), strict=False):
            show_picture(axis, picture)
            axis.set_title(wrapped(title, _WIDTH, 9), fontsize=9)
        line[0].set_ylabel(wrapped(name, height, 9), fontsize=9)
    return plain(figure)


def strips(ways: Mapping[str, np.ndarray], whites: Sequence[float]) -> Figure:
    """The same light by each way, (H, W, 3) in cd/m2, at exposures whose white is at so many cd/m2. What a way has not
    recovered stays one flat grey in the darker ones.
    """
    return pictures({way: {f"white at {w:g} cd/m2": exposed(light, w) for w in whites} for way, light in ways.items()})


def false_colours(ways: Mapping[str, np.ndarray], low: float = 1.0, high: float = 10000.0) -> Figure:
    """Luminance of each way's light, (H, W, 3) in cd/m2, in one scale of colours from `low` to `high`."""
    height = max(panel_size(light.shape, _WIDTH)[1] for light in ways.values())
    figure, axes = plt.subplots(
        1, len(ways), figsize=(_WIDTH * len(ways) + 1, height + 0.5), squeeze=False, layout="constrained"
    )
    for axis, (way, light) in zip(axes.flat, ways.items(), strict=True):
        luminance = np.clip(light @ _LUMINANCE, low, None)
        image = show_picture(axis, luminance, cmap="turbo", norm=LogNorm(low, high))
        axis.set_title(wrapped(way, _WIDTH, 9), fontsize=9)
    figure.colorbar(image, ax=axes, label="luminance, cd/m2", extend="both", shrink=0.9, pad=0.01)
    return plain(figure)


def priors(true: Mapping[str, np.ndarray], guessed: Mapping[str, np.ndarray]) -> Figure:
    """Stage 2's guess of each number of the prior against stage 1's, by picture: {picture: (P,)} twice. Left as they
    are, right what differs from the mean of all pictures, which alone says something about one of them.
    """
    names = list(true)
    middle = np.mean([true[n] for n in names], 0)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    for axis, less, title in ((axes[0], 0.0, "the numbers"), (axes[1], middle, "less their mean over the pictures")):
        for name, colour in colours_of(names).items():
            axis.plot(true[name] - less, guessed[name] - less, ".", ms=4, color=colour, label=wrapped(name, 2, 8))
        ends = axis.get_xlim()
        axis.plot(ends, ends, color=BASELINE, lw=1, ls="--", label="equal", zorder=0)
        axis.set(xlabel="stage 1, from input and ground truth", ylabel="stage 2, from the input")
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(alpha=0.2)
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside right upper")
    return plain(figure)
