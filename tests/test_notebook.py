"""Parameters are refused at the door with a sentence; missing inputs name their maker."""

import json

import numpy as np
import pytest

from srlib.notebook import named_paths, need, project_root, read_parameter_file, read_parameters, write_json

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


def test_missing_input_names_its_maker(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebooks/01_data.ipynb first"):
        need(tmp_path / "data", "01_data")
    assert need(tmp_path, "01_data") == tmp_path


def test_root_is_found_from_the_notebooks_folder_and_refused_elsewhere(monkeypatch, tmp_path):
    root = project_root()
    monkeypatch.chdir(root / "notebooks")
    assert project_root() == root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="inside the repository"):
        project_root()


def test_checkpoints_are_named_or_name_themselves(tmp_path):
    (tmp_path / "a.pth").touch()
    assert named_paths(["mine=a.pth", "a.pth"], tmp_path) == {"mine": tmp_path / "a.pth", "a.pth": tmp_path / "a.pth"}
    assert named_paths([], tmp_path) == {}
    with pytest.raises(FileNotFoundError, match="x.pth.*of 'mine=x.pth'.*does not exist"):
        named_paths(["mine=x.pth"], tmp_path)
    with pytest.raises(ValueError, match="called 'mine': write name=path"):
        named_paths(["mine=a.pth", "mine=a.pth"], tmp_path)


def test_what_is_not_finite_is_null_in_json(tmp_path):
    content = {
        "run": "a",
        "steps": 3,
        "TC": {"whole": float("inf"), "tiled": 41.5},
        "SGR": [np.float64("nan"), (-np.inf,)],
    }

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = write_json(tmp_path / "metrics.json", content).read_text()
    expected = {"run": "a", "steps": 3, "TC": {"whole": None, "tiled": 41.5}, "SGR": [None, [None]]}
    assert json.loads(text, parse_constant=refuse) == expected
