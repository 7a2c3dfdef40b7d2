"""Figures of restored pictures: held-out pictures beside their ground truth, weights of both levels, gates of skips."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from srlib.show.panels import panel_size, show_picture
from srlib.show.picture_figures import to_array
from srlib.show.style import BASELINE, colours_of, plain, wrapped

_WIDTH = 2.6  # inches of a picture


def restored(pictures: Mapping[str, Mapping[str, Tensor]], notes: Mapping[tuple[str, str], str]) -> Figure:
    """A row a picture: each of its versions (3, H, W) in [0, 1], with a note below where there is one.

    pictures: {name: {version: picture}}, the same versions in all; notes: {(name, version): text}.
    """
    versions = list(next(iter(pictures.values())))
    tallest = [max(panel_size(p.shape[-2:], _WIDTH)[1] for p in row.values()) for row in pictures.values()]
    size = (_WIDTH * len(versions) + 0.3, sum(tallest) + 0.45 * len(tallest) + 0.3)
    figure, axes = plt.subplots(
        len(pictures), len(versions), figsize=size, squeeze=False, layout="constrained", height_ratios=tallest
    )
    for number, (name, row) in enumerate(pictures.items()):
        line = axes[number]
        for axis, (version, picture) in zip(line, row.items(), strict=True):
            show_picture(axis, to_array(picture))
            axis.set_xlabel(wrapped(notes.get((name, version), ""), _WIDTH, 8), fontsize=8)
            if not number:
                axis.set_title(version, fontsize=9)
        line[0].set_ylabel(wrapped(name, 2.2, 8), fontsize=8)
    return plain(figure)


def both_levels(log: pd.DataFrame) -> Figure:
    """The learned weights by step: of each answer's terms, and of the two answers. log: of a training with DualLoss, or
    of one answer with learned weights.
    """
    shares = log.filter(regex="^share_").dropna().rename(columns=lambda name: name.removeprefix("share_"))
    levels = {
        title: {c.removesuffix(end): shares[c] for c in shares if c.endswith(end) and not c.startswith("output_")}
        for title, end in (("answer at the picture's size", "_1"), ("answer at twice the size", "_2"))
    }
    if not any(levels.values()):
        levels = {"terms of the loss": {c: shares[c] for c in shares}}
    else:
        names = {"output_1": "the picture's size", "output_2": "twice the size"}
        levels["the two answers"] = {names[c]: shares[c] for c in names}
    figure, axes = plt.subplots(
        1, len(levels), figsize=(3.8 * len(levels), 3.3), sharey=True, squeeze=False, layout="constrained"
    )
    steps = log.loc[shares.index, "step"]
    for axis, (title, lines) in zip(axes.flat, levels.items(), strict=True):
        for name, colour in colours_of(lines).items():
            axis.plot(steps, lines[name], color=colour, label=name.replace("_", " "))
        axis.axhline(1 / len(lines), color="#cccccc", ls=":", zorder=0, label="equal")
        axis.set(ylim=(0, 1), xlabel="step")
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("weight (sum 1)")
    return plain(figure)


def gates(values: Mapping[str, Tensor]) -> Figure:
    """What the skips' gates multiply each channel by: from means of the features (ECA), and from means of their phases
    alone, which is what the published gate computes. values: {skip: (2, C)}, of the former and the latter.
    """
    figure, axes = plt.subplots(
        1, len(values), figsize=(3.6 * len(values), 3.0), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (skip, (learned, phases)) in zip(axes.flat, values.items(), strict=True):
        axis.plot(sorted(learned.tolist()), "o", color="#1b9e77", ms=4)
        axis.plot(phases.tolist(), "_", color=BASELINE, ms=7, mew=2)
        axis.set(ylim=(0, 1), xlabel="channels, by their gate")
        axis.set_title(skip, fontsize=10)
    axes[0, 0].set_ylabel("gate")
    handles = [
        Line2D([], [], color="#1b9e77", marker="o", ls="", label="means of features (ECA)"),
        Line2D([], [], color=BASELINE, marker="_", mew=2, ls="", label="means of phases, as published"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8)
    return plain(figure)
