"""make runs a notebook again when pictures or files that its parameters name have changed, however they are written."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from projects import NAMES, TINY, begin

from srlib.data import hdr, pictures
from srlib.data.drawings import draw
from srlib.data.pictures import write_png
from srlib.experiments.inputs import SUFFIXES, state_of_inputs
from srlib.experiments.parameters import read_parameter_file


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose run "mine" has been executed, as far as make can see."""
    folder = begin(tmp_path_factory.mktemp("inputs"))
    (folder / "home").mkdir()
    for name in ("pictures", "my own pictures", "home/pictures"):
        for number in range(2):
            write_png(folder / name / "sub" / f"{number}.png", draw(number, 40, 40))
    return folder


def make(folder, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HOME": str(folder / "home")}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def again(folder, run: str = "mine") -> list[str]:
    """The notebooks that make would run, as its dry run says; they then count as executed."""
    done = make(folder, "-n", f"RUN={run}")
    assert done.returncode == 0, done.stderr
    for name in (*(f"{name}.ipynb" for name in NAMES), "eval/report.html"):
        (folder / "outputs" / run / name).parent.mkdir(exist_ok=True)
        (folder / "outputs" / run / name).touch()
    return re.findall(r'echo "== (\w+)', done.stdout)


def write_parameters(folder, text: str, run: str = "mine") -> None:
    (folder / "params" / run).mkdir(exist_ok=True)
    for name in NAMES:
        values = {key: value for key, value in TINY[name].items() if key != "input"}
        (folder / f"params/{run}/{name}.yaml").write_text(yaml.safe_dump({**values, "run": run}))
    with (folder / f"params/{run}/01_data.yaml").open("a") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("input: pictures\n", "pictures"),
        ("input:   pictures   # of last summer\n", "pictures"),
        ("input: 'my own pictures'\n", "my own pictures"),
        ('"input" : "my own pictures/"  # quoted\n', "my own pictures"),
        ("input: my own pictures\n", "my own pictures"),
        ("input:\n  my own\n  pictures\n", "my own pictures"),
        ("input: >-\n  my own pictures\n", "my own pictures"),
        ("input: &folder my own pictures\n", "my own pictures"),
        ("input: ~/pictures\n", "home/pictures"),
        ('input: "~/pictures"\n', "home/pictures"),
        ("input: ./home/../pictures\n", "pictures"),
        ("input: {absolute}/pictures\n", "pictures"),
    ],
)
def test_the_folder_is_found_however_it_is_written(project, monkeypatch, text, where):
    monkeypatch.setenv("HOME", str(project / "home"))
    write_parameters(project, text.replace("{absolute}", str(project)))

    def state() -> str:
        p = read_parameter_file(project / "notebooks/01_data.ipynb", project / "params/mine/01_data.yaml", {})
        return state_of_inputs(p, project)

    before, new = state(), project / where / "sub/new.png"
    new.write_bytes(b"picture")
    assert state() != before
    new.unlink()
    assert state() == before


def test_a_picture_added_changed_renamed_or_removed_is_noticed(project):
    write_parameters(project, "input: 'my own pictures'  # of last summer\n")
    again(project)
    assert again(project) == []
    folder = project / "my own pictures/sub/deeper still"
    write_png(folder / "new.png", draw(5, 40, 40))
    assert again(project) == NAMES
    write_png(folder / "new.png", draw(6, 40, 48))
    assert again(project) == NAMES
    (folder / "new.png").rename(folder / "renamed.png")
    assert again(project) == NAMES
    (folder / "renamed.png").unlink()
    assert again(project) == NAMES
    write_png(folder / ".ipynb_checkpoints/1-checkpoint.png", draw(7, 40, 40))
    (folder / "notes.md").write_text("no picture")
    assert again(project) == []


def test_parameters_that_cannot_be_read_stop_make_with_their_complaint(project):
    write_parameters(project, "input: pictures\n")
    again(project)
    write_parameters(project, "input: 'pictures\n")
    done = make(project, "RUN=mine", "all")
    assert done.returncode != 0 and "01_data.yaml" in done.stderr and "Traceback" not in done.stderr
    write_parameters(project, "input: nowhere\n")
    assert again(project) == NAMES  # the notebook says that there is no such folder
    done = make(project, "-n", "RUN=nothing")
    assert done.returncode != 0 and "no parameters for RUN=nothing: params/ has" in done.stderr


def test_only_the_notebook_that_reads_it_and_those_after_it_are_run_again(project):
    write_parameters(project, "input: pictures\n")
    path = project / "params/mine/05_eval.yaml"
    path.write_text(path.read_text() + "input: my own pictures\n")
    again(project)
    write_png(project / "my own pictures/another.png", draw(8, 40, 40))
    assert again(project) == ["05_eval"]


def test_files_of_every_kind_that_parameters_name_count(tmp_path):
    (tmp_path / "params/tiny").mkdir(parents=True)
    (tmp_path / "outputs/other/data").mkdir(parents=True)
    for file, p in (
        ("hat=1.pth", {"start_from": "hat=1.pth"}),
        ("hat=1.pth", {"checkpoints": ["mine=hat=1.pth", "gone.pth"]}),
        ("vgg.pth", {"vgg19_weights": "vgg.pth", "anime_weights": ""}),
        ("alex.pth", {"lpips_weights": "alex.pth", "model": "demo"}),
        ("theirs.pth", {"model": "theirs.pth"}),
        ("outputs/other/data/data.json", {"also": ["other"], "input": "embedded"}),
        ("params/tiny/02_stage1.yaml", {"recipe": "tiny"}),
    ):
        missing = state_of_inputs(p, tmp_path)
        (tmp_path / file).write_text("a")
        there = state_of_inputs(p, tmp_path)
        (tmp_path / file).write_text("another")
        assert len({missing, there, state_of_inputs(p, tmp_path)}) == 3, p
        (tmp_path / file).unlink()
        assert state_of_inputs(p, tmp_path) == missing
    assert state_of_inputs({"input": "embedded"}, tmp_path) == state_of_inputs({"input": ""}, tmp_path)


def test_all_files_that_pictures_are_read_from_are_listed():
    assert set(SUFFIXES) == {*pictures.SUFFIXES, *hdr.SUFFIXES, ".txt"}


def test_what_make_asks_at_every_start_imports_nothing_heavy():
    code = "import sys, srlib.experiments.uses\nassert not {'torch', 'numpy', 'pandas', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_are_no_text_count_too(tmp_path):
    states = set()
    for name in (b"a.png", b"\xff.png", b"\xfe.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
        states.add(state_of_inputs({"input": str(tmp_path)}, tmp_path))
    assert len(states) == 3
