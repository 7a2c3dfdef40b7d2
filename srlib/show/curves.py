"""Figures of a training's log: while it runs, at its end, and of the weights it learned."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import DisplayHandle, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srlib.show.style import STAGE_COLOURS, keep_figure


def training(log: pd.DataFrame, baseline: float | None = None) -> Figure:
    """What a log holds, by step: total loss, validation PSNR-Y (with the bicubic baseline in dB, if given), learning
    rate, gradient norm; of several loss terms the raw values, and what enters the sum; the learned shares; the
    discriminator's loss.
    """
    if "loss" not in log:
        figure = plt.figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "nothing was logged", ha="center")
        return figure
    steps = log.dropna(subset=["loss"])
    panels = [_loss]
    panels += [_validation] if "psnr_y" in log else []
    panels += [_rate, _norm]
    terms = [c for c in log if c.startswith("raw_")]
    panels += [_raw, _weighted] if len(terms) > 1 else []
    panels += [_shares] if any(c.startswith("share_") for c in log) else []
    panels += [_discriminator] if "loss_discriminator" in log else []
    columns = 4 if len(panels) in (4, 7, 8) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.9 * columns, 3.1 * rows), squeeze=False, layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis, log if panel is _validation else steps)
        axis.set_xlabel("step")
        axis.grid(alpha=0.2)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    if baseline is not None and "psnr_y" in log:
        axis = axes.flat[1]
        axis.axhline(baseline, color="#7f7f7f", ls="--", label="bicubic")
        axis.legend(fontsize=8)
    return figure


def _loss(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["loss"], color="#cccccc", lw=1, label="as logged")
    axis.plot(log["step"], log["loss"].ewm(span=15).mean(), color="#d95f02", label="smoothed")
    axis.set(ylabel="total loss", title="Training loss")
    axis.legend(fontsize=8)


def _validation(axis: Axes, log: pd.DataFrame) -> None:
    scores = log.dropna(subset=["psnr_y"])
    axis.plot(scores["step"], scores["psnr_y"], "o-", color="#1b9e77", label="averaged weights")
    axis.set(ylabel="PSNR-Y, dB", title="Validation pictures")
    axis.legend(fontsize=8)


def _rate(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["lr"], color="#7570b3")
    axis.set(ylabel="learning rate", title="Learning rate")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _norm(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["gradient_norm"], color="#666666", lw=1)
    axis.set(ylabel="norm, before clipping", title="Gradient", yscale="log")


def _raw(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "raw")
    axis.set(ylabel="value", title="Loss terms as they are", yscale="log")


def _weighted(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "weighted")
    axis.set(ylabel="weight times value", title="What each adds to the total", yscale="log")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _shares(axis: Axes, log: pd.DataFrame) -> None:
    _terms(axis, log, "share", smooth=1)
    axis.set(ylabel="weight (sum 1)", title="Learned weights", ylim=(0, 1))
    axis.legend(fontsize=7)


def _discriminator(axis: Axes, log: pd.DataFrame) -> None:
    axis.plot(log["step"], log["loss_discriminator"], color="#a6761d", lw=1)
    axis.axhline(np.log(2), color="#7f7f7f", ls="--", label="cannot tell, ln 2")
    axis.set(ylabel="RaGAN loss", title="Discriminator")
    axis.legend(fontsize=8)


def _terms(axis: Axes, log: pd.DataFrame, kind: str, smooth: int = 10) -> None:
    terms = [c.removeprefix("raw_") for c in log if c.startswith("raw_")]
    for term, colour in zip(terms, _colours(len(terms)), strict=True):
        if f"{kind}_{term}" in log:
            values = log[f"{kind}_{term}"].ewm(span=smooth).mean()
            axis.plot(log["step"], values, color=colour, label=term.replace("_", " "))


def _colours(n: int) -> list:
    return [STAGE_COLOURS[i % len(STAGE_COLOURS)] for i in range(n)]


def learnable_weights(histories: dict[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Softmax weights by step, one panel a form; histories: {form: (steps, n)}."""
    figure, axes = plt.subplots(
        1,
        len(histories),
        figsize=(3.6 * len(histories), 3.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (form, weights) in zip(axes.flat, histories.items(), strict=True):
        for i, name in enumerate(names):
            axis.plot(weights[:, i], color=STAGE_COLOURS[i + 1], label=name.replace("_", " "))
        axis.axhline(1 / len(names), color="#cccccc", ls=":", zorder=0)
        axis.set(title=form, xlabel="step", ylim=(0, 1))
    axes[0, 0].set_ylabel("weight (sum 1)")
    axes[0, -1].legend(fontsize=8)
    return figure


class Live:
    """The figure of a training while it runs: train's callback. finish(log) makes it the static one and keeps it.

    path: the PNG. Drawn again after `pause` seconds at the earliest, and seldom enough to take at most 2 % of the
    time. In an executed notebook one picture is left, the last.
    """

    def __init__(self, path: Path | str, baseline: float | None = None, pause: float = 10.0):
        self.path, self.baseline, self.pause = Path(path), baseline, pause
        self.handle: DisplayHandle | None = None
        self.next = time.monotonic() + pause

    def __call__(self, row: dict) -> None:
        if time.monotonic() < self.next or len(row["log"]) < 2:
            return
        started = time.monotonic()
        try:
            figure = training(pd.DataFrame(row["log"]), self.baseline)
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
        self._show(keep_figure(training(log, self.baseline), self.path))

    def _show(self, figure: Figure) -> None:
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
