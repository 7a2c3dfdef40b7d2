"""Parameters are refused at the door with a sentence, and a run's files before anything runs."""

import json
import subprocess
import sys

import pytest
from projects import ROOT

from srlib.parameters import complaints, read_parameter_file, read_parameters

CELL = '# parameters\nrun = "demo"  # name\nsteps = 10\nrate = 1e-4\nflag = True\nscales = [2]\n'
DEFAULTS = {"run": "demo", "steps": 10, "rate": 1e-4, "flag": True, "scales": [2]}


def read(**given):
    injected = "# Parameters\n" + "".join(f"{k} = {v!r}\n" for k, v in given.items())
    return read_parameters(["", CELL, injected], {**DEFAULTS, **given, "other": 1})


def test_defaults_and_given_values():
    assert read_parameters(["", CELL], DEFAULTS) == DEFAULTS
    assert read(steps=3, rate=1)["steps"] == 3


def test_an_expression_in_the_parameters_cell_counts_as_its_value():
    cell = '# parameters\nrun = "a" + "b"\nsteps = 2 * 450\nrate = float("inf")\n'
    values = {"run": "ab", "steps": 900, "rate": 1.0}
    assert read_parameters([cell], values) == values
    assert read_parameters([cell.replace("steps", "mistyped"), cell], values) == values  # only the latest counts
    with pytest.raises(ValueError, match="unknown parameter 'stepz': did you mean 'steps'"):
        read_parameters([cell, "# Parameters\nstepz = 3"], values)


def test_an_expression_in_a_notebooks_file_is_named(tmp_path):
    cell = {"source": ["# parameters\n", "steps = 2 * 450\n"], "metadata": {"tags": ["parameters"]}}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "p.yaml").write_text("")
    with pytest.raises(ValueError, match=r"^parameter steps is '2 \* 450': write a literal value"):
        read_parameter_file(tmp_path / "n.ipynb", tmp_path / "p.yaml", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 3}, "unknown parameter 'stepz': did you mean 'steps'"),
        ({"xyz": 3}, "unknown parameter 'xyz': known are run, steps"),
        ({"rate": "3e-4"}, "rate must be float.*not '3e-4'; YAML reads 3e-4 as text"),
        ({"steps": 2.5}, "steps must be int"),
        ({"steps": True}, "steps must be int"),
        ({"scales": 2}, "scales must be list"),
    ],
)
def test_wrong_parameters_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read(**given)


def test_all_files_of_a_run_are_checked_before_it_begins(tmp_path):
    folder = tmp_path / "params/mine"
    folder.mkdir(parents=True)
    for name, text in {
        "01_data": "run: mine\n",
        "02_stage1": "run: demo\n",
        "03_tiling": "run: mine\niteratons: 3\n",
        "04_artifact_ft": "run: mine\nlearning_rate: 1e-4\n",
        "05_eval": "run: [mine\n",
        "07_else": "run: mine\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    found = complaints(folder, ROOT / "notebooks")
    for part, name in zip(
        (
            "run is 'demo': write `run: mine`",
            "unknown parameter 'iteratons': did you mean 'iterations'?",
            "write 3.0e-4",
            "while parsing",
            "there is no ",
        ),
        ("02_stage1", "03_tiling", "04_artifact_ft", "05_eval", "07_else"),
        strict=True,
    ):
        assert any(f"{name}.yaml: " in one and part in one for one in found), part
    assert len(found) == 5 and not any("\n" in one for one in found)


def test_the_command_is_silent_about_what_is_right_and_says_what_is_wrong(tmp_path):
    def command(folder):
        line = [sys.executable, "-m", "srlib.parameters", str(folder)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)

    right = command(ROOT / "params/demo")
    assert (right.returncode, right.stdout, right.stderr) == (0, "", "")
    (tmp_path / "params/x").mkdir(parents=True)
    (tmp_path / "params/x/01_data.yaml").write_text("run: x\n")
    wrong = command(tmp_path / "params/x")
    assert wrong.returncode == 1 and "01_data.ipynb that it could be for" in wrong.stderr
