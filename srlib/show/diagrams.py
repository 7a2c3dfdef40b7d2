"""How the notebooks fit together, drawn: every line is a folder of outputs/<run>/ that one writes and others read."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from srlib.show.style import plain

INK, PAPER = "#333333", "#ffffff"
BOX = (1.42, 0.62)  # width and height; a column is 2 wide, a row 1.25 high


@dataclass(frozen=True)
class Step:
    """A notebook: what it does, the folder it writes, what lies there, and the notebooks whose folders it reads."""

    name: str
    does: str
    folder: str
    holds: str
    reads: tuple[str, ...] = ()
    beside: bool = False  # not part of `make`: drawn dashed


STEPS = (
    Step("01_data", "pictures to pairs", "data/", "LR and HR pairs, the split,\npacked patches"),
    Step("02_stage1", "train on patches", "stage1/", "HAT, figures, metrics", ("01_data",)),
    Step("03_tiling", "train through tiles", "tiling/", "HAT, seam maps, metrics", ("01_data", "02_stage1")),
    Step(
        "04_artifact_ft",
        "train the eraser",
        "artifact_ft/",
        "detector, eraser, metrics",
        ("01_data", "02_stage1", "03_tiling"),
    ),
    Step(
        "05_eval",
        "judge on test set",
        "eval/",
        "scores, crops",
        ("01_data", "02_stage1", "03_tiling", "04_artifact_ft"),
    ),
    Step("06_ablation", "what each part adds", "ablation/", "arms, seeds, scores", ("01_data",), beside=True),
    Step("07_restoration", "restore pairs", "restoration/", "network, scores", ("01_data",), beside=True),
    Step("08_hdr", "HDR out of LDR", "hdr/", "two stages, scores", ("01_data",), beside=True),
    Step("09_any_network", "tile any network", "networks/", "reach, scores", ("01_data",), beside=True),
)
COLOURS = (
    "#1f78b4",
    "#d95f02",
    "#7570b3",
    "#1b9e77",
    "#e7298a",
    "#7f7f7f",
    "#66a61e",
    "#e6ab02",
    "#a6761d",
)  # of what each step writes


def data_flow(steps: tuple[Step, ...] = STEPS) -> Figure:
    """A staircase of notebooks. What one writes runs to the right and falls into those that read it."""
    rows = [sum(not s.beside for s in steps[:i]) - step.beside for i, step in enumerate(steps)]
    places = {step.name: (2.0 * i, -1.25 * row) for i, (step, row) in enumerate(zip(steps, rows, strict=True))}
    figure, axis = plt.subplots(figsize=(16.2, 5.8), layout="constrained")
    axis.set(xlim=(-1.9, 2.0 * len(steps) - 1.05), ylim=(-1.25 * max(rows) - 1.0, 0.5))
    axis.set_axis_off()
    for step, colour in zip(steps, COLOURS, strict=True):
        _lines(axis, step, colour, steps, places)
    for step, colour in zip(steps, COLOURS, strict=True):
        x, y = places[step.name]
        line = "--" if step.beside else "-"
        axis.add_patch(
            FancyBboxPatch(
                (x - BOX[0] / 2, y - BOX[1] / 2), *BOX, "round,pad=0.05", fc=PAPER, ec=colour, lw=2, ls=line, zorder=3
            )
        )
        axis.text(x, y + 0.13, step.name, ha="center", va="center", fontsize=11, weight="bold", color=INK, zorder=4)
        axis.text(x, y - 0.16, step.does, ha="center", va="center", fontsize=8.5, color=INK, zorder=4)
    legend = "Each line is a folder of outputs/<run>/, written by the\nnotebook it leaves and read by those it enters."
    axis.text(-1.85, -1.25 * max(rows), legend, fontsize=9.5, color=INK, va="center", linespacing=1.5)
    axis.annotate("", (-0.78, 0), (-1.15, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.6})
    axis.text(-1.2, 0, "your pictures,\nor embedded", ha="right", va="center", fontsize=9, color=INK)
    plt.close(figure)  # so that a notebook shows it once
    return plain(figure)


def _lines(axis: plt.Axes, step: Step, colour: str, steps: tuple[Step, ...], places: dict) -> None:
    """One horizontal line from the step to its last reader, a vertical one down into each of them; its label."""
    x, y = places[step.name]
    start = x + BOX[0] / 2 + 0.05
    readers = [s for s in steps if step.name in s.reads]
    ends = []
    for reader in readers:
        column, row = places[reader.name]
        apart = BOX[0] / (len(reader.reads) + 1)  # the lines into one box side by side, the oldest to the right
        end = column + BOX[0] / 2 - apart * (reader.reads.index(step.name) + 1)
        top = row + BOX[1] / 2 + 0.05
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (end, top), (end, y), arrowprops=arrow | {"ls": "--" if reader.beside else "-"})
        ends.append((end, reader.beside))
    solid = max((end for end, beside in ends if not beside), default=start)
    axis.plot([start, solid], [y, y], color=colour, lw=1.6, solid_capstyle="round")
    for end, beside in ends:
        if beside:
            axis.plot([solid, end], [y, y], color=colour, lw=1.6, ls="--")
    note = f"{step.folder}\n{step.holds}"
    axis.text(x - BOX[0] / 2, y - BOX[1] / 2 - 0.12, note, ha="left", va="top", fontsize=8.5, color=colour)
