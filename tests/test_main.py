"""The command srlib: quick to answer, and what it repeats of the rooms' constants is true."""

import io
import os
import subprocess
import sys

import pytest

from srlib import __main__ as command
from srlib.commands import upscaling
from srlib.data.pictures import SUFFIXES
from srlib.data.resize import METHODS
from srlib.tiling.tiled import STATISTICS

COMMANDS = ("upscale", "reach", "data", "train", "export", "view", "report", "gallery", "new", "check-parameters")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom srlib.__main__ import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'pandas', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: srlib {name}" in done.stdout and done.stdout.endswith("[]\n")


def test_the_choices_are_the_rooms_own():
    assert set(upscaling.STATISTICS) == set(STATISTICS)
    assert set(command.METHODS) == set(METHODS)
    assert {f".{name}" for name in upscaling.FORMATS} == set(SUFFIXES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["upscale", "none.safetensors", "a.png", "b.png"], "srlib upscale: no checkpoint at none.safetensors"),
        (["reach", "none.safetensors"], "srlib reach: no checkpoint at none.safetensors"),
        (["data", "--input", "nowhere", "--output", "out"], "srlib data: no folder"),
        (["export", "none.safetensors", "a.onnx"], "srlib export: no checkpoint at none.safetensors"),
        (["view", "none.safetensors", "none.png"], "srlib view: {here}/none.png does not exist"),
        (["report", "none.ipynb"], "srlib report: {here}/none.ipynb does not exist"),
        (["gallery", "none.ipynb"], "srlib gallery: {here}/none.ipynb does not exist"),
        (["check-parameters", "nowhere"], "srlib check-parameters: nowhere is no folder of parameter files"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_status_2(line, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith(said.format(here=tmp_path)) and error.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS[:-1])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_cannot_be_printed_is_escaped(name, encoding, monkeypatch):
    """Also where the name is that of the file which the command is given."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding, write_through=True))
    odd = os.fsdecode(b"none\xe9\x1b[31m")
    line = {"data": ["--input", odd, "--output", "out"], "upscale": [odd, "a.png", "b.png"], "export": [odd, "a.onnx"]}
    line |= {"view": ["model.safetensors", odd], "new": ["mine", "demo", odd]}
    assert command.main([name, *line.get(name, [odd])]) == 2
    assert b"none\\xe9\\x1b[31m" in written.getvalue() and b"\x1b" not in written.getvalue()


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def broken(**_: object) -> int:
        raise AssertionError("an invariant")

    monkeypatch.setattr(command, "_check", broken)
    with pytest.raises(AssertionError, match="an invariant"):
        command.main(["check-parameters", "params/demo"])


@pytest.mark.parametrize("options", [["export"], ["export", "--tile", "16"], ["report"], ["view", "--page"]])
def test_no_command_writes_its_kind_of_file_over_another(options, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"mine")
        (tmp_path / f"{name}.ipynb").write_text("mine")
    name, *rest = options
    kind = "ipynb" if name == "report" else "safetensors"
    given = [str(tmp_path / f"{stem}.{kind}") for stem in ("a", "b")]
    line = [name, given[0], given[0], *rest, given[1]] if name == "view" else [name, *given, *rest]
    assert command.main(line) == 2 and f"b.{kind} would be written as ." in capsys.readouterr().err
    assert (tmp_path / f"b.{kind}").read_bytes() == b"mine"
