"""What all figures share: colours with one meaning each, marks of seams, how a figure is written."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srlib.files import atomic
from srlib.tiling.seams import Seams

plt.rcParams["text.parse_math"] = False  # pictures may have $ in their names
SEAM_COLOUR = "#00b7c7"
STAGE_COLOURS = ["#7f7f7f", "#d95f02", "#7570b3", "#1b9e77", "#e7298a", "#66a61e", "#1f78b4", "#a6761d"]


def keep_figure(figure: Figure, path: Path | str) -> Figure:
    """Write the figure as PNG and return it for display; closed, so that it is shown once."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return figure


def mark_seams(axis: Axes, seams: Seams) -> None:
    """The tile grid as ticks outside the picture, which stays uncovered."""
    axis.set_yticks([c - 0.5 for c in seams[0]], labels=[])
    axis.set_xticks([c - 0.5 for c in seams[1]], labels=[])
    axis.tick_params(color=SEAM_COLOUR, length=7, width=2, top=True, right=True)
