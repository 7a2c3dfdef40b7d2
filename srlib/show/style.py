"""What all figures share: one colour for one thing, names as they are, how they are written.

A function that makes a figure ends with `return plain(figure)`. Nothing in this room changes matplotlib's settings.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator

from srlib.files import atomic, printable

BASELINE = "#7f7f7f"  # what others are compared with: bicubic, the whole picture, chance
_COLOURS = {
    "stage 1": "#d95f02",
    "stage 2": "#7570b3",
    "stage 3": "#1b9e77",
    "HR": "#333333",
    "bicubic": BASELINE,
    "whole": BASELINE,
    "pixel": "#1f78b4",  # the terms of the loss, as srlib/losses/total.py names them
    "perceptual": "#e6ab02",
    "adversarial": "#e31a1c",
    "frequency": "#a6761d",
    "gradient": "#e7298a",
    "ms_ssim": "#66a61e",
    "artifact_class": "#6a3d9a",
    "artifact_feature": "#fb9a99",
    "nearest": "#a6cee3",  # the kernels that make LR pictures; bicubic is above
    "area": "#a6761d",
    "bilinear": "#1f78b4",
    "lanczos": "#e7298a",
    "input": "#1f78b4",  # given pairs'
    "train": "#6a3d9a",  # the parts of the split
    "validation": "#e6ab02",
    "test": "#66a61e",
}
_OTHERS = ["#1f78b4", "#e7298a", "#66a61e", "#a6761d", "#e6ab02", "#6a3d9a", "#e31a1c", "#fb9a99", "#333333", "#a6cee3"]
_PRINTED: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}  # text stays text


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: stages, baselines, terms of the loss, kernels and parts of the split have theirs in every
    figure, other names get those that are left, in their order.
    """
    names = list(dict.fromkeys(names))
    taken = {_COLOURS[name] for name in names if name in _COLOURS}
    free = [colour for colour in [*_OTHERS, *_COLOURS.values()] if colour not in taken | {BASELINE}] or _OTHERS
    unknown = [name for name in names if name not in _COLOURS]
    return {name: _COLOURS.get(name) or free[unknown.index(name) % len(free)] for name in names}


def plain(figure: Figure) -> Figure:
    """The figure, its words shown as they are: a name may hold $, which would be read as mathematics, or what cannot be
    printed, which is escaped (in words at an axis by `wrapped`). The numbers at an axis keep their powers of ten.
    """
    axes = [axis for both in figure.axes for axis in (both.xaxis, both.yaxis)]
    numbered = [axis for axis in axes if not isinstance(axis.get_major_locator(), FixedLocator)]
    numbers = {text for axis in numbered for text in axis.findobj(Text)} - {axis.label for axis in axes}
    for text in set(figure.findobj(Text)) - numbers:
        text.set_parse_math(False)
        if text.get_text() != (shown := _lines(text.get_text())):
            text.set_text(shown)
    return figure


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def wrapped(text: str, inches: float, size: float = 9, lines: int = 2) -> str:
    """The text in at most so many lines, none longer than `inches` at `size` points; a longer one loses its middle."""
    text = _lines(text)
    broken = [text]
    for kept in range(len(text), 0, -1):
        shown = text if kept == len(text) else f"{text[: -(-kept // 2)]}…{text[len(text) - kept // 2 :]}"
        broken = _broken(shown, inches * 72 * 0.95, size)  # on a screen letters are rounded to pixels
        if len(broken) <= lines:
            break
    return "\n".join(broken)


def _broken(text: str, points: float, size: float) -> list[str]:
    font = FontProperties(size=size)

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line.rstrip() or " ", font, ismath=False)[0] <= points

    lines = []
    for paragraph in text.split("\n"):
        lines.append("")
        for word in re.findall(r"[^\s/_,;:-]*[\s/_,;:-]?", paragraph):
            if fits(lines[-1] + word):
                lines[-1] += word
                continue
            lines += [""] if lines[-1] else []
            for letter in word:
                lines += [] if fits(lines[-1] + letter) else [""]
                lines[-1] += letter
    return [line.rstrip() for line in lines]


def saved_dpi() -> float:
    """Dots per inch of a written figure: matplotlib's own setting `savefig.dpi`, 110 where nobody has set it."""
    return 110.0 if plt.rcParams["savefig.dpi"] == "figure" else float(plt.rcParams["savefig.dpi"])


def keep_figure(figure: Figure, path: Path | str) -> Figure:
    """Write the figure and return it for display; closed, so that it is shown once.

    A path that ends in .png gets the ending and the format of matplotlib's own setting `savefig.format` (png, svg, pdf,
    ...), from its file matplotlibrc, as it gets `savefig.dpi`. Text in svg and pdf stays text.
    """
    path = Path(path)
    kind = plt.rcParams["savefig.format"] if path.suffix == ".png" else path.suffix[1:]
    with atomic(path.with_suffix(f".{kind}")) as temporary, plt.rc_context(_PRINTED):
        figure.savefig(temporary, format=kind, dpi=saved_dpi(), bbox_inches="tight")
    plt.close(figure)
    return figure
