"""Figures of seams show what they are given, with units."""

import numpy as np
import pandas as pd
import torch

from srlib.show import seam_figures


def test_seam_maps_share_one_scale_and_tick_the_seams():
    whole = torch.zeros(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16] = 10 / 255
    figure = seam_figures.seam_maps({"a": (tiled, whole), "b": (whole, whole)}, ([16], [8, 24]))
    first, second = figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].get_array()[16].tolist() == [10.0] * 48
    assert first.get_yticks().tolist() == [15.5] and first.get_xticks().tolist() == [7.5, 23.5]


def test_the_seam_sheet_draws_map_profile_and_every_seam():
    whole = torch.rand(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16:] += 0.2
    figure = seam_figures.seam_sheet(tiled, whole, ([16], [8, 24]), "moon")
    picture, profile, steps = figure.axes[:3]
    assert picture.get_yticks().tolist() == [15.5] and len(profile.lines[0].get_xdata()) == 32
    rows, columns = (c.get_offsets() for c in steps.collections)
    assert len(rows) == 1 and rows[0][1] > 1 and np.allclose(columns[:, 1], 1)
    assert "TC 17.0 dB" in figure.get_suptitle() and figure.get_suptitle().startswith("moon")


def test_ways_to_tile_are_measured_against_the_whole():
    table = pd.DataFrame(
        {"TC": [None, 44.0, float("inf")], "SGR": [None, 1.7, 1.0], "seconds": [1.0, 1.2, 1.1], "MiB": [90.0, 20, 30]},
        index=["whole", "crop, no halo", "exact"],
    )
    axes = seam_figures.ways_to_tile(table).axes
    assert [axis.get_xlabel() for axis in axes] == [
        "TC, dB (more is better)",
        "SGR (1 is ideal)",
        "time, s",
        "peak memory, MiB",
    ]
    assert [bar.get_width() for bar in axes[0].patches] == [44.0, 160.0]
    assert axes[3].lines[0].get_xdata()[0] == 90.0


def test_a_profile_has_a_line_for_each_entry():
    assert len(seam_figures.seam_profiles({"a": torch.rand(8), "b": torch.rand(8)}).axes[0].lines) == 2
