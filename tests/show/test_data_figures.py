"""Figures of the data show what they are given, with units."""

import numpy as np
import pandas as pd
import torch

from srlib.data.resize import downscale
from srlib.show import data_figures


def test_the_overview_counts_pictures_and_bytes():
    manifest = pd.DataFrame({"source": ["a", "b"], "scale": 2, "method": "area", "hr_width": 5, "hr_height": 6})
    manifest[["source_bytes", "lr_bytes", "upscaled_bytes"]] = [2**20, 2**19, 2**18]
    overview = data_figures.data_overview(manifest, {"a": "train", "b": "test"})
    assert [t.get_text() for t in overview.axes[0].get_legend().get_texts()][0] == "train: 1"
    assert [bar.get_height() for bar in overview.axes[2].patches] == [2.0, 1.5]  # MiB


def test_methods_are_shown_pixel_for_pixel():
    hr, lrs = torch.rand(3, 120, 120), {"bicubic": torch.rand(3, 60, 60), "area": torch.rand(3, 60, 60)}
    figure = data_figures.compare_methods(hr, lrs, "bicubic")
    assert "rms 0.0 levels" in figure.axes[3].get_title()
    for axis in figure.axes[:5]:
        box = axis.get_window_extent()
        assert (round(box.width), round(box.height)) == axis.images[0].get_array().shape[:2] == (120, 120)
    alone = data_figures.compare_methods(hr, {"area": torch.rand(3, 60, 60)}, "area")
    assert [axis.get_title() for axis in alone.axes] == ["HR 120x120", "LR, area"]  # nothing to differ from
    assert all(round(axis.get_window_extent().height) == 120 for axis in alone.axes)


def test_spectra_show_what_a_kernel_keeps():
    hrs = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    lrs = {m: [downscale(hr, 2, m) for hr in hrs] for m in ("bicubic", "bilinear", "nearest")}
    lines = {line.get_label(): line.get_ydata() for line in data_figures.spectra(lrs, hrs).axes[0].lines}
    assert lines["bilinear"][-4:].mean() < lines["bicubic"][-4:].mean() - 1  # dB
    assert lines["nearest"].mean() > 3  # white noise folds back: all its power lies below the LR grid's end
    assert abs(lines["bicubic"][1:4].mean()) < 1
    flat = torch.full((3, 96, 128), 0.5)  # among others it says nothing, and spoils nothing
    areas = [downscale(flat, 2, "area"), lrs["bicubic"][0]]
    lines = data_figures.spectra({"area": areas}, [flat, hrs[0]]).axes[0].lines
    assert np.isfinite(lines[0].get_ydata()).all()
