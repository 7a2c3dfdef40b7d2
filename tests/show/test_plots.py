"""Figures show what they are given, with units; helpers find what they say."""

import numpy as np
import pandas as pd
import torch

from srlib.data.resize import downscale
from srlib.show import plots


def test_pictures_keep_their_pixels():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    array = plots.to_array(picture)
    assert array[..., 0].tolist() == [[0, 255], [128, 64]] and array.shape == (2, 2, 3)
    assert torch.equal(plots.upscale_nearest(picture, 2)[0, :2, :2], torch.zeros(2, 2))
    figure = plots.picture_grid({"a": torch.rand(3, 8, 9), "b": torch.rand(1, 4, 4)}, columns=4)
    assert [a.get_title() for a in figure.axes] == ["a", "b"]
    assert figure.axes[0].images[0].get_array().shape == (8, 9, 3)


def test_seam_maps_share_one_scale_and_tick_the_seams():
    whole = torch.zeros(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16] = 10 / 255
    figure = plots.seam_maps({"a": (tiled, whole), "b": (whole, whole)}, ([16], [8, 24]))
    first, second = figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].get_array()[16].tolist() == [10.0] * 48
    assert first.get_yticks().tolist() == [15.5] and first.get_xticks().tolist() == [7.5, 23.5]


def test_the_seam_sheet_draws_map_profile_and_every_seam():
    whole = torch.rand(3, 32, 48)
    tiled = whole.clone()
    tiled[:, 16:] += 0.2
    figure = plots.seam_sheet(tiled, whole, ([16], [8, 24]), "moon")
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
    axes = plots.ways_to_tile(table).axes
    assert [axis.get_xlabel() for axis in axes] == [
        "TC, dB (more is better)",
        "SGR (1 is ideal)",
        "time, s",
        "peak memory, MiB",
    ]
    assert [bar.get_width() for bar in axes[0].patches] == [44.0, 160.0]
    assert axes[3].lines[0].get_xdata()[0] == 90.0


def test_crops_are_the_square_and_only_its_seams():
    picture = torch.rand(3, 64, 64)
    figure = plots.crops({"a": picture}, 10, 20, 16, ([12, 40], [30]), title="t")
    axis = figure.axes[0]
    assert np.array_equal(axis.images[0].get_array(), plots.to_array(picture[:, 10:26, 20:36]))
    assert axis.get_yticks().tolist() == [1.5] and axis.get_xticks().tolist() == [9.5]


def test_busiest_square_holds_the_detail():
    picture = torch.full((3, 100, 120), 0.5)
    picture[:, 60:80, 90:110] = torch.rand(3, 20, 20)
    top, left, size = plots.busiest(picture, 32)
    assert size == 32 and top <= 60 and top + 32 >= 80 and left <= 90 and left + 32 >= 110


def test_the_other_figures_draw_all_they_are_given():
    heat = plots.artifact_heat(torch.rand(3, 16, 16), torch.rand(2, 16, 16), ["blocks", "seam"], ([8], []))
    assert len(heat.axes) == 4  # picture, two classes, colour bar
    assert len(plots.seam_profiles({"a": torch.rand(8), "b": torch.rand(8)}).axes[0].lines) == 2
    bars = plots.bars({"a": 0.5, "b": 0.9}, "average precision", 0.8)
    assert [round(p.get_height(), 2) for p in bars.axes[0].patches] == [0.5, 0.9]
    table = pd.DataFrame({"picture": ["p", "q"] * 3, "variant": ["bicubic"] * 2 + ["y"] * 4})
    table = table.assign(tiling=["whole"] * 4 + ["t"] * 2, value=[1.0, 2, 4, 4, 3, 5])
    (axis,) = plots.gains(table, "value", "gain, dB").axes
    assert [marks.get_offsets()[:, 0].tolist() for marks in axis.collections] == [[3, 2], [2, 3]]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["p\nbicubic 1.00", "q\nbicubic 2.00"]
    hr, lrs = torch.rand(3, 8, 8), {"bicubic": torch.rand(3, 4, 4), "area": torch.rand(3, 4, 4)}
    assert "rms 0.0 levels" in plots.compare_methods(hr, lrs, "bicubic").axes[3].get_title()
    manifest = pd.DataFrame({"source": ["a", "b"], "scale": 2, "method": "area", "hr_width": 5, "hr_height": 6})
    manifest[["source_bytes", "lr_bytes", "upscaled_bytes"]] = [2**20, 2**19, 2**18]
    overview = plots.data_overview(manifest, {"a": "train", "b": "test"})
    assert [t.get_text() for t in overview.axes[0].get_legend().get_texts()][0] == "train: 1"
    assert [bar.get_height() for bar in overview.axes[2].patches] == [2.0, 1.5]  # MiB


def test_methods_are_shown_pixel_for_pixel():
    hr, lrs = torch.rand(3, 120, 120), {"bicubic": torch.rand(3, 60, 60), "area": torch.rand(3, 60, 60)}
    figure = plots.compare_methods(hr, lrs, "bicubic")
    for axis in figure.axes[:5]:
        box = axis.get_window_extent()
        assert (round(box.width), round(box.height)) == axis.images[0].get_array().shape[:2] == (120, 120)
    alone = plots.compare_methods(hr, {"area": torch.rand(3, 60, 60)}, "area")
    assert [axis.get_title() for axis in alone.axes] == ["HR 120x120", "LR, area"]  # nothing to differ from
    assert all(round(axis.get_window_extent().height) == 120 for axis in alone.axes)


def test_spectra_show_what_a_kernel_keeps():
    hrs = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    lrs = {m: [downscale(hr, 2, m) for hr in hrs] for m in ("bicubic", "bilinear", "nearest")}
    lines = {line.get_label(): line.get_ydata() for line in plots.spectra(lrs, hrs).axes[0].lines}
    assert lines["bilinear"][-4:].mean() < lines["bicubic"][-4:].mean() - 1  # dB
    assert lines["nearest"].mean() > 3  # white noise folds back: all its power lies below the LR grid's end
    assert abs(lines["bicubic"][1:4].mean()) < 1
    flat = torch.full((3, 96, 128), 0.5)  # among others it says nothing, and spoils nothing
    lines = plots.spectra({"area": [downscale(flat, 2, "area"), lrs["bicubic"][0]]}, [flat, hrs[0]]).axes[0].lines
    assert np.isfinite(lines[0].get_ydata()).all()


def test_seed_dots_show_every_seed_and_the_mean_in_order():
    index = pd.MultiIndex.from_product([[0, 1], ["b", "a"]], names=["seed", "arm"])
    rows = pd.DataFrame({"TC": [40.0, 41.0, 42.0, 45.0], "SGR": [1.0, 2.0, 1.0, 2.0]}, index=index)
    figure = plots.seed_dots(rows, {"TC": "TC, dB", "SGR": "SGR"}, "arm")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["b", "a"] and axis.get_xlabel() == "TC, dB"
    seeds, means = (c.get_offsets().tolist() for c in axis.collections)
    assert seeds == [[40, 0], [41, 1], [42, 0], [45, 1]] and means == [[41, 0], [43, 1]]
    assert axis.lines[0].get_xdata()[0] == 41 and len(figure.axes) == 2
