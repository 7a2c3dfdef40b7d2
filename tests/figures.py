"""What a person would see wrong in a figure: faults(figure) names it, an empty list is a figure that can be read."""

import re
import warnings
from unittest import mock

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SMALLEST = 6  # points
NARROWEST = 0.15  # width of axes by height of the figure
POWERS = re.compile(r"\$\\mathdefault\{[^$]*\}\$")  # what matplotlib writes at a logarithmic axis


def faults(figure: Figure) -> list[str]:
    """In words: mathematics that is not rendered, text that is cut, covered or small, narrow axes, empty panels."""
    found = []
    texts, legends, said = _drawn(figure)
    found += [f"warns: {text}" for text in said]
    renderer = figure.canvas.get_renderer()
    page = figure.get_tightbbox(renderer).transformed(figure.dpi_scale_trans)  # what keep_figure writes
    boxes = [(text, text.get_window_extent(renderer)) for text in texts]
    for text, box in boxes:
        words = text.get_text()
        if text.get_parse_math() and words.count("$") > 1 and POWERS.sub("", words).count("$"):
            found.append(f"a name read as mathematics: {words!r}")
        if not text.get_parse_math() and POWERS.search(words):
            found.append(f"mathematics not rendered: {words!r}")
        if text.get_fontsize() < SMALLEST:
            found.append(f"{text.get_fontsize():g} points: {words!r}")
        limits = [page] + ([text.get_clip_box()] if text.get_clip_on() and text.get_clip_box() else [])
        if any(not _inside(box, limit) for limit in limits):
            found.append(f"cut: {words!r}")
    for i, (text, box) in enumerate(boxes):
        for other, beside in boxes[i + 1 :]:
            if _overlap(box, beside):
                found.append(f"{text.get_text()!r} over {other.get_text()!r}")
        for legend in legends:
            if text not in legend.findobj(Text) and _overlap(box, legend.get_window_extent(renderer)):
                found.append(f"a legend over {text.get_text()!r}")
        for axes in figure.axes:
            if axes.images and text.axes is not axes and _overlap(box, axes.get_window_extent(renderer)):
                found.append(f"{text.get_text()!r} over a picture")
    bars = [image.colorbar.ax for axes in figure.axes for image in _mappables(axes) if image.colorbar]
    for axes in figure.axes:
        if not axes.get_visible() or axes in bars:
            continue
        width, content = axes.get_window_extent(renderer).width, _has_content(axes)
        name = axes.get_title() or axes.get_xlabel() or "axes"
        if content and width < NARROWEST * figure.bbox.height:
            found.append(f"narrow: {name!r}, {width:.0f} of {figure.bbox.height:.0f} pixels")
        if axes.axison and not content:
            found.append(f"empty: {name!r}")
    return found


def _drawn(figure: Figure) -> tuple[list[Text], list[Legend], list[str]]:
    """The texts and legends that come on the page, and matplotlib's warnings."""
    texts: list[Text] = []
    legends: list[Legend] = []
    draw_text, draw_legend = Text.draw, Legend.draw

    def text(self, renderer):
        if self.get_visible() and self.get_text().strip() and self not in texts:
            texts.append(self)
        draw_text(self, renderer)

    def legend(self, renderer):
        if self.get_visible():
            legends.append(self)
        draw_legend(self, renderer)

    FigureCanvasAgg(figure)
    with warnings.catch_warnings(record=True) as said, mock.patch.object(Text, "draw", text):
        warnings.simplefilter("always")
        with mock.patch.object(Legend, "draw", legend):
            figure.canvas.draw()
    return texts, legends, sorted({str(warning.message) for warning in said})


def _inside(box: Bbox, page: Bbox) -> bool:
    return box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1


def _overlap(a: Bbox, b: Bbox, allowed: float = 1.0) -> bool:
    """Whether they share more than `allowed` pixels in both directions; letters don't fill their boxes."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > allowed and min(a.y1, b.y1) - max(a.y0, b.y0) > allowed


def _mappables(axes: Axes) -> list:
    return [*axes.images, *axes.collections]


def _has_content(axes: Axes) -> bool:
    """Whether something finite is drawn, or said, in the axes; a line right across them is not content."""
    artists = [*axes.images, *axes.lines, *axes.collections, *axes.patches]
    return any(_finite(artist, axes) for artist in artists) or any(text.get_text() for text in axes.texts)


def _finite(artist, axes: Axes) -> bool:
    if not artist.get_visible():
        return False
    if isinstance(artist, AxesImage):
        return bool(np.isfinite(np.ma.filled(artist.get_array().astype(float), np.nan)).any())
    if isinstance(artist, Line2D):
        return artist.get_transform() == axes.transData and bool(np.isfinite(artist.get_xydata()).all(1).any())
    if isinstance(artist, Collection):
        offsets = np.ma.filled(np.ma.asarray(artist.get_offsets(), dtype=float), np.nan)
        return bool(np.isfinite(offsets).all(1).any()) if len(offsets) else bool(artist.get_paths())
    return isinstance(artist, Patch) and bool(np.isfinite(artist.get_extents().extents).all())
