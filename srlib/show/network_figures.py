"""Figures of 09_any_network: how far networks look, and what tiling changes in a picture."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.panels import panel_size, show_picture
from srlib.show.style import colours_of, plain, wrapped
from srlib.tiling.reach import Reach

_WIDTH = 2.4  # inches of a picture


def reaches(found: Mapping[str, Reach], contexts: Mapping[str, int]) -> Figure:
    """Bars of each network's reach, LR pixels, with lines at the context that tools give; hatched: it also takes
    statistics of the whole picture. contexts: {tool: LR pixels}.
    """
    figure, axis = plt.subplots(figsize=(7.5, 0.32 * len(found) + 1.3), layout="constrained")
    names = list(found)
    for row, name in enumerate(names):
        reach = found[name]
        far = reach.pixels if reach.pixels is not None else reach.seen
        axis.barh(row, far, color="#c8d4e3", edgecolor="#5b708b", hatch="///" if reach.whole else None, height=0.7)
        more = "" if reach.pixels is not None else "more than "
        axis.text(
            far + 4,
            row,
            f"{more}{far}" + (" and the whole picture" if reach.whole else ""),
            va="center",
            fontsize=8,
            bbox={"fc": "white", "ec": "none", "pad": 1},
        )
    for (tool, pixels), colour in zip(contexts.items(), colours_of(list(contexts)).values(), strict=True):
        axis.axvline(pixels, color=colour, lw=1.5, label=f"{tool}: {pixels}")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35 * max(r.pixels if r.pixels is not None else r.seen for r in found.values()))
    axis.set_xlabel("reach, LR pixels to each side")
    figure.legend(
        title="context by default", fontsize=8, title_fontsize=8, ncols=3, frameon=False, loc="outside upper center"
    )
    return plain(figure)


def changes(pictures: Mapping[str, Tensor], whole: Tensor, factor: float = 32.0) -> Figure:
    """A row a way: the picture (C, H, W) in [0, 1], and its difference from `whole`, times `factor`, in levels of 255;
    grey is none.
    """
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = panel_size(tuple(whole.shape[-2:]), _WIDTH)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns + 1, (height + 0.45) * rows), squeeze=False, layout="constrained"
    )
    bound = 255 / 2 / factor
    shown, spare = list(axes.flat[: len(pictures)]), axes.flat[len(pictures) :]
    for axis in spare:
        axis.remove()
    for axis, (way, picture) in zip(shown, pictures.items(), strict=True):
        apart = 255 * (picture - whole).mean(0).numpy()
        image = show_picture(axis, apart, cmap="RdBu_r", vmin=-bound, vmax=bound)
        worst = np.abs(apart).max()
        said = f"at most {worst:.1f} levels" if worst >= 0.05 else "below 0.1 levels"
        axis.set_title(f"{wrapped(way, width, 9)}\n{said}", fontsize=9)
    figure.colorbar(
        image, ax=shown, label="difference from the whole picture, levels", extend="both", shrink=0.8, pad=0.01
    )
    return plain(figure)
