"""What a log holds is drawn, with units; the live figure becomes the static one."""

import numpy as np
import pandas as pd
import pytest
from figures import faults
from matplotlib import pyplot as plt

from srlib.losses.total import TERMS
from srlib.show import curves

PLAIN = {"step": range(1, 7), "loss": np.linspace(1, 0.5, 6), "lr": 1e-3, "gradient_norm": 1.0, "raw_pixel": 1.0}


def panels(figure) -> dict:
    return {a.get_title(loc="left"): a for a in figure.axes}


def test_a_plain_training_shows_loss_validation_rate_and_gradient():
    log = pd.DataFrame({**PLAIN, "psnr_y": [None, 30] * 3})
    shown = panels(curves.training(log, lines={"bicubic": {"psnr_y": 29.0}}))
    assert list(shown) == ["Training loss", "Validation", "Learning rate", "Gradient"]
    validation = shown["Validation"]
    assert validation.get_ylabel() == "PSNR-Y, dB" and len(validation.lines[0].get_xdata()) == 3
    assert [line.get_label() for line in validation.lines] == ["EMA weights", "bicubic"]
    assert all(a.get_xlabel() == "step" and a.get_ylabel() for a in shown.values())


def test_terms_are_shown_raw_and_weighted_with_shares_and_discriminator():
    terms = {"raw_ms_ssim": 0.5, "weighted_pixel": 2.0, "weighted_ms_ssim": 0.1, "share_pixel": 0.5}
    log = pd.DataFrame({**PLAIN, **terms, "share_ms_ssim": 0.5, "loss_discriminator": 0.6})
    shown = panels(curves.training(log))
    assert [line.get_label() for line in shown["Loss terms as they are"].lines] == ["pixel", "ms ssim"]
    assert shown["What each adds to the total"].lines[0].get_ydata().tolist() == pytest.approx([2.0] * 6)
    assert shown["Learned weights"].get_ylim() == (0, 1) and len(shown["Learned weights"].lines) == 2
    assert "Discriminator" in shown and "Validation" not in shown


def test_learned_weights_have_one_panel_a_form():
    names = ["pixel", "gradient", "ms_ssim"]
    for forms in (["plain"], ["plain", "normalised", "entropy", "uncertainty"]):
        figure = curves.learnable_weights({form: np.full((5, 3), 1 / 3) for form in forms}, names)
        assert [len(axis.lines) for axis in figure.axes] == [4] * len(forms) and not faults(figure)


def a_log(steps: int, terms: int, start: float | None = None) -> pd.DataFrame:
    """As a training writes it, every tenth step, validated at every fifth row, at step 0 too where `start` is given."""
    x = np.arange(steps)
    log = pd.DataFrame({"step": 10 * x + 1, "loss": 1 / (x + 1), "lr": 3e-4 / (x + 1), "gradient_norm": 10.0**-x})
    for i, term in enumerate(TERMS[:terms]):
        log[f"raw_{term}"] = log[f"weighted_{term}"] = 10.0**-i / (x + 1)
    log["psnr_y"] = np.where(x % 5 == 4, 30 + x / steps, np.nan)
    return log if start is None else pd.concat([pd.DataFrame({"step": [0], "psnr_y": [start]}), log], ignore_index=True)


def test_stage_3_has_tc_first_what_it_was_before_and_a_ring_at_what_is_kept():
    scores = {"tc": [45.0, None, 52.0, None, 51.0, None], "sgr": [1.5, None, 1.2, None, 1.1, None]}
    log = pd.DataFrame({**PLAIN, "psnr_y": [30.0, None, 31.0, None, 32.0, None], **scores})
    before = {"tc": 43.0, "sgr": 1.8, "psnr_y": 29.9}
    figure = curves.training(log, lines={"not erased": before}, best_by="tc", average="schedule-free weights")
    shown = [axis for axis in figure.axes if axis.get_title(loc="left") == "Validation"]
    assert [axis.get_ylabel() for axis in shown] == ["TC, dB", "SGR, ideal 1", "PSNR-Y, dB"]
    for axis, kept, level in zip(shown, (52.0, 1.2, 31.0), before.values(), strict=True):
        curve, line, ring = axis.lines
        assert len(curve.get_xdata()) == 3 and line.get_label() == "not erased" and line.get_ydata()[0] == level
        assert ring.get_xydata().tolist() == [[3, kept]] and ring.get_label() == "best TC"
    assert not faults(figure)
    nothing = curves.training(log.assign(tc=np.nan), best_by="tc")
    assert "best TC" not in [line.get_label() for axis in nothing.axes for line in axis.lines]


@pytest.mark.parametrize(("terms", "steps", "start"), [(1, 1, None), (1, 40, 6.3), (2, 6, 28.9), (8, 6, 6.3)])
def test_nothing_is_cut_covered_or_unrendered(terms, steps, start):
    log = a_log(steps, terms, start)
    if terms == 8:
        log[["loss_discriminator", "share_pixel", "share_gradient"]] = 0.5
    log = log.dropna(axis=1, how="all")
    assert not faults(curves.training(log, lines={"bicubic": {"psnr_y": 29.0}}, average="schedule-free weights"))


def test_every_curve_begins_at_step_0_and_a_start_far_below_does_not_flatten_it():
    for start, lowest in ((28.5, 28.5), (6.3, 29.0)):
        shown = panels(curves.training(a_log(40, 1, start), lines={"bicubic": {"psnr_y": 29.0}}))
        assert all(axis.get_xlim()[0] <= 0 < 391 <= axis.get_xlim()[1] for axis in shown.values())
        validation = shown["Validation"]
        assert validation.lines[0].get_xydata()[0].tolist() == [0, start]
        assert lowest - 3 < validation.get_ylim()[0] < lowest
        assert [t.get_text() for t in validation.texts] == (["below: 6.3 dB at step 0"] if start == 6.3 else [])


def test_a_single_logged_step_is_seen_and_steps_are_whole_numbers():
    figures = [
        curves.training(a_log(1, 3)),
        curves.learnable_weights({"plain": np.full((1, 2), 0.5)}, ["pixel", "gradient"]),
    ]
    for axis in (axis for figure in figures for axis in figure.axes):
        assert all(line.get_marker() == "o" for line in axis.lines if len(line.get_xdata()) == 1)
    for axis in curves.training(a_log(2, 1)).axes:
        assert all(tick == round(tick) for tick in axis.get_xticks())


def test_a_term_has_one_colour_everywhere():
    def colours(figure) -> dict:
        return {line.get_label(): line.get_color() for axis in figure.axes for line in axis.lines}

    few = colours(curves.training(a_log(6, 2)))
    many = colours(curves.training(a_log(6, 8)))
    learned = colours(curves.learnable_weights({"plain": np.full((5, 3), 1 / 3)}, ["ms_ssim", "pixel", "gradient"]))
    assert few["pixel"] == many["pixel"] == learned["pixel"] and many["ms ssim"] == learned["ms ssim"]
    assert len({many[term.replace("_", " ")] for term in TERMS}) == len(TERMS)


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
