"""The network inside the package."""

import numpy as np
import pytest
import torch
from skimage import data

from srlib import __main__ as command
from srlib.data.pictures import read_picture, to_float, write_png
from srlib.data.resize import downscale, upscale
from srlib.evaluation.metrics import psnr_y
from srlib.networks.checkpoints import load
from srlib.networks.named_weights import SMALL, weights_path
from srlib.tiling.seams import consistency


@torch.inference_mode()
def test_it_beats_bicubic_on_pictures_it_was_not_trained_on_and_its_eraser_erases():
    model, sure = load("small").eval(), []
    assert SMALL.stat().st_size < 1.5e6 and model.scale == 2
    for picture in (data.coffee()[100:300, 150:400], data.rocket()[200:400, 250:450]):  # of the test set
        hr = to_float(picture)[None]
        lr = downscale(hr, 2, "bicubic").clamp(0, 1)
        whole = model.whole(lr)
        assert psnr_y(whole.clamp(0, 1), hr, 2) > psnr_y(upscale(lr, 2, "bicubic").clamp(0, 1), hr, 2) + 0.2
        tiled = [m.tiled(lr, tile=32, halo=0)[0] for m in (type(model)(model.hat_model).eval(), model)]
        sure.append([consistency(picture, whole) for picture in tiled])
    assert np.diff(sure, axis=1).min() > 0 and np.diff(sure, axis=1).mean() > 2  # dB


def test_the_command_takes_it_when_no_model_is_named(tmp_path, capsys):
    write_png(tmp_path / "a.png", data.coffee()[:40, :50])
    assert command.main(["upscale", str(tmp_path / "a.png"), "--tile", "32", str(tmp_path / "b.png")]) == 0
    assert read_picture(tmp_path / "b.png").rgb.shape == (80, 100, 3)
    assert command.main(["upscale", str(SMALL), str(tmp_path / "a.png"), str(tmp_path / "c.png"), "--tile", "32"]) == 0
    assert np.array_equal(read_picture(tmp_path / "b.png").rgb, read_picture(tmp_path / "c.png").rgb)


def test_a_file_of_that_name_wins(tmp_path, monkeypatch):
    assert weights_path("small") == SMALL
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").write_bytes(b"mine")
    assert str(weights_path("small")) == "small"


def test_an_output_that_was_forgotten_costs_no_picture(tmp_path, capsys):
    """srlib upscale MODEL PICTURE: the model is no picture."""
    write_png(tmp_path / "a.png", data.coffee()[:40, :50])
    known = (tmp_path / "a.png").read_bytes()
    assert command.main(["upscale", str(SMALL), str(tmp_path / "a.png"), "--overwrite"]) in (1, 2)
    assert (tmp_path / "a.png").read_bytes() == known and "small.safetensors" in "".join(capsys.readouterr())
    with pytest.raises(SystemExit):
        command.main(["upscale", str(tmp_path / "a.png")])
