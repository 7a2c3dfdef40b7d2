import shutil

import pytest
import yaml
from projects import ROOT

from srlib.experiments.new_run import new_run


@pytest.fixture
def root(tmp_path):
    shutil.copytree(ROOT / "params/vram12", tmp_path / "params/vram12")
    (tmp_path / "my pictures: #1").mkdir()
    return tmp_path


def test_a_run_of_one_s_own_differs_by_its_name_and_pictures(root):
    files = new_run(root, "mine", "vram12", "my pictures: #1")
    assert [f.name for f in files] == sorted(f.name for f in (root / "params/vram12").iterdir())
    for file in files:
        new, old = (yaml.safe_load((root / "params" / run / file.name).read_text()) for run in ("mine", "vram12"))
        changed = {"run": "mine"} | ({"input": "my pictures: #1"} if file.stem == "01_data" else {})
        assert new == {**old, **changed}
    comment = next(line for line in (root / "params/vram12/03_tiling.yaml").read_text().splitlines() if "#" in line)
    assert comment in (root / "params/mine/03_tiling.yaml").read_text()


def test_the_embedded_pictures_are_a_choice_as_in_01(root):
    new_run(root, "mine", "vram12", "embedded")
    assert yaml.safe_load((root / "params/mine/01_data.yaml").read_text())["input"] == "embedded"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("", "vram12", "my pictures: #1"), "a run's name"),
        (("../mine", "vram12", "my pictures: #1"), "a run's name"),
        (("mine", "nothing", "my pictures: #1"), "FROM=nothing is no run.*vram12"),
        (("mine", "..", "my pictures: #1"), "is no run"),
        (("vram12", "vram12", "my pictures: #1"), "is there already"),
        (("mine", "vram12", "nowhere"), "INPUT=nowhere is no folder"),
        (("mine", "vram12", ""), "is no folder"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(root, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        new_run(root, *arguments)
    assert [p.name for p in (root / "params").iterdir()] == ["vram12"]
