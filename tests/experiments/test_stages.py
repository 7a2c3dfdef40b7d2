"""The command trains what the notebook trains; wrong parameters end in one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from projects import TINY, execute
from trainings import same
from warm import warm

from srlib.__main__ import main
from srlib.experiments import stages
from srlib.experiments.parameters import read_parameter_file
from srlib.experiments.stages import artifact_ft, eraser, material
from srlib.losses.detector import ArtifactDetector
from srlib.networks.checkpoints import load
from srlib.training.states import newest_state


def command(folder: Path, name: str, *over: str, **parameters) -> subprocess.CompletedProcess:
    file = folder / "params/cli" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**TINY[name], "run": "cli", **parameters}))
    line = [warm() / "bin/srlib", "train", file, *over]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(folder):
    """Three stages by the command, in outputs/cli, on the data of outputs/demo."""
    shutil.copytree(folder / "outputs/demo/data", folder / "outputs/cli/data")
    for name in ("02_stage1", "03_tiling", "04_artifact_ft"):
        done = command(folder, name)
        assert done.returncode == 0, done.stderr
    return folder / "outputs/cli"


def test_the_command_trains_what_the_notebooks_train(trained, folder):
    for part in ("stage1", "tiling", "artifact_ft/detector", "artifact_ft"):
        one, other = (newest_state(folder / "outputs" / run / part)["parts"]["model"] for run in ("demo", "cli"))
        assert same(one, other), part


def test_the_validation_curves_of_stages_1_and_2_begin_at_step_0(trained):
    for part in ("stage1", "tiling"):
        log = pd.read_csv(trained / part / "metrics.csv")
        assert log["step"][0] == 0 and log["psnr_y"][0] > 0 and pd.isna(log["loss"][0]), part


def test_the_notebook_takes_what_the_command_has_trained(trained, folder):
    before = load(trained / "artifact_ft/best.safetensors").state_dict()
    done = execute(folder, "04_artifact_ft", **TINY["04_artifact_ft"], run="cli")
    said = "".join(o.get("text", "") for c in done.cells if c.cell_type == "code" for o in c.outputs)
    assert said.count("is finished: nothing to train") == 2, said  # the detector, the eraser
    assert same(before, load(trained / "artifact_ft/best.safetensors").state_dict())


@pytest.fixture
def of_04(trained, folder):
    """All parameters of 04 in outputs/cli."""
    return read_parameter_file(folder / "notebooks/04_artifact_ft.ipynb", folder / "params/cli/04_artifact_ft.yaml", {})


def test_the_detector_s_material_is_bounded_and_keeps_lr_on_hr(trained, folder, of_04):
    whole = material(folder, of_04)["train"].clean
    few = material(folder, of_04 | {"detector_pictures": 1, "detector_side": 81})
    assert len(whole) == 2 and {len(part.clean) for part in few.values()} == {1}
    (cut,), (seams,) = few["train"].clean, few["train"].seams
    assert cut.shape == seams.whole.shape == (3, 80, 80)
    assert any(torch.equal(cut, hr[:, 8:88, 16:96]) for hr in whole)  # the middle of 96 rows, 112 columns
    alike = [torch.corrcoef(torch.stack([seams.whole, cut.roll(by, 2)]).flatten(1))[0, 1] for by in (-8, 0, 8)]
    assert max(alike) == alike[1]  # the same place


def test_pictures_too_small_for_the_detector_are_left_out_and_none_left_is_said(trained, folder, of_04, capsys):
    with pytest.raises(ValueError, match="no train picture is as large as detector_patch, 104 pixels"):
        material(folder, of_04 | {"detector_patch": 104})
    assert "2 train pictures, smaller than detector_patch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lack", "complaint"),
    [
        ({"perceptual": 0.5, "vgg19_weights": "none.pth"}, "none.pth"),
        ({"tile_size": 12}, "multiple of the window"),
        ({"crop_side": 16, "lr_patch": 16}, "lower lr_patch or the tiles, or raise crop_side"),
        ({"tiling_error": 0.0}, "there is nothing to learn from"),
        ({"learnable": "plain"}, "learnable weights share out the weight pixel, which is 0"),
        ({"teacher": "hr"}, "teacher 'hr' is none of whole, ground_truth"),
        ({"adversarial": 0.1, "lr_patch": 24}, "adversarial needs patches of 64 pixels, the smallest have 48"),
    ],
)
def test_what_stage_3_lacks_is_said_before_the_detector_is_trained(trained, folder, of_04, lack, complaint):
    before = newest_state(trained / "artifact_ft/detector")["facts"]
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        artifact_ft(folder, of_04 | {"detector_iterations": 4} | lack)
    assert newest_state(trained / "artifact_ft/detector")["facts"] == before


def test_patches_of_several_sizes_reach_stage_3(trained, folder, of_04, tmp_path):
    phases = {"progressive_iterations": [1, 1], "progressive_batches": [2, 1], "progressive_patches": [24, 32]}
    job = eraser(folder, of_04 | phases, ArtifactDetector())
    job.folder = tmp_path
    job.run()
    assert newest_state(tmp_path)["drawn"] == 3


def test_only_the_patches_that_are_drawn_must_suit_the_terms(tmp_path):
    weights = dict.fromkeys(("pixel", "frequency", "gradient", "perceptual"), 0.0) | {
        "adversarial": 0.1,
        "ms_ssim": 0.1,
    }
    p = {**weights, "lr_patch": 24, "progressive_patches": [64, 96], "learnable": "none", "seed": 0}
    assert stages._total(tmp_path, p, 2)[1] is not None
    with pytest.raises(ValueError, match="the smallest have 48: raise lr_patch or progressive_patches"):
        stages._total(tmp_path, p | {"lr_patch": 96, "progressive_patches": [24, 96]}, 2)
    with pytest.raises(ValueError, match="ms_ssim needs patches of 11 pixels, the smallest have 8"):
        stages._total(tmp_path, p | {"adversarial": 0.0, "progressive_patches": [4]}, 2)


@pytest.mark.parametrize(
    ("name", "wrong", "complaint"),
    [
        ("02_stage1", {"iteratons": 3}, "unknown parameter 'iteratons': did you mean 'iterations'?"),
        ("02_stage1", {"learning_rate": "1e-4"}, "write 3.0e-4"),
        ("02_stage1", {"optimizer": "sgd"}, "optimizer 'sgd' is none of"),
        ("02_stage1", {"run": "nothing"}, "no run 'nothing' in outputs/, which has cli, demo"),
        ("03_tiling", {"run": "dmo"}, "no run 'dmo' in outputs/, which has cli, demo; did you mean 'demo'?"),
        ("04_artifact_ft", {"run": "dmo"}, "no run 'dmo' in outputs/"),
        ("02_stage1", {"start_from": "outputs/demo/stage1/bst.safetensors"}, "did you mean 'best.safetensors'?"),
        ("02_stage1", {"scale": 1}, "no patches at scale 1 in"),
        ("02_stage1", {"model": "vram9"}, "model 'vram9' is none of HAT-S"),
        ("02_stage1", {"lr_patch": 400}, "the largest packed are 64"),
        ("03_tiling", {"tile_size": 20}, "tile_size 20 is not a multiple of the window 8"),
        ("03_tiling", {"tile_pad": 8}, "every tile would see the whole patch"),
        ("03_tiling", {"pixel": 0.0}, "the weights of all terms are 0: there is nothing to learn from"),
        ("03_tiling", {"seed": -1}, "seed is -1; it must be at least 0"),
        ("03_tiling", {"learnable": "plain", "pixel": 0.0, "gradient": 1.0}, "share out the weight pixel, which is 0"),
    ],
)
def test_wrong_parameters_end_in_one_sentence(trained, folder, monkeypatch, capsys, name, wrong, complaint):
    file = folder / f"params/wrong/{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**TINY[name], "run": "cli", **wrong}))
    monkeypatch.chdir(folder)
    assert main(["train", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("srlib train: ") and said.count("\n") == 1 and complaint in said


def test_the_command_says_what_is_wrong_without_a_traceback(folder):
    file = folder / "params/cli/other.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("run: cli\n")
    done = subprocess.run([sys.executable, "-m", "srlib", "train", file], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is no notebook's that trains: 02_stage1, 03_tiling, 04_artifact_ft" in done.stderr


def test_a_changed_tile_trains_stage_2_anew(trained, folder):
    before = torch.load(next((trained / "tiling/state").glob("*.pt")))["facts"]
    assert before["model's tile_size"] == "16"
    done = command(folder, "03_tiling", "-p", "tile_size", "8")
    assert "was finished with other settings (model's tile_size): starting anew" in done.stdout, (
        done.stdout + done.stderr
    )
    assert (trained / "tiling/before/best.safetensors").is_file()


def test_progressive_patches_and_tile_choices_reach_the_training(trained, folder):
    phases = {"progressive_iterations": [2, 2], "progressive_batches": [2, 1], "progressive_patches": [8, 16]}
    done = command(folder, "02_stage1", lr_patch=8, resume=False, **phases)
    assert done.returncode == 0, done.stderr
    assert newest_state(trained / "stage1")["drawn"] == 6
    done = command(folder, "04_artifact_ft", tile_choices=[8, 16], learnable="uncertainty", adversarial=0.1, scale=2)
    assert "unknown parameter 'scale'" in done.stderr


def test_stage_2_can_take_the_other_terms(trained, folder):
    done = command(folder, "03_tiling", gradient=0.2, adversarial=0.1, learnable="entropy", resume=False)
    assert done.returncode == 0, done.stderr
    log = pd.read_csv(trained / "tiling/metrics.csv")
    assert {"weighted_gradient", "weighted_adversarial", "share_pixel"} <= set(log.columns)
