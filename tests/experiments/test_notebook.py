"""Missing inputs name their maker; what is written can be read."""

import json

import numpy as np
import pytest

from srlib.experiments.notebook import named_paths, need, project_root, write_json


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
