"""The viewer on models and pictures of one's own: what the notebook and `srlib view` make of them."""

import json
import subprocess

import nbformat
import numpy as np
import pytest
import torch
from projects import ROOT
from small_networks import strong

from srlib import __main__ as command
from srlib.data.pictures import write_png
from srlib.networks.checkpoints import save_model
from srlib.networks.diffir import DiffIR
from srlib.networks.eraser import TiledSR
from srlib.networks.restormer import CONFIGS, Restormer
from srlib.show import view
from srlib.show.view import viewer_of

SMALL = {"depths": (1,), "num_heads": (1,), "embed_dim": 8}


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder outside of any project with a model of window 12 and a picture."""
    model = TiledSR(strong(**SMALL, window_size=12), channels=8)
    save_model(tmp_path / "mine.safetensors", model)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    write_png(tmp_path / "a.png", pixels)
    write_png(tmp_path / "b.png", pixels[::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_models_and_pictures(there):
    viewer = viewer_of(["x=mine.safetensors", str(there / "mine.safetensors")], ["a.png", "b.png"], crop=48)
    assert list(viewer.results.models) == ["x", f"{there.name}/mine"] and viewer.choices["pictures"] == {
        "a.png": False,
        "b.png": False,
    }
    assert viewer.picture == "a.png" and viewer.result("a").picture.shape == (3, 96, 96)
    choices = viewer.choices["models"]["x"]
    assert choices["tile"] == [24, 36, 72, 132] and choices["halo"] == [0, 12, 24, 36]
    with pytest.raises(ValueError, match="two of .* are called 'x': write name=path"):
        viewer_of(["x=mine.safetensors", "x=mine.safetensors"], ["a.png"])
    with pytest.raises(IsADirectoryError, match=r"is a folder: give a file, .*/ has "):
        viewer_of(["mine.safetensors"], [there])
    with pytest.raises(FileNotFoundError, match=r"c.png does not exist"):
        viewer_of(["mine.safetensors"], ["c.png"])


def test_pictures_of_one_name_are_told_apart(there):
    for folder in ("x/one", "y/one", "z"):
        (there / folder).mkdir(parents=True)
        (there / folder / "a.png").write_bytes((there / "a.png").read_bytes())
    pictures = ["x/one/a.png", "y/one/a.png", "b.png", "b.png"]
    viewer = viewer_of(["mine.safetensors"], pictures, crop=24)
    assert list(viewer.results.pictures)[:2] == ["x/one/a.png", "y/one/a.png"] and len(viewer.results.pictures) == 3
    assert list(viewer_of(["mine.safetensors"], ["x/one/a.png", "z/a.png"], crop=24).results.pictures) == [
        "one/a.png",
        "z/a.png",
    ]


@pytest.mark.parametrize("crop", [0, -5])
def test_a_crop_without_pixels_is_refused(there, crop):
    with pytest.raises(ValueError, match=f"crop is {crop}; it must be at least 1"):
        viewer_of(["mine.safetensors"], ["a.png"], crop=crop)


def test_ground_truth_is_downscaled_first(there):
    viewer = viewer_of(["mine.safetensors"], ["a.png"], crop=24, truth=True)
    lr, hr = viewer.results.pictures["a.png"]
    assert lr.shape == (3, 24, 24) and hr.shape == (3, 48, 48) and "PSNR-Y" in viewer.result("a").figures


def test_ground_truth_without_a_pixel_left_is_refused(there):
    write_png(there / "dot.png", np.zeros((1, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="dot.png is smaller than one LR pixel, 2x2"):
        viewer_of(["mine.safetensors"], ["dot.png"], truth=True)


def test_a_grey_model(there):
    save_model(there / "grey.safetensors", TiledSR(strong(**SMALL, window_size=8, in_chans=1), channels=8))
    viewer = viewer_of(["grey.safetensors"], ["a.png"], crop=24)
    mean = viewer_of(["mine.safetensors"], ["a.png"], crop=24).results.pictures["a.png"][0].mean(0, keepdim=True)
    assert viewer.result("a").picture.shape == (1, 48, 48) and torch.equal(viewer.results.pictures["a.png"][0], mean)


def test_without_models_the_run_must_be_there(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="a new run begins with notebooks/01_data.ipynb"):
        viewer_of([], [])


def test_the_command_writes_a_page(there, capsys):
    assert command.main(["view", "mine.safetensors", "a.png", "--crop", "40", "--page", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n" and '"still": true' in (there / "page.html").read_text()
    assert command.main(["view", "mine.safetensors", "mine.safetensors", "--page", "page.html"]) == 2
    assert "is not a picture" in capsys.readouterr().err


LITTLE = {"dim": 8, "blocks": [1, 1], "heads": [1, 2], "refinement": 1}
OTHERS = {  # and the ways of taking statistics that each has
    "HAT at one size": (lambda: strong(**SMALL, window_size=8, upscale=1), ["local", "two_pass", "exact"]),
    "Restormer": (lambda: Restormer(**LITTLE), ["local", "exact"]),
    "two answers": (lambda: Restormer(**CONFIGS["Phaseformer, lite"] | LITTLE), ["local", "exact"]),
    "DiffIR": (lambda: DiffIR(**LITTLE, prior=16, encoder_blocks=1), ["local", "exact"]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_networks_of_other_kinds_have_their_page(kind, there):
    build, ways = OTHERS[kind]
    save_model(there / "other.safetensors", build())
    assert command.main(["view", "other.safetensors", "a.png", "--crop", "24", "--page", "p.html"]) == 0
    viewer = viewer_of(["x=other.safetensors"], ["a.png"], crop=24)
    assert viewer.choices["models"]["x"]["statistics"] == ways
    assert viewer.choices["models"]["x"]["shows"] == ["tiled", "whole", "input", "HR"]
    viewer.show(b={"shows": "input"})
    name = viewer.picture
    assert torch.equal(viewer.result("b").picture, viewer.results.pictures[name][0])


def test_the_command_opens_the_notebook_with_both(there, capsys, monkeypatch):
    (there / "params").mkdir()
    (there / "notebooks").symlink_to(ROOT / "notebooks")
    lines = []
    monkeypatch.setattr(view.subprocess, "run", lambda line, check: lines.append(line))
    given = ["view", "mine.safetensors", "a.png", "b.png", "--crop", "32", "--lab", "--no-browser --port 9"]
    assert command.main(given) == 0
    copy = there / "outputs/viewer/viewer.ipynb"
    assert lines[0][1:] == ["-m", "jupyterlab", f"--notebook-dir={there}", "--no-browser", "--port", "9", str(copy)]
    (injected,) = [c for c in nbformat.read(copy, 4).cells if "injected-parameters" in c.metadata.get("tags", ())]
    found: dict = {}
    exec(injected.source, found)
    assert found["models"] == [str(there / "mine.safetensors")] and found["crop"] == 32 and found["truth"] is False
    assert found["pictures"] == [str(there / "a.png"), str(there / "b.png")]
    assert json.loads((ROOT / "notebooks/viewer.ipynb").read_text())["metadata"].keys() == {"kernelspec"}
    capsys.readouterr()

    def failed(line: list, check: bool) -> None:
        raise subprocess.CalledProcessError(1, line)

    monkeypatch.setattr(view.subprocess, "run", failed)
    assert command.main(given) == 2 and "JupyterLab ended with status 1" in capsys.readouterr().err
