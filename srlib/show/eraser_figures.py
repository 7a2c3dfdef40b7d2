"""Figures of the eraser: what it sees, and a seam before and after it.

Pictures are tensors (C, H, W) in [0, 1]; differences are shown in 8-bit levels (0-255).
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from srlib.show.panels import levels_between, panel_size, seams_within, show_difference, show_picture
from srlib.show.picture_figures import to_array
from srlib.show.seam_figures import draw_profiles
from srlib.show.style import plain, wrapped
from srlib.tiling.seams import Seams, seam_profile, seam_report, worst_seam


def eraser_patch(item: Mapping, *, radius: int) -> Figure:
    """An item of srlib.training.answers.Answers: the stitched and the LR picture, the signed distance to the nearest
    seam, row or column, and what the eraser is to add. radius: LR pixels, of the map's unit.
    """
    lr, stitched, seams, _ = item["lr"]
    whole = item["target"][0]
    figure, axes = plt.subplots(1, 4, figsize=(13.2, 3.4), layout="constrained")
    for axis, picture, name in ((axes[0], stitched, "stitched picture"), (axes[1], lr, "LR picture")):
        show_picture(axis, to_array(picture))
        axis.set_title(name, fontsize=10)
    rows, columns = (np.where(seams[2 + i].numpy() > 0, seams[i].numpy() * radius, np.inf) for i in (0, 1))
    distance = np.where(np.abs(rows) <= np.abs(columns), rows, columns)
    distance[np.isinf(distance)] = np.nan
    image = show_picture(axes[2], distance, cmap="PuOr", vmin=-radius, vmax=radius)
    axes[2].set_facecolor("#dddddd")
    figure.colorbar(image, ax=axes[2], shrink=0.8, label="LR pixels; grey: none near")
    axes[2].set_title("distance to the next seam", fontsize=10)
    error = levels_between(whole, stitched)
    limit = max(float(np.percentile(np.abs(error), 99.5)), 1.0)
    show_difference(axes[3], error, limit)
    axes[3].set_title("to be added: whole - tiled", fontsize=10)
    return plain(figure)


def erased_seam(
    tiled: Tensor, erased: Tensor, whole: Tensor, seams: Seams, *, crop: int = 96, title: str = ""
) -> Figure:
    """The worst seam of a picture tiled, erased and whole, with TC and SGR of the whole picture; below, the differences
    from the whole one on one scale, and the profile of the error by distance to the seam, all over the picture.
    """
    top, left = worst_seam(tiled, whole, seams, crop)
    size = min(crop, *tiled.shape[-2:])
    marks = seams_within(seams, top, left, size)

    def cut(picture: Tensor) -> Tensor:
        return picture[:, top : top + size, left : left + size]

    width, height = panel_size((size, size), 3.6)
    figure, axes = plt.subplots(2, 3, figsize=(3 * width + 2, 2 * (height + 0.6)), layout="constrained")
    known = {"tiled": tiled, "tiled and erased": erased, "whole": whole}
    for axis, (name, picture) in zip(axes[0], known.items(), strict=True):
        show_picture(axis, to_array(cut(picture).clamp(0, 1)), None if name == "whole" else marks)
        scores = "" if name == "whole" else _scores(picture, whole, seams)
        axis.set_title(name + scores, fontsize=10, pad=10)
    differences = {name: levels_between(cut(p), cut(whole)) for name, p in known.items() if name != "whole"}
    limit = max(float(np.percentile(np.abs(differences["tiled"]), 99.5)), 1.0)
    for axis, (name, difference) in zip(axes[1], differences.items(), strict=False):
        show_difference(axis, difference, limit, marks)
        axis.set_title(f"{name} - whole", fontsize=10, pad=10)
    profiles = {(name, ""): seam_profile(p, whole, seams) for name, p in known.items() if name != "whole"}
    colours, _ = draw_profiles(axes[1, 2], profiles)
    handles = [plt.Line2D([], [], color=colour, lw=2, label=name) for name, colour in colours.items()]
    axes[1, 2].legend(handles=handles, fontsize=8)
    figure.suptitle(wrapped(title, 3 * width, 11), fontsize=11)
    return plain(figure)


def _scores(picture: Tensor, whole: Tensor, seams: Seams) -> str:
    report = seam_report(picture, whole, seams)
    return f"\nTC {report['TC']:.1f} dB, SGR {report['SGR']:.2f}"
