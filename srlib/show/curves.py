"""Figures of a training's log: while it runs, at its end, and of the weights it learned."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import DisplayHandle, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from srlib.show.style import BASELINE, colours_of, keep_figure, plain

_LINE, _KEPT = "#333333", "#d95f02"
_SCORES = {  # in the order of their panels
    "tc": "TC, dB",
    "sgr": "SGR, ideal 1",
    "psnr_y": "PSNR-Y, dB",
    "psnr": "PSNR, dB, 256x256 RGB",
    "pu21_psnr": "PU21-PSNR, dB",
    "psnr_mu": "PSNR-mu, dB",
    "prior_db": "guessed prior, dB",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def training(
    log: pd.DataFrame,
    average: str = "EMA weights",
    *,
    lines: Mapping[str, Mapping[str, float]] | None = None,
    best_by: str = "",
) -> Figure:
    """What a log holds, by step from 0 on: total loss; of the validation the scores that are there, such as TC, SGR and
    PSNR-Y; learning rate, gradient norm; of several loss terms the raw values, and what enters the sum; the learned
    shares; the discriminator's loss.

    average: what the validated weights are called. lines: {what: {score, by its name in the log: value}}, baselines
    that are drawn beside the curves. best_by: the name of the score whose highest value decides what is kept; a ring
    marks that step.
    """
    log = log.dropna(axis=1, how="all")
    if "loss" not in log:
        figure = plt.figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "nothing was logged", ha="center")
        return figure
    steps = log.dropna(subset=["loss"])
    panels: list[Callable[[Axes, pd.DataFrame], None]] = [_loss]

    def validation(name: str) -> Callable[[Axes, pd.DataFrame], None]:
        return lambda axis, _: _validation(axis, log, name, average, lines or {}, best_by)

    panels += [validation(name) for name in _SCORES if name in log]
    panels += [_rate, _norm]
    terms = [c for c in log if c.startswith("raw_")]
    panels += [_raw, _weighted] if len(terms) > 1 else []
    panels += [_shares] if any(c.startswith("share_") for c in log) else []
    panels += [_discriminator] if "loss_discriminator" in log else []
    columns = 4 if len(panels) in (4, 7, 8) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.9 * columns, 3.1 * rows), squeeze=False, layout="constrained")
    last = max(float(log["step"].max()), 1.0)
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis, steps)
        axis.set_xlim(-0.03 * last, 1.03 * last)
        axis.grid(alpha=0.2)
        _by_step(axis)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    if len(terms) > 1:
        _legend_of_terms(figure, axes.flat[panels.index(_raw)])
    return plain(figure)


def _by_step(axis: Axes) -> None:
    """Whole steps at the axis; a line of one point, after a few steps, is shown as that point."""
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    for line in axis.lines:
        if np.size(line.get_xdata()) == 1:
            line.set_marker("o")


def _named(axis: Axes, title: str, label: str, legend: bool = True) -> None:
    """Title to the left and legend to the right, both above the axes, so that no line is covered; the title above a
    legend of two rows.
    """
    shown = len(axis.get_legend_handles_labels()[0]) if legend else 0
    axis.set_title(title, loc="left", fontsize=10, pad=6 if shown <= 2 else 28)
    axis.set_ylabel(label)
    if shown:
        axis.legend(
            fontsize=8,
            frameon=False,
            ncols=2,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
            handlelength=1.2,
            columnspacing=0.8,
        )


def _legend_of_terms(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = min(len(labels), int(figure.get_figwidth() / 1.3))
    figure.legend(handles, labels, fontsize=9, frameon=False, ncols=columns, loc="outside upper center")


def _loss(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["loss"], color="#cccccc", lw=1, label="as logged")
    axis.plot(log["step"], log["loss"].ewm(span=15).mean(), color=_LINE, label="smoothed")
    _named(axis, "Training loss", "total loss")


def _validation(
    axis: Axes,
    log: pd.DataFrame,
    name: str,
    average: str,
    lines: Mapping[str, Mapping[str, float]],
    best_by: str,
) -> None:
    """A start that is far below all else, as random weights are, is written instead of drawn, or the rest were flat."""
    scores = log.dropna(subset=[name])
    axis.plot(scores["step"], scores[name], "o-", color=_LINE, label=average)
    levels = []
    for (label, values), dashes in zip(lines.items(), itertools.cycle(("--", ":", "-.")), strict=False):
        level = values.get(name)
        if level is not None and math.isfinite(level):
            axis.axhline(level, color=BASELINE, ls=dashes, label=label)
            levels.append(level)
    if best_by in log and log[best_by].notna().any():
        best = scores[scores["step"] == log["step"][log[best_by].idxmax()]]
        ring: dict[str, Any] = {"ms": 11, "mfc": "none", "mec": _KEPT, "mew": 1.6, "ls": ""}
        axis.plot(best["step"], best[name], "o", label=f"best {_SCORES[best_by].partition(',')[0]}", **ring)
    start, rest = scores[name].iloc[0], [*scores[name].iloc[1:], *levels]
    if name == "psnr_y" and rest and start < min(rest) - 3 * max(1.0, max(rest) - min(rest)):
        room = max(0.5, max(rest) - min(rest))
        axis.set_ylim(min(rest) - 0.6 * room, max(rest) + 0.2 * room)
        text = f"below: {start:.1f} dB at step {scores['step'].iloc[0]:.0f}"
        axis.text(0.97, 0.04, text, transform=axis.transAxes, fontsize=8, ha="right")  # below the curve
    _named(axis, "Validation", _SCORES[name])


def _rate(axis: Axes, log: pd.DataFrame) -> None:
    power = math.floor(math.log10(max(log["lr"].max(), 1e-12)))
    axis.plot(log["step"], log["lr"] / 10**power, color=_LINE)
    axis.set_ylim(0, None)
    _named(axis, "Learning rate", f"learning rate, in 10{str(power).translate(_SUPERSCRIPT)}")


def _norm(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["gradient_norm"], color=_LINE, lw=1)
    axis.set_yscale("log")
    _named(axis, "Gradient", "norm, before clipping")


def _raw(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "raw")
    axis.set_yscale("log")
    _named(axis, "Loss terms as they are", "value", legend=False)


def _weighted(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "weighted")
    axis.set_yscale("log")
    _named(axis, "What each adds to the total", "weight times value", legend=False)


def _shares(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "share", smooth=1)
    axis.set_ylim(0, 1)
    _named(axis, "Learned weights", "weight (sum 1)", legend=False)


def _discriminator(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["loss_discriminator"], color=_LINE, lw=1)
    axis.axhline(np.log(2), color=BASELINE, ls="--", label="cannot tell, ln 2")
    _named(axis, "Discriminator", "RaGAN loss")


def _terms(axis: Axes, log: pd.DataFrame, kind: str, smooth: int = 10) -> None:
    for term, colour in colours_of(c.removeprefix("raw_") for c in log if c.startswith("raw_")).items():
        if f"{kind}_{term}" in log:
            values = log[f"{kind}_{term}"].ewm(span=smooth).mean()
            axis.plot(log["step"], values, color=colour, label=term.replace("_", " "))


def learnable_weights(histories: dict[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Softmax weights by step, one panel a form; histories: {form: (steps, n)}."""
    figure, axes = plt.subplots(
        1,
        len(histories),
        figsize=(3.6 * len(histories), 3.4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    colours = colours_of(names)
    for axis, (form, weights) in zip(axes.flat, histories.items(), strict=True):
        for name, values in zip(names, weights.T, strict=True):
            axis.plot(values, color=colours[name], label=name.replace("_", " "))
        axis.axhline(1 / len(names), color="#cccccc", ls=":", zorder=0, label="equal shares")
        axis.set_ylim(0, 1)
        axis.set_title(form, fontsize=10)
        _by_step(axis)
    axes[0, 0].set_ylabel("weight (sum 1)")
    _legend_of_terms(figure, axes[0, 0])
    return plain(figure)


class Live:
    """The figure of a training while it runs: train's callback. finish(log) makes it the static one and keeps it.

    path: the PNG; average, lines, best_by: as of `training`. Drawn again after `pause` seconds at the earliest, and
    seldom enough to take at most 2 % of the time. In an executed notebook one picture is left, the last.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        average: str = "EMA weights",
        lines: Mapping[str, Mapping[str, float]] | None = None,
        best_by: str = "",
        pause: float = 10.0,
    ):
        self.path, self.pause = Path(path), pause
        self.drawn = partial(training, average=average, lines=lines, best_by=best_by)
        self.handle: DisplayHandle | None = None
        self.next = time.monotonic() + pause

    def __call__(self, row: dict) -> None:
        if time.monotonic() < self.next or len(row["log"]) < 2:
            return
        started = time.monotonic()
        try:
            figure = self.drawn(pd.DataFrame(row["log"]))
            self._show(figure)
            plt.close(figure)
        except Exception as error:  # a picture is not worth a training
            print(f"the live figure could not be drawn ({error}); the training continues without it")
            self.next = math.inf
            return
        now = time.monotonic()
        self.next = now + max(self.pause, 50 * (now - started))

    def finish(self, log: pd.DataFrame) -> None:
        """Show the figure of the whole log in place of the live one, and write it as PNG."""
        self._show(keep_figure(self.drawn(log), self.path))

    def _show(self, figure: Figure) -> None:
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
