"""Pairs of one size: HAT x1, a restoration, through data, the three stages, the evaluation and a file."""

import json

import numpy as np
import pytest
import torch
from projects import ROOT, TINY

from srlib.data.datasets import PicturePairs
from srlib.data.description import write_description
from srlib.data.drawings import draw
from srlib.data.packs import PackSettings
from srlib.data.pairs import METHOD, prepare_pairs
from srlib.data.pictures import Picture, write_png
from srlib.evaluation.evaluate import evaluate, tilings_of
from srlib.experiments.parameters import read_parameter_file
from srlib.experiments.stages import eraser, material, stage1, tiling
from srlib.inference.upscale import upscale
from srlib.losses.detector import ArtifactDetector
from srlib.networks.checkpoints import load, save_model
from srlib.networks.hat import CONFIGS, HAT


@pytest.fixture
def parameters(tmp_path):
    """Of 02, 03 and 04, for a tiny run on noisy pictures and clean ones."""
    for seed in range(4):
        clean = draw(seed, 96, 112)
        noise = np.random.default_rng(seed).normal(0, 12, clean.shape)
        write_png(tmp_path / f"pairs/train/gt/{seed}.png", clean)
        write_png(tmp_path / f"pairs/train/input/{seed}.png", (clean + noise).clip(0, 255).astype(np.uint8))
    data = tmp_path / "outputs/r/data"
    packs = [PackSettings(32)]
    _, split = prepare_pairs(tmp_path / "pairs", data, scale=1, validation=0.25, packs=packs, progress=False)
    write_description(data, hr_root=tmp_path / "pairs", split=split, scales=[1], methods=[METHOD])
    found = {}
    for name, own in {"02_stage1": {"scale": 1}, "03_tiling": {}, "04_artifact_ft": {}}.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps({**TINY[name], "run": "r", **own}))
        found[name] = read_parameter_file(ROOT / f"notebooks/{name}.ipynb", tmp_path / f"{name}.yaml", {})
    return found


def test_the_stages_train_on_pairs_of_one_size(parameters, tmp_path):
    first = stage1(tmp_path, parameters["02_stage1"])
    assert first.model.scale == 1
    x = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        inside = (first.model(x) - x)[..., 8:-8, 8:-8]
    assert inside.abs().max() < 1e-5  # untrained, it gives the picture itself
    assert first.run()["psnr_y"].iloc[-1] > 0
    assert tiling(tmp_path, parameters["03_tiling"]).run()["psnr_y"].iloc[-1] > 0
    seams = material(tmp_path, parameters["04_artifact_ft"])["train"].seams
    assert seams[0].whole.shape == (3, 96, 112)
    eraser(tmp_path, parameters["04_artifact_ft"], ArtifactDetector()).run()

    model = load(tmp_path / "outputs/r/artifact_ft/best.safetensors")
    pairs = PicturePairs(tmp_path / "outputs/r/data", "validation", scale=1)
    table, pictures, _ = evaluate({"a": model}, pairs, tilings_of([(16, 8)]))
    name = pairs[0]["name"]
    assert torch.equal(pictures[name, "input", "whole"], pairs[0]["lr"])  # the baseline: the input as it is
    assert table["PSNR-Y"].between(15, 60).all()
    noisy = (pairs[0]["lr"].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    restored, _ = upscale(model, Picture(noisy))
    assert restored.rgb.shape == noisy.shape


def test_a_start_of_another_scale_gives_all_but_its_upsampler(parameters, tmp_path, capsys):
    hat = HAT(**CONFIGS["demo"], upscale=2)
    save_model(tmp_path / "x2.safetensors", hat)
    started = stage1(tmp_path, {**parameters["02_stage1"], "start_from": "x2.safetensors"}).model.hat_model
    assert "x2.safetensors upscales x2, this run x1: all but its upsampler is taken" in capsys.readouterr().out
    assert started.scale == 1 and torch.equal(started.conv_last.weight, hat.conv_last.weight)
