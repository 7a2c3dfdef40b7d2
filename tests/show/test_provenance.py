"""A report says what it was made with, and claims no commit that is not its own."""

import subprocess

import pytest
import torch

from srlib.show.provenance import made_with


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "code.py").write_text("1\n")
    for line in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *line.split()], cwd=tmp_path, check=True)
    return tmp_path


def commit_of(folder) -> str:
    (line,) = [line for line in made_with(folder).splitlines() if line.startswith("- Commit: ")]
    return line.removeprefix("- Commit: ")


def test_the_commit_and_what_differs_from_it(checkout):
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True).stdout
    assert commit_of(checkout) == commit[:12]
    (checkout / "made.png").touch()  # results are not code
    assert commit_of(checkout) == commit[:12]
    (checkout / "code.py").write_text("2\n")
    assert commit_of(checkout) == f"{commit[:12]}, with changes in 1 file"
    assert commit_of(checkout / "inner").startswith("not known")


def test_without_git_or_commit_it_is_not_known(tmp_path, monkeypatch):
    assert commit_of(tmp_path).startswith("not known")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert commit_of(tmp_path).startswith("not known")
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path).startswith("not known")


def test_machine_and_versions_are_named(tmp_path):
    made = made_with(tmp_path)
    assert f"torch {torch.__version__.partition('+')[0]}" in made and "Python 3." in made and " core" in made
    assert ("no GPU" in made) == (not torch.cuda.is_available() and not torch.backends.mps.is_available())
