"""An executed notebook becomes one page without code that fetches nothing."""

import re
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from srlib.show.report import FIRST, HIDDEN, write_report

PARAMETERS = """# parameters
run = "demo"  # outputs/<run>/ is read and written
steps = 20  # äöü; of the optimizer
sizes = [1, 2]
"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def executed(tmp_path):
    cells = [
        new_markdown_cell("# 05 A title\n\nWith text.\n\n| | |\n|---|---|\n| reads | some folder |"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell("# Parameters\nsteps = 30\n", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("hidden_name = 1", outputs=[new_output("stream", text="five pictures\n")]),
        new_code_cell("plot()", outputs=[new_output("display_data", {"image/png": PIXEL})]),
        new_code_cell("run()", outputs=[new_output("stream", text="steps 5/5 done\n")], metadata={"tags": [HIDDEN]}),
        new_markdown_cell("## What it says", metadata={"tags": [FIRST]}),
        new_code_cell("say()", outputs=[new_output("stream", text="it gains 0.10 dB")], metadata={"tags": [FIRST]}),
    ]
    notebook = new_notebook(cells=cells, metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {}}})
    nbformat.write(notebook, tmp_path / "05.ipynb")
    return tmp_path / "05.ipynb"


def test_a_missing_notebook_is_answered_with_the_runs_there_are(tmp_path):
    (tmp_path / "outputs/demo/data").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no run 'dmo' in outputs/, which has demo; did you mean 'demo'"):
        write_report(tmp_path / "outputs/dmo/05_eval.ipynb", tmp_path / "report.html")


def test_texts_and_figures_stay_and_code_and_progress_go(executed):
    page = write_report(executed, executed.with_name("report.html")).read_text()
    assert "<title>05 A title</title>" in page and "five pictures" in page and PIXEL in page
    assert "hidden_name" not in page and "plot()" not in page and "steps 5/5" not in page
    assert not list(executed.parent.glob(".*part*"))


def test_figures_are_described_by_the_text_above_them(executed):
    page = write_report(executed, executed.with_name("report.html")).read_text()
    assert 'alt="Figure 1. With text."' in page and "No description" not in page


def test_the_conclusion_is_first_and_files_and_parameters_are_last(executed):
    text = BeautifulSoup(
        write_report(executed, executed.with_name("report.html")).read_text(), "html.parser"
    ).get_text()
    order = ["05 A title", "What it says", "it gains 0.10 dB", "With text.", "five pictures", "Files", "some folder"]
    order += ["Parameters", "run", '"demo"', "outputs/<run>/ is read and written"]
    order += ["steps", "30", "äöü; of the optimizer", "sizes", "[1, 2]"]  # 30 was injected for this run
    text, place = text.partition("05 A title")[2], 0  # after the page's title
    for words in order:
        assert (place := text.find(words, place)) >= 0, words
    assert "# parameters" not in text and text.count("it gains") == 1


def test_nothing_is_fetched_when_it_is_opened(executed):
    page = write_report(executed, executed.with_name("report.html")).read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(?:https?:|//)[^>]*>", page)


def test_command_and_a_notebook_that_was_not_run(executed):
    line = [sys.executable, "-m", "srlib", "report", str(executed)]
    assert subprocess.run(line, capture_output=True, text=True).stdout.strip() == str(executed.with_suffix(".html"))
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), executed)
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "holds no outputs: run it first" in done.stderr and "Traceback" not in done.stderr


def test_a_second_notebook_is_not_overwritten_and_other_files_are_refused(executed):
    other = executed.with_name("06.ipynb")
    other.write_bytes(executed.read_bytes())
    with pytest.raises(ValueError, match="06.ipynb would be written as .html: give it that suffix"):
        write_report(executed, other)
    assert other.read_bytes() == executed.read_bytes()
    for text in (
        "",
        "no JSON",
        "[1]",
        "3",
        "{}",
        '{"nbformat": 4}',
        '{"nbformat": 4, "nbformat_minor": 5, "cells": 3}',
    ):
        other.write_text(text)
        with pytest.raises(ValueError, match="06.ipynb is no notebook that Jupyter could open"):
            write_report(other, executed.with_name("report.html"))
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no notebook"):
        write_report(other, executed.with_name("report.html"))
