"""07 end to end on tiny pairs: it trains, and what it makes can be used; the weights of both levels move."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from projects import ROOT, TINY, execute, trained_by_command

from srlib.data.drawings import draw
from srlib.data.pictures import write_png
from srlib.experiments import restoration
from srlib.experiments.parameters import read_parameter_file
from srlib.networks.checkpoints import load, save_model
from srlib.networks.restormer import CONFIGS, Restormer
from srlib.networks.walk import whole


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose 01 has read pairs of one size: drawings, darker and tinted."""
    folder = tmp_path_factory.mktemp("restoration")
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "srlib"):
        (folder / name).symlink_to(ROOT / name)
    for part, seeds in (("train", range(4)), ("validation", [5]), ("test", [6, 7])):
        for seed in seeds:
            picture = draw(seed, 60, 72)
            water = np.round(picture * np.array([0.4, 0.8, 0.7]) + np.array([0, 30, 40])).astype(np.uint8)
            write_png(folder / "given" / part / "gt" / f"{seed}.png", picture)
            write_png(folder / "given" / part / "input" / f"{seed}.png", water)
    given = {"run": "restoration", "input": "given", "pairs": True, "scales": [1], "patch_sizes": [48]}
    execute(folder, "01_data", **given, jobs=1)
    return folder


@pytest.mark.parametrize("model", ["Restormer, lite", "Phaseformer, lite, channel attention"])
def test_the_notebook_runs_end_to_end(project, model):
    shutil.rmtree(project / "outputs/restoration/restoration", ignore_errors=True)
    done = execute(project, "07_restoration", **{**TINY["07_restoration"], "model": model, "run": "restoration"})
    out = project / "outputs/restoration/restoration"
    made = json.loads((out / "metrics.json").read_text())
    assert made["steps"] == 20 and set(made["scores"]["network | full"]) == {"PSNR", "SSIM"}
    assert set(made["ways"]) == {"whole, not in chunks", "whole", "windows of 32", "tiles of 32 + 16"}
    figures = {p.stem for p in out.glob("figures/*.png")}
    assert figures >= {"pairs", "training", "weights", "restored"} and ("gates" in figures) == ("Phaseformer" in model)
    shown = "".join(o.text for c in done.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "dB against the fitted colour polynomial, 2 test pictures" in shown
    shares = pd.read_csv(out / "metrics.csv").filter(regex="^share_").dropna()
    assert len(shares.columns) == (8 if "Phaseformer" in model else 3)
    assert ((shares.iloc[-1] - shares.iloc[0]).abs() > 1e-3).all()  # they are in the optimizer: each moves
    loaded = load(out / "best.safetensors")
    assert loaded.hat_model.config == {**Restormer(**CONFIGS[model]).config}
    assert loaded.tiled(torch.rand(1, 3, 40, 40), statistics="exact", tile=16)[0].shape == (1, 3, 40, 40)


def parameters(project, **over) -> dict:
    return read_parameter_file(
        project / "notebooks/07_restoration.ipynb",
        project / "params/restoration/07_restoration.yaml",
        {**TINY["07_restoration"], **over},
    )


def test_a_checkpoint_of_one_s_own_is_trained_on_and_others_are_refused(project, tmp_path):
    start = Restormer(**CONFIGS["Phaseformer, lite"])
    save_model(tmp_path / "start.safetensors", start)
    job = restoration.restoration(project, parameters(project, start_from=str(tmp_path / "start.safetensors")))
    assert job.model.answer == "both" and all(
        torch.equal(a, b) for a, b in zip(job.model.state_dict().values(), start.state_dict().values(), strict=True)
    )
    for name, value in (("span", 100), ("span", 0), ("halo", 12), ("halo", -8)):
        with pytest.raises(ValueError, match=f"{name} {value} must be a multiple of"):
            restoration.restoration(project, {**parameters(project), name: value})
    with pytest.raises(ValueError, match="model 'ResNet' is none of Restormer"):
        restoration.restoration(project, parameters(project, model="ResNet"))


@pytest.mark.parametrize("checkpointing", [True, False])
def test_memory_is_saved_from_a_checkpoint_on_too(tmp_path, checkpointing):
    save_model(tmp_path / "start.safetensors", Restormer(**CONFIGS["Restormer, lite"]))
    given = {"start_from": str(tmp_path / "start.safetensors"), "checkpointing": checkpointing, "seed": 0}
    assert restoration._network(tmp_path, given).checkpointing is checkpointing


def test_what_the_gates_show_is_what_the_network_computes(project):
    torch.manual_seed(0)
    model = Restormer(**CONFIGS["Phaseformer, lite"]).eval()
    x = torch.rand(1, 3, 128, 128)
    found = restoration.gates_of(model, x)
    assert list(found) == ["level 3", "level 2", "level 1"] and model.answer == "both"
    assert [g.shape[1] for g in found.values()] == [48, 24, 12]
    seen = []
    model.answer = "low"

    def noting(step, *maps, given=None, **how):
        if given is not None and given.ndim == 2:
            seen.append(given)
        return whole(step, *maps, given=given, **how)

    with torch.no_grad():
        model.walk(x, noting)
    for gate, (learned, phases) in zip(seen, found.values(), strict=True):
        assert torch.equal(gate[0], learned) and (phases - 0.5).abs().max() < 1e-3 < (learned - 0.5).abs().max()


def test_two_processes_train_as_one_with_twice_the_batch(project):
    """The validation, too: there is one picture, which only one of them scores."""
    logs = []
    for processes in (1, 2):
        run = f"by_{processes}"
        shutil.copytree(project / "outputs/restoration", project / "outputs" / run)
        shutil.rmtree(project / "outputs" / run / "restoration", ignore_errors=True)
        given = {"model": "Phaseformer, lite, channel attention", "iterations": 4, "validate_every": 2}
        trained_by_command(project, "07_restoration", processes=processes, run=run, batch=2 // processes, **given)
        logs.append(pd.read_csv(project / "outputs" / run / "restoration/metrics.csv").drop(columns="seconds"))
    assert logs[0]["psnr"].notna().sum() == 2
    pd.testing.assert_frame_equal(*logs, rtol=1e-3)
