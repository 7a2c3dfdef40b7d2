"""01 and 08 end to end on tiny light: both stages train, and what they make can be used."""

import json
import math
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from projects import ROOT, TINY, execute, trained_by_command
from torch.utils.data import Subset

from srlib.__main__ import main
from srlib.data.datasets import PicturePairs
from srlib.data.hdr import read_hdr, write_hdr
from srlib.experiments import ldr_to_hdr
from srlib.experiments.parameters import read_parameter_file
from srlib.networks.checkpoints import load_model
from srlib.networks.diffir import DiffIR


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose 01 has drawn exposures of HDR pictures, one of which is bad."""
    folder = tmp_path_factory.mktemp("hdr")
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "srlib"):
        (folder / name).symlink_to(ROOT / name)
    for seed in range(6):
        smooth = np.random.default_rng(seed).uniform(-3, 4, (5, 7, 3)).astype(np.float32)
        write_hdr(folder / "light" / f"{seed}.npy", np.exp2(cv2.resize(smooth, (64, 48))))
    np.save(folder / "light" / "nan.npy", np.full((48, 64, 3), np.nan, np.float32))
    given = {"pairs": True, "exposures": 2, "scales": [1], "patch_sizes": [32], "pack_dtype": "float32"}
    made = execute(folder, "01_data", run="hdr", input="light", jobs=1, **given)
    text = "".join(o.text for c in made.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "left out: nan.npy" in text
    return folder


def parameters(project, **over) -> dict:
    files = [project / f"{kind}/08_hdr.{end}" for kind, end in (("notebooks", "ipynb"), ("params/hdr", "yaml"))]
    return read_parameter_file(*files, {**TINY["08_hdr"], **over})


def test_the_notebook_runs_end_to_end(project, tmp_path, capsys):
    done = execute(project, "08_hdr", **TINY["08_hdr"], run="hdr")
    out = project / "outputs/hdr/hdr"
    made = json.loads((out / "metrics.json").read_text())
    assert made["steps"] == {"stage 1": 20, "prior": 20, "stage 2": 20}
    assert list(made["scores"]) == ["inverse mapping", "expansion curve", "stage 2", "stage 1 (oracle)"]
    assert all(len(row) == 4 and all(map(np.isfinite, row.values())) for row in made["scores"].values())
    figures = {p.stem for p in out.glob("figures/*.png")}
    assert figures == {"pairs", "stage1", "prior", "stage2", "priors", "strips", "luminance"}
    shown = "".join(o.text for c in done.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "2 test pictures, against the inverse mapping: PU21-PSNR" in shown
    ldr = next((project / "outputs/hdr/hr/test/input").glob("*.png"))
    line = ["hdr", str(out / "stage2/best.safetensors"), str(ldr), str(tmp_path / "light.exr"), "--device", "cpu"]
    assert main(line) == 0 and read_hdr(tmp_path / "light.exr").shape == (48, 64, 3)
    assert main(["hdr", str(out / "stage1/best.safetensors"), *line[2:], "--overwrite"]) == 2
    assert "first stage" in capsys.readouterr().err


def test_stages_begin_where_the_last_one_ended(project):
    first = load_model(project / "outputs/hdr/hdr/stage1/best.safetensors", DiffIR)
    alone, job = ldr_to_hdr.prior_alone(project, parameters(project)), ldr_to_hdr.second(project, parameters(project))
    assert torch.equal(alone.model.G.output.weight, first.G.output.weight)
    assert {n.split(".")[0] for n, p in alone.model.named_parameters() if p.requires_grad} == {"condition", "denoise"}
    assert all(p.requires_grad for p in job.model.parameters())
    prior = load_model(project / "outputs/hdr/hdr/prior/best.safetensors", DiffIR)
    assert torch.equal(prior.denoise.resmlp[0].weight, job.model.denoise.resmlp[0].weight)
    assert job.settings.iterations == 20 and alone.settings.learning_rate == 2e-3


def test_mistakes_are_said(project, tmp_path):
    with pytest.raises(ValueError, match="pixel_error 'l3' is neither 'squared' nor 'l1'"):
        ldr_to_hdr.first_stage(project, parameters(project, pixel_error="l3"))
    with pytest.raises(ValueError, match="model 'HAT' is none of DiffIR"):
        ldr_to_hdr.first_stage(project, parameters(project, model="HAT"))
    for wrong, said in (
        ({"prior_iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"joint_learning_rate": 0.0}, "learning_rate is 0.0"),
        (
            {"optimizer": "schedule_free", "schedule": "constant", "warmup_steps": 5, "prior_iterations": 5},
            "last the whole",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            ldr_to_hdr.first_stage(project, parameters(project, **wrong))
    with pytest.raises(FileNotFoundError, match="no run"):
        ldr_to_hdr.second(project, parameters(project, run="hdr") | {"run": "none"})
    second = project / "outputs/hdr/hdr/stage2/best.safetensors"
    with pytest.raises(ValueError, match="second stage, not the first"):
        ldr_to_hdr.first_stage(project, parameters(project, start_from=str(second)))


def test_priors_of_a_single_picture_are_scored(project):
    pairs = PicturePairs(project / "outputs/hdr/data", "validation", scale=1)
    torch.manual_seed(0)
    teacher = DiffIR(stage=1, **ldr_to_hdr.CONFIGS["DiffIR, lite"], light=True).eval()
    score = ldr_to_hdr._validate_priors(Subset(pairs, [0]), teacher)(ldr_to_hdr.second_stage(teacher).eval())
    assert math.isfinite(score["prior_db"])


def test_tensorboard_shows_rates_losses_validation_and_samples(project):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    p = parameters(project, tensorboard=True, iterations=4, validate_every=2, log_every=1)
    shutil.copytree(project / "outputs/hdr/data", project / "outputs/board/data")
    shutil.copytree(project / "outputs/hdr/hr", project / "outputs/board/hr")
    ldr_to_hdr.first_stage(project, p | {"run": "board"}).run()
    folder = project / "outputs/board/hdr/stage1"
    scalars, images = set(), set()
    for file in folder.rglob("events*"):
        events = reader.EventAccumulator(str(file)).Reload()
        scalars, images = scalars | set(events.Tags()["scalars"]), images | set(events.Tags()["images"])
    assert {"lr", "loss", "psnr_mu"} <= scalars and len(images) == 1


def test_two_processes_train_all_three_parts(project):
    shutil.copytree(project / "outputs/hdr", project / "outputs/two", ignore=lambda *_: ["hdr"])
    short = {"iterations": 4, "prior_iterations": 4, "joint_iterations": 4, "validate_every": 2}
    trained_by_command(project, "08_hdr", processes=2, run="two", **short)
    for part, score in (("stage1", "psnr_mu"), ("prior", "prior_db"), ("stage2", "psnr_mu")):
        log = pd.read_csv(project / "outputs/two/hdr" / part / "metrics.csv")
        assert log["step"].iloc[-1] == 4 and log[score].notna().sum() == 2 + (part == "stage2"), part
        model = load_model(project / "outputs/two/hdr" / part / "best.safetensors", DiffIR)
        assert all(value.isfinite().all() for value in model.state_dict().values())
