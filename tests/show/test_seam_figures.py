"""Figures of seams show what they are given, with units."""

import numpy as np
import pandas as pd
import pytest
import torch

from srlib.show import seam_figures
from srlib.show.style import colours_of


def test_seam_maps_share_one_scale_and_tick_the_seams():
    whole = torch.zeros(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16] = 10 / 255
    figure = seam_figures.seam_maps({"a": (tiled, whole), "b": (whole, whole)}, ([16], [8, 24]))
    first, second = figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].get_array()[16].tolist() == [10.0] * 48
    assert first.get_yticks().tolist() == [15.5] and first.get_xticks().tolist() == [7.5, 23.5]


def test_seam_maps_show_the_change_against_the_first_one():
    whole = torch.zeros(3, 32, 48)
    worse, better = (whole + levels / 255 for levels in (20, 5))
    figure = seam_figures.seam_maps({"a": (worse, whole), "b": (better, whole)}, ([16], []), against="a", title="moon")
    shown = {axis.get_title(): axis.images[0] for axis in figure.axes if axis.images and axis.get_title()}
    assert list(shown) == ["a\nrms 20 levels", "b\nrms 5 levels", "change against a\nmean -15 levels"]
    change = list(shown.values())[2]
    assert (
        np.allclose(change.get_array(), -15) and change.get_clim() == (-15, 15) and change.get_cmap().name == "RdBu_r"
    )


def test_the_seam_sheet_draws_map_profile_and_every_seam():
    whole = torch.rand(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16:] += 0.2
    figure = seam_figures.seam_sheet(tiled, whole, ([16], [8, 24]), "moon")
    picture, profile, steps = figure.axes[:3]
    assert picture.get_yticks().tolist() == [15.5] and len(profile.lines[0].get_xdata()) == 13
    assert np.allclose(picture.images[0].get_array()[16:], 0.2 * 255) and picture.images[0].colorbar is not None
    rows, columns = (c.get_offsets() for c in steps.collections)
    assert len(rows) == 1 and rows[0][1] > 1 and np.allclose(columns[:, 1], 1)
    assert "TC 17.0 dB" in figure.get_suptitle() and figure.get_suptitle().startswith("moon")


def test_ways_to_tile_are_measured_against_the_whole():
    table = pd.DataFrame(
        {"TC": [None, 44.0, float("inf")], "SGR": [None, 1.7, 1.0], "seconds": [1.0, 1.2, 1.1], "MiB": [90.0, 20, 30]},
        index=["whole", "crop, no halo", "exact"],
    )
    axes = seam_figures.ways_to_tile(table).axes
    labels = [axis.get_xlabel() for axis in axes]
    assert labels == ["TC, dB (more is better)", "|SGR - 1| (less is better)", "time, s", "peak memory, MiB"]
    tc, sgr = ([dot.get_offsets()[0].tolist() for dot in axis.collections] for axis in axes[:2])
    assert tc[0] == [44.0, 0] and tc[1][0] > 44 and axes[0].texts[1].get_text() == "equal"
    assert sgr[0] == pytest.approx([0.7, 0]) and sgr[1][0] < 0.7 and axes[1].get_xscale() == "log"
    assert not axes[0].patches and not axes[1].patches  # a bar from 0 would mean nothing
    assert axes[3].lines[0].get_xdata()[0] == 90.0


def test_profiles_are_told_apart_and_compared_with_the_first_model():
    """Colour is the model, dashes the tiling; to 12 pixels, linear; a ratio to next to nothing is left out."""
    near = torch.full((32,), 2 / 255)
    lines = {("stage 1", "halo 0"): near, ("stage 2", "halo 0"): near / 4}
    lines |= {("stage 1", "halo 8"): near / 1e4, ("stage 2", "halo 8"): near / 1e5}
    figure = seam_figures.seam_profiles(lines)
    levels, ratios = figure.axes
    assert [line.get_color() for line in levels.lines] == list(colours_of(["stage 1", "stage 2"]).values()) * 2
    assert [line.get_linestyle() for line in levels.lines] == ["-", "-", "--", "--"]
    assert levels.get_yscale() == "linear" and levels.get_xlim()[1] < 13 and len(levels.lines[0].get_xdata()) == 13
    assert np.allclose(ratios.lines[0].get_ydata(), 0.25) and np.isnan(ratios.lines[1].get_ydata()).all()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["stage 1", "stage 2", "halo 0", "halo 8"]
    assert len(seam_figures.seam_profiles({("stage 1", ""): near}).axes) == 1  # nothing to compare it with
