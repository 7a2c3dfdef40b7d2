"""Figures of HDR pictures can be read, and show light as it is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from figures import faults

from srlib.data.tone import to_srgb
from srlib.show import hdr_figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def light(height=30, width=60, top=5000.0):
    return np.geomspace(0.1, top, height * width, dtype=np.float32).reshape(height, width, 1).repeat(3, 2)


def test_exposures_clip_at_their_white():
    shown = hdr_figures.exposed(light(), 100)
    assert shown.max() == 255 and (shown[light() >= 100] == 255).all() and (shown[light() < 95] < 255).all()
    assert np.array_equal(shown[..., 0], np.round(to_srgb(light()[..., 0] / 100) * 255))


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (20, 120)])
def test_strips_and_false_colours(shape):
    ways = {"inverse mapping": light(*shape, top=200), "a way with $ in it": light(*shape), "truth": light(*shape)}
    figure = hdr_figures.strips(ways, [100, 300, 900])
    assert not faults(figure) and len(figure.axes) == 9
    assert {axis.get_title() for axis in figure.axes} >= {f"white at {w} cd/m2" for w in (100, 300, 900)}
    figure = hdr_figures.false_colours(ways, high=4000)
    assert not faults(figure) and figure.axes[-1].get_ylabel() == "luminance, cd/m2"
    black = hdr_figures.false_colours({"black": np.zeros((8, 8, 3), np.float32)})
    assert not faults(black)


def test_rows_of_pictures_have_their_names_and_titles():
    short, long = light(40, 80), light(20, 90)
    rows = {"first, $": {"input": short, "light": short}, "second, with a long name of many words": {"input": long}}
    figure = hdr_figures.pictures(
        {name: {t: hdr_figures.exposed(p, 300) for t, p in r.items()} for name, r in rows.items()}
    )
    assert not faults(figure) and [axis.get_title() for axis in figure.axes] == ["input", "light", "input"]


def test_priors_and_what_they_say_of_one_picture():
    rng = np.random.default_rng(0)
    true = {name: 1 + 0.1 * rng.normal(size=64) for name in ("kiara_1_dawn_1k_0", "lebombo_1k_0")}
    guessed = {name: values + 0.01 for name, values in true.items()}
    figure = hdr_figures.priors(true, guessed)
    assert not faults(figure)
    middle = np.mean(list(true.values()), 0)
    line = figure.axes[1].lines[0]
    assert np.allclose(line.get_xdata(), true["kiara_1_dawn_1k_0"] - middle)
    assert np.allclose(line.get_ydata(), guessed["kiara_1_dawn_1k_0"] - middle)
