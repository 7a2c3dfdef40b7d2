"""Parameters are refused at the door with a sentence, and a run's files before anything runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT

from srlib.experiments.parameters import CHOICES, ENTRIES, FROM_1, complaints, read_parameter_file, read_parameters
from srlib.experiments.stages import STARTS
from srlib.losses.erasure import TEACHERS
from srlib.training.settings import OPTIMIZERS, PRECISIONS, SCHEDULES

CELL = (
    '# parameters\nrun = "demo"  # name\nsteps = 10\nrate = 1e-4\nflag = True\nscales = [2]\nweights = []\narms = []\n'
)
DEFAULTS = {"run": "demo", "steps": 10, "rate": 1e-4, "flag": True, "scales": [2], "weights": [], "arms": []}


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
        ({"steps": "ten"}, "steps must be int, like 10, not 'ten'$"),
        ({"scales": 2}, "scales must be list"),
        ({"scales": [2, "3"]}, "scales must hold int, like 2, not '3'"),
        ({"scales": [2.5]}, "scales must hold int"),
        ({"weights": [1, "8e-1"]}, "weights must hold float, like 1.0, not '8e-1'; YAML reads 3e-4 as text"),
        ({"arms": [1]}, "arms must hold str, like 'text', not 1"),
    ],
)
def test_wrong_parameters_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read(**given)


def run_folder(tmp_path, run="mine", **files: str):
    """params/<run> of a project with this one's notebooks; files by notebook."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    folder = tmp_path / "params" / run
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("02_stage1", "run: demo", "run is not that of the folder: write `run: mine`"),
        ("02_stage1", "iterations: 3", "write `run: mine`"),
        ("03_tiling", "run: mine\niteratons: 3", "unknown parameter 'iteratons': did you mean 'iterations'?"),
        ("04_artifact_ft", "run: mine\nlearning_rate: 1e-4", "write 3.0e-4"),
        ("05_eval", "run: [mine", "while parsing"),
        ("05_eval", "- run", "must hold lines like"),
        ("05_eval", "run: mine\nyes: 1", "unknown parameter 'True'"),
        ("02_stage", "run: mine", "there is no such notebook: did you mean 02_stage1.yaml?"),
    ],
)
def test_what_is_wrong_with_a_runs_files_is_one_sentence(tmp_path, name, text, complaint):
    folder = run_folder(tmp_path, **{"01_data": "run: mine", name: text})
    (found,) = complaints(folder)
    assert found.startswith(f"{folder}/{name}.yaml: ") and complaint in found and "\n" not in found


def test_what_papermill_takes_is_taken(tmp_path):
    """A date as a name, a run in a subfolder, notes and editors' files beside, a cell with an expression."""
    folder = run_folder(tmp_path, "group/2025-11-22", notes="anything: [", **{"01_data": "run: group/2025-11-22"})
    (folder / "05_eval.yaml").write_text("run: group/2025-11-22\nreport: 2025-11-22\n")
    (folder / ".#02_stage1.yaml").symlink_to("nowhere")
    assert complaints(folder) == []
    dates = read_parameter_file(ROOT / "notebooks/05_eval.ipynb", folder / "05_eval.yaml", {})
    assert dates["report"] == "2025-11-22"
    cell = {"source": ['# parameters\nrun = "demo"\nsteps = 2 * 450\n'], "metadata": {"tags": ["parameters"]}}
    (tmp_path / "notebooks").unlink()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/09_x.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "params/new").mkdir()
    (tmp_path / "params/new/09_x.yaml").write_text("run: new\nsteps: 3\n")
    assert complaints(tmp_path / "params/new") == []
    (tmp_path / "notebooks/09_x.ipynb").write_text(json.dumps({"cells": []}))
    assert "has no cell tagged parameters" in complaints(tmp_path / "params/new")[0]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("params/demo", ""),
        ("params/typo", "<run>; params/ has ablation, anime"),
        ("tests", "tests is no folder of parameter files, params/<run>\n"),
        ("params/demo/01_data.yaml", "but a file: give its folder, params/demo"),
    ],
)
def test_the_command_is_silent_about_what_is_right_and_says_what_is_wrong(folder, said):
    line = [sys.executable, "-m", "srlib", "check-parameters", folder]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert bool(done.returncode) == bool(said) == bool(done.stderr)
    assert said in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("notebook", "line", "said"),
    [
        ("02_stage1", "seed: -1", "seed is -1; it must be at least 0"),
        ("02_stage1", "schedule: cosin", "schedule 'cosin' is none of cosine, "),
        ("04_artifact_ft", "detector_iterations: 0", "detector_iterations is 0; it must be at least 1"),
        ("04_artifact_ft", "detector_side: 0", "detector_side is 0"),
        ("04_artifact_ft", "tile_choices: [32, 0]", "tile_choices is 0; it must be at least 1"),
        ("04_artifact_ft", "cache_gib: .nan", "cache_gib is nan; it must be at least 0"),
        ("04_artifact_ft", "teacher: hole", "teacher 'hole' is none of whole, ground_truth"),
        ("01_data", "jobs: -2", "jobs is -2; it must be at least -1"),
        ("01_data", "blur: [-1.0, 2.0]", "blur is -1.0"),
    ],
)
def test_numbers_and_words_that_cannot_be_are_refused_before_anything_runs(tmp_path, notebook, line, said):
    file = tmp_path / "params.yaml"
    file.write_text(f"run: x\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_parameter_file(ROOT / "notebooks" / f"{notebook}.ipynb", file, {})


def test_the_choices_are_those_of_the_code():
    known = {
        "schedule": SCHEDULES,
        "optimizer": OPTIMIZERS,
        "precision": PRECISIONS,
        "start": STARTS,
        "teacher": TEACHERS,
    }
    assert {name: set(words) for name, words in CHOICES.items()} == {name: set(words) for name, words in known.items()}
    names = {name for path in (ROOT / "notebooks").glob("0*.ipynb") for name in declared(path)}
    assert names >= FROM_1 | CHOICES.keys()


def declared(path: Path) -> set[str]:
    cells = json.loads(path.read_text())["cells"]
    return {
        n
        for c in cells
        if "parameters" in c["metadata"].get("tags", ())
        for n in re.findall(r"(?m)^(\w+) = ", "".join(c["source"]))
    }


def test_the_kind_of_every_lists_entries_is_known():
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if "parameters" in cell["metadata"].get("tags", ()):
                empty = set(re.findall(r"(?m)^(\w+) = \[\]", "".join(cell["source"])))
                assert empty <= ENTRIES.keys(), path.name
