"""Figures of the data show what they are given, with units."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from figures import faults
from matplotlib.colors import to_rgba

from srlib.data.hdr import PEAK, log_mapped
from srlib.data.manifest import METHOD
from srlib.data.resize import downscale
from srlib.show import data_figures

LONG = "photographs/holiday 2019, the long way round/$_{x}$ a building in the evening, second attempt"


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def listed(parts, scales=(2,), methods=("area",), sides=(60, 48), **changes):
    """A manifest and a split: {part: number of pictures}, as many bytes a picture as it has pixels."""
    split = {f"{part} {i}": part for part, count in parts.items() for i in range(count)}
    rows = [{"source": n, "scale": s, "method": m} for n in split for s in scales for m in methods]
    manifest = pd.DataFrame(rows).assign(hr_width=sides[0], hr_height=sides[1], source_bytes=2**20)
    return manifest.assign(**{"lr_bytes": 2**19, "upscaled_bytes": 2**18, **changes}), split


def test_the_overview_counts_pictures_and_bytes():
    overview = data_figures.data_overview(*listed({"train": 3, "test": 1}))
    _, parts, files = overview.axes
    texts = [text.get_text() for text in parts.texts]
    assert texts == ["3 pictures, 0.0086 MP", "1 picture, 0.0029 MP"]
    names = [text.get_text() for text in files.get_yticklabels()]
    assert names == ["HR", "LR x2 area", "LR x2 area, upscaled"]
    assert [bar.get_width() for bar in files.patches] == [4, 2, 1]  # MiB


def test_the_overview_of_pairs_of_one_size_says_input_and_ground_truth():
    overview = data_figures.data_overview(*listed({"train": 2}, [1], [METHOD], upscaled_bytes=0))
    assert [text.get_text() for text in overview.axes[2].get_yticklabels()] == ["ground truth", "input"]
    assert overview.axes[0].get_title() == "ground truth: all 2 are 60x48"


OVERVIEWS = [
    lambda: listed({"train": 3, "validation": 1, "test": 1}),
    lambda: listed({"train": 3, "test": 1}, [1], [METHOD], (4000, 300), upscaled_bytes=0),
    lambda: listed({"train": 1}, lr_bytes=0, upscaled_bytes=0),  # online
    lambda: listed({"train": 20000}, sides=(12000, 9000), source_bytes=0, lr_bytes=0, upscaled_bytes=0),
    lambda: listed(
        dict.fromkeys(("train", "test"), 2), [2, 3, 4], ["nearest", "bilinear", "bicubic", "lanczos", "area"]
    ),
]


@pytest.mark.parametrize("of", OVERVIEWS)
def test_the_overview_can_be_read(of):
    assert faults(data_figures.data_overview(*of())) == []


class Patches:
    """As srlib/data/patches.py: a key is a number and a draw; patch i is i % different, turned."""

    def __init__(self, length, different):
        self.length, self.different = length, different

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        number = key[0] % self.different
        return {"hr": torch.arange(48.0).reshape(3, 4, 4).add(number).rot90(key[0], (1, 2)), "number": number}


@pytest.mark.parametrize(("length", "different"), [(100, 100), (3, 3), (1, 1), (40, 5), (70, 7), (9, 8)])
def test_patches_that_are_shown_differ(length, different):
    shown = [item["number"] for item in data_figures.different_patches(Patches(length, different), 8)]
    assert len(shown) == len(set(shown)) == min(8, different)
    spread = [item["number"] for item in data_figures.different_patches(Patches(100, 100), 8)]
    assert spread[0] == 0 and spread[-1] >= 87


@pytest.mark.parametrize("shape", [(24, 32), (8, 200), (200, 8), (2, 2)])
@pytest.mark.parametrize("hdr", [False, True])
def test_a_pair_can_be_read(shape, hdr):
    hr = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    for lr in (hr * 0.8, hr, torch.rand(3, *(n // 2 for n in shape))):
        assert faults(data_figures.compare_pair(lr, hr, hdr=hdr, title=LONG)) == []


def test_a_pair_of_one_size_shows_what_is_to_change_in_levels():
    hr = torch.full((3, 8, 8), 0.5)
    figure = data_figures.compare_pair(hr - 10 / 255, hr)
    assert [a.get_title() for a in figure.axes[:3]] == [
        "input",
        "ground truth",
        "input - ground truth: rms 10.0 levels",
    ]
    difference = figure.axes[2].images[0]
    assert np.allclose(difference.get_array(), -10, atol=1e-3) and figure.axes[3].get_ylabel().startswith(
        "8-bit levels"
    )
    other = data_figures.compare_pair(torch.rand(3, 4, 8), torch.rand(3, 8, 16))
    assert [a.get_title() for a in other.axes] == ["LR 8x4", "HR 16x8"]


def test_an_hdr_pair_says_tone_mapping_and_exposure():
    light = np.full((3, 8, 8), PEAK / 10, np.float32)
    hr = torch.from_numpy(log_mapped(light))
    figure = data_figures.compare_pair(hr, hr, hdr=True)
    truth = [a for a in figure.axes if a.get_title() == "ground truth"]
    rows = {
        a.get_ylabel().replace("\n", " "): b.images[0].get_array()[0, 0, 0]
        for a, b in zip([a for a in figure.axes if a.get_title() == "input"], truth, strict=True)
    }
    assert rows == {
        "log-mapped, white is 1000 cd/m²": round(255 * float(hr[0, 0, 0])),
        "gamma 2.2, white is 1000 cd/m²": round(255 * 0.1 ** (1 / 2.2)),
        "gamma 2.2, white is 100 cd/m²": 255,
    }


def test_methods_are_shown_pixel_for_pixel():
    hr, lrs = torch.rand(3, 120, 120), {"bicubic": torch.rand(3, 60, 60), "area": torch.rand(3, 60, 60)}
    figure = data_figures.compare_methods(hr, lrs, "bicubic")
    assert len(figure.axes) == 5 and "rms " in figure.axes[3].get_title()  # nothing of the reference minus itself
    for axis in figure.axes[:4]:
        box = axis.get_window_extent()
        assert (round(box.width), round(box.height)) == axis.images[0].get_array().shape[:2] == (240, 240)  # 2 a pixel
    alone = data_figures.compare_methods(hr, {"area": torch.rand(3, 60, 60)}, "area")
    assert [axis.get_title() for axis in alone.axes] == ["HR 120x120", "LR, area"]  # nothing to differ from
    assert all(round(axis.get_window_extent().height) == 240 for axis in alone.axes)


@pytest.mark.parametrize(("side", "scale", "count"), [(12, 2, 1), (12, 4, 2), (96, 3, 5), (192, 2, 3), (384, 4, 2)])
def test_methods_can_be_read(side, scale, count):
    lrs = {
        m: torch.rand(3, side // scale, side // scale) for m in [LONG, "bicubic", "area", "nearest", "lanczos"][:count]
    }
    assert faults(data_figures.compare_methods(torch.rand(3, side, side), lrs, next(iter(lrs)))) == []


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("side", [4, 8, 96])
def test_spectra_can_be_read(side, scale):
    hrs = [torch.rand(3, side * scale, side * scale)] * 2
    for names in (["bicubic"], ["bicubic", "area", "nearest", "lanczos", "bilinear", LONG]):
        lrs = {m: [hr[:, ::scale, ::scale] for hr in hrs] for m in names[: 1 if scale == 1 else None]}
        assert faults(data_figures.spectra(lrs, hrs)) == []
        assert (
            faults(data_figures.spectra({m: [p * 0 for p in of] for m, of in lrs.items()}, [hr * 0 for hr in hrs]))
            == []
        )


@pytest.mark.parametrize(("scale", "low", "high"), [(1, "input", "ground truth"), (2, "LR", "HR")])
def test_given_pairs_are_called_what_they_are(scale, low, high):
    hr = torch.rand(3, 64, 64)
    (axis,) = data_figures.spectra({METHOD: [hr[:, ::scale, ::scale]]}, [hr]).axes
    assert axis.get_title() == f"What the {low} holds" and axis.get_ylabel() == f"power {low} / {high}, dB"
    assert [line.get_label() for line in axis.lines] == [low, f"{high}, same frequency"]
    files = data_figures.data_overview(*listed({"train": 2}, [scale], [METHOD], upscaled_bytes=0)).axes[2]
    made = low if scale == 1 else f"LR x{scale}"
    assert [text.get_text() for text in files.get_yticklabels()] == [high, made]


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


def test_a_kernel_has_one_colour_in_all_figures_of_the_data():
    kernels = ["nearest", "area", "bilinear", "bicubic", "lanczos"]
    manifest = pd.DataFrame({"source": "a", "scale": 2, "method": sorted(kernels), "hr_width": 50, "hr_height": 60})
    manifest[["source_bytes", "lr_bytes", "upscaled_bytes"]] = [2**20, 2**19, 0]
    right = data_figures.data_overview(manifest, {"a": "train"}).axes[2]
    names = [label.get_text().split()[-1] for label in right.get_yticklabels()]
    files = dict(zip(names, (bar.get_facecolor() for bar in right.patches), strict=True))
    hr = torch.rand(3, 60, 60)
    for some in (kernels, kernels[::-2]):
        lines = data_figures.spectra({m: [downscale(hr, 2, m)] for m in some}, [hr]).axes[0].lines
        drawn = {line.get_label(): to_rgba(line.get_color()) for line in lines}
        assert {m: drawn[m] for m in some} == {m: files[m] for m in some}
        assert drawn["HR, same frequency"] == files["HR"] and len(set(files.values())) == 6
