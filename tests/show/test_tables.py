"""Tables for people have words, units and digits that mean something."""

import math
import re

import pandas as pd
import pytest
import torch

from srlib.losses.artifacts import CLASSES, SeamExample
from srlib.losses.detector import ArtifactDetector, evaluate_detector
from srlib.show.tables import in_words, seam_heat

INDEX = pd.MultiIndex.from_tuples([("a", "tile 32 halo 0"), ("a", "exact")], names=["variant", "tiling"])


def test_columns_are_in_words_and_numbers_in_their_units():
    means = pd.DataFrame(
        {
            "PSNR-Y": [31.23456, 31.4],
            "seconds": [0.0012, 12.3],
            "MiB": [math.nan, 128.04],
            "TC": [48.06, math.inf],
            "SGR": [1.81234, 1.0],
            "max_difference": [0.1, 3.457e-07],
            "differing_share": [0.1234, 0.0],
            "gain, dB": [-0.25, 0.25],
            "gap closed, % (of a)": [0.0, 81.26],
        },
        INDEX,
    )
    shown = in_words(means)
    assert shown.index.equals(means.index)
    first, last = ["TC, dB", "SGR", "PSNR-Y, dB"], ["gain, dB", "gap closed, % (of a)"]
    assert shown.columns[:3].tolist() == first and shown.columns[-2:].tolist() == last
    assert shown.loc["a", "tile 32 halo 0"].to_dict() == {
        "PSNR-Y, dB": "31.23",
        "time, s": "< 0.01",
        "memory, MiB": "",
        "TC, dB": "48.1",
        "SGR": "1.812",
        "largest difference, levels of 255": "25.50",
        "differing 8-bit values, %": "12.34",
        "gain, dB": "-0.250",
        "gap closed, % (of a)": "0",
    }
    exact = ["equal", "1.000", "31.40", "< 0.01", "0", "12.30", "128.0", "0.250", "81.3"]
    assert shown.loc["a", "exact"].tolist() == exact


def test_no_number_has_an_exponent_and_no_column_an_underscore():
    page = in_words(pd.DataFrame({"max_difference": [1e-9, 1e-4], "differing_share": [1e-8, 1.0]}, INDEX)).to_html()
    assert not re.search(r"\de-?\d|_", page)


def test_seam_heat_is_that_of_the_pixels_beside_seams_and_of_those_far_from_them(monkeypatch):
    detector, where = ArtifactDetector(channels=8), CLASSES.index("seam")
    heat = torch.zeros(1, len(CLASSES), 64, 48)
    heat[0, where, 31:33], heat[0, where, 41:], heat[0, where, 24:31] = 0.5, 0.25, 1.0
    monkeypatch.setattr(detector, "heatmap", lambda pictures: heat)
    table = seam_heat(detector, {"tiled": [(torch.rand(3, 64, 48), ([32], []))], "none": [(heat[0, :3], ([], []))]})
    assert table.loc["tiled", "on seam lines"] == 0.5  # rows 31 and 32
    assert table.loc["tiled", "elsewhere"] == pytest.approx(23 * 0.25 / (23 + 23))  # rows 0 to 22, 41 to 63
    assert math.isnan(table.loc["none", "on seam lines"])


def test_seam_heat_is_what_the_detector_is_judged_by():
    torch.manual_seed(0)
    detector, pictures = ArtifactDetector(channels=8), [torch.rand(3, 96, 112) for _ in range(2)]
    examples = [SeamExample(picture, picture, ([32, 64], [48])) for picture in pictures]
    judged = evaluate_detector(detector, pictures, examples, batches=1, batch=1, patch=48)
    (row,) = seam_heat(detector, {"": [(e.tiled, e.seams) for e in examples]}).to_dict("index").values()
    assert row["on seam lines"] == pytest.approx(judged["seam_heat_on"])
    assert row["elsewhere"] == pytest.approx(judged["seam_heat_off"])
