"""The diagram of the notebooks can be read."""

from figures import faults
from matplotlib.path import Path
from matplotlib.text import Annotation

from srlib.show.diagrams import STEPS, data_flow


def test_nothing_overlaps_and_every_notebook_is_named():
    figure = data_flow()
    assert faults(figure) == []
    said = {text.get_text() for text in figure.axes[0].texts}
    assert {step.name for step in STEPS} <= said


def test_lines_cross_no_text():
    """A line through words can't be read: the notes below the boxes stay clear of what runs by them."""
    figure = data_flow()
    figure.canvas.draw()
    (axis,) = figure.axes
    texts = [text for text in axis.texts if text.get_text()]
    arrows = [text for text in axis.texts if isinstance(text, Annotation)]
    lines = [line.get_transform().transform_path(line.get_path()) for line in axis.lines]
    lines += [Path([axis.transData.transform(end) for end in (text.xyann, text.xy)]) for text in arrows]
    crossed = [
        t.get_text() for t in texts for line in lines if line.intersects_bbox(t.get_window_extent(), filled=False)
    ]
    assert crossed == []
