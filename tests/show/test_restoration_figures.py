"""Figures of restored pictures can be read."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from figures import faults

from srlib.show import restoration_figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("sizes", [[(40, 60)], [(40, 60), (90, 30), (20, 160)]])
def test_pictures_and_their_notes(sizes):
    torch.manual_seed(0)
    versions = ("input", "restored", "restored, twice the size", "ground truth")
    rows = {f"test/gt/a picture with $ and a long name {s}": {v: torch.rand(3, *s) for v in versions} for s in sizes}
    notes = {(name, "restored"): "21.34 dB" for name in rows}
    figure = restoration_figures.restored(rows, notes)
    assert not faults(figure)
    assert sum(axis.get_xlabel() == "21.34 dB" for axis in figure.axes) == len(sizes)
    assert [axis.get_title() for axis in figure.axes][:5] == [*versions, ""][: 4 + (len(sizes) > 1)]


def a_log(columns):
    log = pd.DataFrame({f"share_{c}": np.linspace(0.3, 0.5, 8) for c in columns}).assign(step=range(1, 9))
    log.loc[4, "share_" + columns[0]] = np.nan  # a row of a validation alone
    return log


def test_weights_of_both_levels_and_of_one():
    both = [f"{name}_{n}" for n in (1, 2) for name in ("pixel", "gradient", "ms_ssim", "output")]
    figure = restoration_figures.both_levels(a_log(both))
    assert not faults(figure) and [len(axis.lines) for axis in figure.axes] == [4, 4, 3]
    figure = restoration_figures.both_levels(a_log(["pixel", "gradient", "ms_ssim"]))
    assert not faults(figure) and [len(axis.lines) for axis in figure.axes] == [4]


def test_gates():
    values = {f"level {n}": torch.stack([torch.rand(8 * n), torch.full((8 * n,), 0.5)]) for n in (3, 2, 1)}
    figure = restoration_figures.gates(values)
    assert not faults(figure) and len(figure.axes) == 3
