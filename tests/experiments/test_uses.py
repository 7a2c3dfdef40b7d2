"""A notebook is run again for the code it uses, and for nothing else."""

import json
import shutil

import pytest
from projects import NAMES, ROOT

from srlib.experiments import uses
from srlib.experiments.uses import code_of, note, used_by


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of srlib to change."""
    copy = shutil.copytree(ROOT / "srlib", tmp_path / "srlib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(uses, "PACKAGE", copy)
    return copy


def codes() -> dict[str, str]:
    uses._code.cache_clear()
    uses._imported_by.cache_clear()
    return {name: code_of(ROOT / f"notebooks/{name}.ipynb") for name in NAMES}


def changed(path, old: str, new: str) -> set[str]:
    """The notebooks to be run again when the text of a file is changed so."""
    before, text = codes(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = codes()
    path.write_text(text)
    return {name for name in NAMES if before[name] != after[name]}


def test_a_docstring_a_comment_and_layout_are_no_code(package):
    figures = package / "show/picture_figures.py"
    assert not changed(figures, '"""Pictures', '"""All pictures')
    assert not changed(figures, '    """(C, H, W) in [0, 1] -> (H, W, 3) uint8."""', '    """Another text."""')
    assert not changed(figures, "import torch\n", "import torch  # for its tensors\n\n")
    assert not changed(package / "training/__init__.py", '"""Training', '"""The training')


def test_code_concerns_the_notebooks_that_use_it(package):
    assert changed(package / "show/style.py", "110.0", "90.0") == set(NAMES)
    viewing = {"03_tiling", "04_artifact_ft", "05_eval"}
    assert changed(package / "show/seam_viewer.py", "_GAIN = 16", "_GAIN = 8") == viewing
    assert changed(package / "show/seam_viewer.js", "WIDTH = 640", "WIDTH = 800") == viewing  # which pages hold
    later = set(NAMES) - {"01_data"}
    assert changed(package / "networks/hat.py", "num_feat: int = 64", "num_feat: int = 65") == later
    trained = {"02_stage1", "03_tiling", "04_artifact_ft"}
    assert changed(package / "training/settings.py", "clip: float = 1.0", "clip: float = 2.0") == trained
    assert not changed(package / "show/headlines.py", "nothing yet", "nothing")  # of the start page only


def test_imports_inside_functions_count(package):
    (package / "data/new.py").write_text("VALUE = 1\n")
    text = (package / "data/pairs.py").read_text()
    (package / "data/pairs.py").write_text(f"{text}\n\ndef late():\n    from srlib.data.new import VALUE\n")
    codes()
    assert package / "data/new.py" in used_by(ROOT / "notebooks/01_data.ipynb")


def test_public_names_magics_and_wrong_imports(package, tmp_path):
    codes()

    def used(*cells: str) -> set[str]:
        content = [{"cell_type": "code", "source": [cell]} for cell in cells]
        (tmp_path / "own.ipynb").write_text(json.dumps({"cells": content}))
        return {path.relative_to(package).as_posix() for path in used_by(tmp_path / "own.ipynb")}

    assert {"networks/hat.py", "training/run.py"} <= used("import srlib\nsrlib.load('x')")
    assert "networks/hat.py" in used("from srlib import HAT")
    assert used("%matplotlib inline\nif True:\n    !ls\nfrom srlib.files import atomic") == {"files.py"}
    assert used("%%bash\nls -l | wc", "from srlib.gone import thing") == set()


def test_a_mark_is_rewritten_only_when_the_code_has_changed(package, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    codes()
    note(tmp_path, ROOT / "params/demo")
    marks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".code").iterdir()}
    assert set(NAMES) < marks.keys()
    plan = package / "tiling/seams.py"
    plan.write_text(plan.read_text().replace("crop: int = 96", "crop: int = 64"))
    codes()
    note(tmp_path, ROOT / "params/demo")
    rewritten = {path.name for path in (tmp_path / ".code").iterdir() if path.stat().st_mtime_ns != marks[path.name]}
    assert rewritten == {name for name in marks if not name.endswith(".input")} - {"00_start_here"}


def test_a_notebook_refuses_a_misspelt_parameter_before_anything_heavy_is_imported():
    light = {"experiments/parameters.py"}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert "".join(cells[0]["source"]).startswith("# parameters\n")
        second = "".join(cells[1]["source"])
        assert "read_parameters(In, globals())" in second
        assert {uses.file_of(module) for module in uses.imported(second)} == {uses.PACKAGE / name for name in light}
        assert second.count("import") == 1
