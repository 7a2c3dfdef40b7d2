"""Tables for people have words, units and digits that mean something."""

import math
import re

import pandas as pd

from srlib.show.tables import in_words

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
    exact = ["31.40", "12.30", "128.0", "equal", "1.000", "< 0.01", "0", "0.250", "81.3"]
    assert shown.loc["a", "exact"].tolist() == exact


def test_no_number_has_an_exponent_and_no_column_an_underscore():
    page = in_words(pd.DataFrame({"max_difference": [1e-9, 1e-4], "differing_share": [1e-8, 1.0]}, INDEX)).to_html()
    assert not re.search(r"\de-?\d|_", page)
