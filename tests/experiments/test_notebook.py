"""Missing inputs name their maker; what is written can be read."""

import json

import numpy as np
import pandas as pd
import pytest

from srlib.experiments.notebook import existing_file, named_paths, need, project_root, write_csv, write_json


def test_missing_input_names_its_maker(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebooks/01_data.ipynb first"):
        need(tmp_path / "data", "01_data")
    assert need(tmp_path, "01_data") == tmp_path


def test_an_unknown_run_is_answered_with_those_there_are(tmp_path):
    outputs = tmp_path / "outputs"
    with pytest.raises(FileNotFoundError, match="no run 'dmo' in outputs/, which has nothing .*01_data.ipynb"):
        need(outputs / "dmo/stage1/best.safetensors", "02_stage1")
    for made in ("demo/data", "photos/x2/data", "photos/x3/stage1", "begun/.code"):
        (outputs / made).mkdir(parents=True)
    for run, said in (
        ("dmo", "no run 'dmo' in outputs/, which has demo, photos/x2, photos/x3; did you mean 'demo'?"),
        ("photos/x4", "no run 'photos/x4' in outputs/, which has demo, photos/x2, photos/x3; did you mean 'photos/x"),
        ("begun", "no run 'begun' in outputs/"),  # make has noted its code, nothing is made
        ("demo", "demo/stage1/best.safetensors is missing: run notebooks/02_stage1.ipynb first, with the same `run`; "),
        ("photos/x3", "photos/x3/stage1/ has nothing"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            need(outputs / run / "stage1/best.safetensors", "02_stage1")
        assert said in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no run 'dmo' in outputs/"):
        named_paths(["mine=outputs/dmo/stage1/best.safetensors"], tmp_path)


def test_a_missing_file_is_answered_with_what_is_beside_it(tmp_path):
    (tmp_path / "weights").mkdir()
    for name in ("best.safetensors", "last.safetensors", ".hidden"):
        (tmp_path / "weights" / name).touch()
    said = "weights/ has best.safetensors, last.safetensors; did you mean 'best.safetensors'?"
    with pytest.raises(FileNotFoundError, match=said.replace("?", r"\?")):
        existing_file("weights/best.safetensor", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"/ has weights; did you mean 'weights'\?"):
        existing_file("weigths/best.safetensors", tmp_path)


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
    with pytest.raises(FileNotFoundError, match="checkpoint 'mine=x.pth': .*x.pth does not exist; .* has a.pth; did"):
        named_paths(["mine=x.pth"], tmp_path)
    with pytest.raises(ValueError, match="called 'mine': write name=path"):
        named_paths(["mine=a.pth", "mine=a.pth"], tmp_path)


@pytest.mark.parametrize(
    ("entry", "name", "file"),
    [
        ("lr=1e-4.pth", "lr=1e-4.pth", "lr=1e-4.pth"),
        ("mine=lr=1e-4.pth", "mine", "lr=1e-4.pth"),
        ("runs/lr=1e-4, b=2/best.pth", "runs/lr=1e-4, b=2/best.pth", "runs/lr=1e-4, b=2/best.pth"),
        ("mine=runs/lr=1e-4, b=2/best.pth", "mine", "runs/lr=1e-4, b=2/best.pth"),
        ("mine=a.pth", "mine=a.pth", "mine=a.pth"),  # there is such a file, and an a.pth
        ("my run=a.pth", "my run", "a.pth"),
        ("=a.pth", "a.pth", "a.pth"),
        ("==.pth", "=.pth", "=.pth"),
        ("=.pth", "=.pth", "=.pth"),
    ],
)
def test_a_name_ends_at_the_first_equals_sign_and_a_file_that_is_there_is_itself(tmp_path, entry, name, file):
    (tmp_path / "runs/lr=1e-4, b=2").mkdir(parents=True)
    for there in ("a.pth", "lr=1e-4.pth", "mine=a.pth", "=.pth", "runs/lr=1e-4, b=2/best.pth"):
        (tmp_path / there).touch()
    assert named_paths([entry], tmp_path) == {name: tmp_path / file}
    assert named_paths([str(tmp_path / file)], tmp_path) == {str(tmp_path / file): tmp_path / file}  # absolute


def test_a_table_in_a_file_has_no_infinity(tmp_path):
    table = pd.DataFrame({"a": ["x", "y"], "TC": [float("inf"), 41.5], "SGR": [-float("inf"), float("nan")]})
    assert write_csv(tmp_path / "a.csv", table, index=False).read_text() == "a,TC,SGR\nx,,\ny,41.5,\n"


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
