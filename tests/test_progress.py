"""Progress is a bar in a terminal, and whole lines, now and then, in a log."""

import io
import json
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

import srlib.progress
from srlib.progress import progress_bar

LINE = r"(?:\d+\.\d steps/s|\d+\.\d s/step)"


@pytest.fixture
def clock(monkeypatch):
    """The time that bars see, as a list of one number."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_a_log_gets_a_whole_line_every_half_minute_and_one_at_the_end(clock, capsys):
    text, seen = "", []
    with progress_bar(total=450, initial=50, desc="stage1", unit="step") as bar:
        for _ in range(400):
            clock[0] += 0.25
            bar.update()
            bar.set_postfix({"loss": "0.0288", "lr": "7.5e-04"})
            text += capsys.readouterr().out
            seen.append(text.count("\n"))
    text += capsys.readouterr().out
    assert bar.n == bar.total == 450
    assert seen.index(1) == 119 and seen.index(2) == 239 and seen[-1] == 3  # not before 30 s have passed
    lines = text.splitlines(keepends=True)
    assert lines[0] == "stage1: 170/450 steps, 4.0 steps/s, loss 0.0288, lr 7.5e-04\n"
    assert lines[-1] == "stage1: 450/450 steps, 4.0 steps/s, loss 0.0288, lr 7.5e-04\n"
    assert len(lines) == 4 and all(line.endswith("\n") for line in lines) and "\r" not in text


def test_an_iteration_is_counted_and_slow_steps_are_given_in_seconds(clock, capsys):
    def slowly():
        for number in range(3):
            clock[0] += 20
            yield number

    assert list(progress_bar(slowly(), desc="many", unit="picture")) == [0, 1, 2]
    assert capsys.readouterr().out == "many: 2 pictures, 20.0 s/picture\nmany: 3 pictures, 20.0 s/picture\n"


@pytest.mark.parametrize("options", [{"leave": False}, {"disable": True}, {"initial": 5}])
def test_no_line_of_what_is_not_to_stay_or_has_not_moved(clock, capsys, options):
    with progress_bar(total=5, **options) as bar:
        bar.update(5 - options.get("initial", 0))
        bar.set_postfix(loss=1.0)
    assert capsys.readouterr().out == ""


def test_a_step_that_fails_leaves_the_line_before_it(capsys):
    with pytest.raises(ValueError), progress_bar(total=5) as bar:
        bar.update(2)
        raise ValueError
    assert capsys.readouterr().out.startswith("2/5 its")


def test_the_last_line_is_not_printed_twice(monkeypatch, capsys):
    monkeypatch.setattr(srlib.progress, "INTERVAL", 0.0)
    assert list(progress_bar(range(4))) == list(range(4))
    assert capsys.readouterr().out.count("\n") == 4


def test_a_terminal_gets_tqdms_own_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    with progress_bar(total=2, desc="stage1", unit="step", mininterval=0) as bar:
        bar.update(2)
    assert type(bar) is tqdm and "\r" in sys.stdout.getvalue() and "100%|" in sys.stdout.getvalue()


def test_a_pipe_is_a_log():
    command = [sys.executable, "-c", "from srlib.progress import *; list(progress_bar(range(3), unit='step'))"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"3/3 steps, {LINE}\n", piped.stdout) and piped.stderr == ""


def test_an_executed_notebook_stores_plain_lines():
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(
        "import srlib.progress\nsrlib.progress.INTERVAL = 0.4\nimport time\n"
        "for _ in srlib.progress.progress_bar(range(10), unit='step'):\n    time.sleep(0.1)"
    )
    notebook = NotebookClient(nbformat.v4.new_notebook(cells=[cell])).execute()
    (cell,) = json.loads(nbformat.writes(notebook))["cells"]
    assert {output["name"] for output in cell["outputs"]} == {"stdout"} and len(cell["outputs"]) <= 3
    text = "".join("".join(output["text"]) for output in cell["outputs"])
    assert re.fullmatch(rf"(\d+/10 steps, {LINE}\n){{3}}", text), text
