"""Figures of scores show what they are given, with units."""

import pandas as pd
import torch

from srlib.show import score_figures


def test_heat_bars_and_gains_draw_all_they_are_given():
    rows = {
        "tiled": (torch.rand(3, 16, 16), torch.rand(2, 16, 16)),
        "HR": (torch.rand(3, 16, 16), torch.zeros(2, 16, 16)),
    }
    heat = score_figures.artifact_heat(rows, ["blocks", "seam"], {"tiled": ([8], [])})
    titles = [axis.get_title() for axis in heat.axes]
    assert titles[3:] == ["HR", "blocks\nmean 0.00", "seam\nmean 0.00", ""]  # the last one is the colour bar
    assert [axis.get_yticks().tolist() for axis in heat.axes[:6]] == [[7.5]] * 3 + [[]] * 3
    bars = score_figures.bars({"a": 0.5, "b": 0.9}, "average precision", 0.8)
    assert [round(p.get_height(), 2) for p in bars.axes[0].patches] == [0.5, 0.9]
    table = pd.DataFrame({"picture": ["p", "q"] * 3, "variant": ["bicubic"] * 2 + ["y"] * 4})
    table = table.assign(tiling=["whole"] * 4 + ["t"] * 2, value=[1.0, 2, 4, 4, 3, 5])
    (axis,) = score_figures.gains(table, "value", "gain, dB", "bicubic").axes
    assert [marks.get_offsets()[:, 0].tolist() for marks in axis.collections] == [[3, 2], [2, 3]]


def test_seed_dots_show_every_seed_and_the_mean_in_order():
    index = pd.MultiIndex.from_product([[0, 1], ["b", "a"]], names=["seed", "arm"])
    rows = pd.DataFrame({"TC": [40.0, 41.0, 42.0, 45.0], "SGR": [1.0, 2.0, 1.0, 2.0]}, index=index)
    figure = score_figures.seed_dots(rows, {"TC": "TC, dB", "SGR": "SGR"}, "arm")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["b", "a"] and axis.get_xlabel() == "TC, dB"
    seeds, means = (c.get_offsets().tolist() for c in axis.collections)
    assert seeds == [[40, 0], [41, 1], [42, 0], [45, 1]] and means == [[41, 0], [43, 1]]
    assert axis.lines[0].get_xdata()[0] == 41 and len(figure.axes) == 2
