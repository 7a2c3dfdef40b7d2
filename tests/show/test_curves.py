"""What a log holds is drawn, with units; the live figure becomes the static one."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from srlib.show import curves

PLAIN = {"step": range(1, 7), "loss": np.linspace(1, 0.5, 6), "lr": 1e-3, "gradient_norm": 1.0, "raw_pixel": 1.0}


def panels(figure) -> dict:
    return {a.get_title(): a for a in figure.axes if a.get_title()}


def test_a_plain_training_shows_loss_validation_rate_and_gradient():
    log = pd.DataFrame({**PLAIN, "psnr_y": [None, 30] * 3})
    shown = panels(curves.training(log, baseline=29.0))
    assert list(shown) == ["Training loss", "Validation pictures", "Learning rate", "Gradient"]
    validation = shown["Validation pictures"]
    assert validation.get_ylabel() == "PSNR-Y, dB" and len(validation.lines[0].get_xdata()) == 3
    assert [line.get_label() for line in validation.lines] == ["averaged weights", "bicubic"]
    assert all(a.get_xlabel() == "step" and a.get_ylabel() for a in shown.values())


def test_terms_are_shown_raw_and_weighted_with_shares_and_discriminator():
    terms = {"raw_ms_ssim": 0.5, "weighted_pixel": 2.0, "weighted_ms_ssim": 0.1, "share_pixel": 0.5}
    log = pd.DataFrame({**PLAIN, **terms, "share_ms_ssim": 0.5, "loss_discriminator": 0.6})
    shown = panels(curves.training(log))
    assert [line.get_label() for line in shown["Loss terms as they are"].lines] == ["pixel", "ms ssim"]
    assert shown["What each adds to the total"].lines[0].get_ydata().tolist() == pytest.approx([2.0] * 6)
    assert shown["Learned weights"].get_ylim() == (0, 1) and len(shown["Learned weights"].lines) == 2
    assert "Discriminator" in shown and "Validation pictures" not in shown


def test_learned_weights_have_one_panel_a_form():
    figure = curves.learnable_weights({"plain": np.full((5, 3), 1 / 3)}, ["pixel", "gradient", "ms_ssim"])
    assert len(figure.axes[0].lines) == 4


def test_the_live_figure_is_drawn_while_training_and_then_kept(tmp_path, monkeypatch):
    shown, before = [], plt.get_fignums()

    class Handle:
        def update(self, figure):
            shown.append(("update", figure))

    monkeypatch.setattr(curves, "display", lambda figure, display_id: shown.append(("display", figure)) or Handle())
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(curves.time, "monotonic", lambda: next(clock))
    live = curves.Live(tmp_path / "a.png", pause=10)
    log = [dict(zip(PLAIN, row, strict=True)) for row in zip(range(1, 4), [3, 2, 1], *[[1.0] * 3] * 3, strict=True)]
    live({"step": 1, "log": log})
    assert not shown  # too early
    for _ in range(6):
        live({"step": 2, "log": log})
    assert [kind for kind, _ in shown] == ["display"]  # drawing took 3 s: the next is due after 150
    live.finish(pd.DataFrame(log))
    assert [kind for kind, _ in shown] == ["display", "update"] and (tmp_path / "a.png").stat().st_size > 5000
    assert plt.get_fignums() == before
