"""Colours with one meaning, names that fit, and figures written as matplotlib's own settings say."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from srlib.losses.total import TERMS
from srlib.show.style import colours_of, keep_figure, wrapped


def a_figure():
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
    left.set_title("a title in words")
    right.imshow([[0, 1]])
    return figure


def test_a_thing_has_one_colour_and_two_things_have_two():
    stages = ["stage 1", "stage 2", "stage 3"]
    together = colours_of([*stages, "bicubic", "HR", *TERMS])
    assert colours_of(["stage 2", "pixel"]) == {name: together[name] for name in ("stage 2", "pixel")}
    assert len(set(together.values())) == len(together)
    own = colours_of([*stages, "bicubic", "mine", "yours", "$", ""])
    assert len(set(own.values())) == len(own) and own["stage 1"] == together["stage 1"]
    assert len(colours_of(map(str, range(100)))) == 100


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_one_setting_is_the_format_of_all_figures(tmp_path, kind):
    with plt.rc_context({"savefig.format": kind}):
        keep_figure(a_figure(), tmp_path / "made" / "a.b.png")
    assert [path.name for path in (tmp_path / "made").iterdir()] == [f"a.b.{kind}"]
    written = (tmp_path / "made" / f"a.b.{kind}").read_bytes()
    assert written.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert kind != "svg" or b">a title in words</text>" in written  # text, no outlines
    assert kind != "pdf" or b"/Type3" not in written.replace(b" ", b"")  # printers want fonts of type 42


def test_a_path_that_names_another_format_gets_it(tmp_path):
    keep_figure(a_figure(), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")


def test_one_setting_is_the_resolution_of_all_figures(tmp_path):
    sides = []
    for dpi in ("figure", 220):
        with plt.rc_context({"savefig.dpi": dpi}):
            keep_figure(a_figure(), tmp_path / "a.png")
        sides.append(Image.open(tmp_path / "a.png").size[0])
    assert sides[1] == pytest.approx(2 * sides[0], abs=2)


def test_the_settings_are_read_from_matplotlibs_own_file(tmp_path):
    (tmp_path / "matplotlibrc").write_text("savefig.format: svg\n")
    code = (
        "import matplotlib.pyplot as plt; from srlib.show.style import keep_figure; keep_figure(plt.figure(), 'a.png')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MATPLOTLIBRC"} | {"MPLBACKEND": "agg"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "a.svg").is_file()


def test_a_long_name_keeps_its_ends_and_fits():
    text = "photographs/a very long way round/DSC_0042 in the evening"
    for inches in (0.3, 1, 2, 9):
        lines = wrapped(text, inches, 9, 2).split("\n")
        figure = plt.figure()
        boxes = [figure.text(0, 0, line, fontsize=9).get_window_extent() for line in lines]
        assert len(lines) <= 2 and all(box.width <= inches * figure.dpi + 1 for box in boxes)
    assert wrapped(text, 9) == text and wrapped("", 1) == "" and wrapped("a\nb", 9) == "a\nb"
    short = wrapped(text, 1, 9, 2)
    assert short[0] == "p" and short[-1] == "g" and "…" in short
    assert wrapped("a\udcff\tb", 9) == r"a\xff\tb"
