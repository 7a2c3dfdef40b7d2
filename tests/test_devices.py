"""Tiling, losses, training, scores and notebooks on a device that is not the CPU: they give what the CPU gives."""

import shutil

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from projects import NAMES, TINY
from second_device import Elsewhere, second_device
from trainings import Patches, start, stop_at, tiny

from srlib.data.resize import downscale, resized_alike, upscale
from srlib.data.sharpen import sharpen_lines, unsharp
from srlib.evaluation.evaluate import evaluate, tilings_of
from srlib.evaluation.metrics import ms_ssim_y, psnr_y, ssim_y
from srlib.losses.detector import ArtifactDetector, DetectorLoss, evaluate_detector, seam_examples
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.total import DualLoss, TotalLoss
from srlib.losses.weights import FORMS
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.restormer import Restormer
from srlib.show.seam_viewer import SeamViewer
from srlib.tiling.tiled import Execution

CLOSE = 1e-5 if torch.cuda.is_available() else 1e-6


@pytest.mark.parametrize("attention", ["channel", "phase"])
@pytest.mark.parametrize("features", ["device", "host"])
@torch.no_grad()
def test_transposed_attention(attention, features):
    torch.manual_seed(0)
    network = Restormer(dim=8, blocks=(1, 1), heads=(1, 2), refinement=1, attention=attention, gates=True)
    x, model = torch.rand(1, 3, 24, 32), TiledSR(network).eval()
    ways = [{"statistics": "exact"}, *([{"statistics": "window", "span": 16}] if attention == "channel" else [])]
    for way in ways:
        expected, _ = model.cpu().tiled(x, tile=8, **way)
        with second_device() as device:
            found, _ = model.to(device).tiled(x, tile=8, how=Execution(features=features), **way)
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
def test_what_lies_on_two_devices_is_refused_here_too():
    with second_device() as device:
        x = torch.rand(2, 3, device=device)
        assert isinstance(x, Elsewhere) and x.device == device and (x + 1).device == device and x.sum().item() > 0
        here, index = torch.ones(3), torch.tensor([0, 1])
        for mixture in (
            lambda: x + here,
            lambda: torch.stack([x.sum(), here.sum()]),
            lambda: here.sum().add_(x.sum()),
            lambda: here[index.to(device)],
            lambda: x.index_put_((index,), here[:2, None]),
            lambda: here.index_put_((index,), x[0, 0]),
        ):
            with pytest.raises(RuntimeError, match="are on the CPU"):
                mixture()
        assert x[index].device == (x * here.sum()).device == device
        with pytest.raises(TypeError, match="no numpy"):
            x.numpy()
        assert torch.equal((x + torch.tensor(1)).cpu() - 1, (x.cpu() + 1) - 1)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": 8, "halo": 0},
        {"tile": 16, "halo": 8, "blend": "ramp"},
        {"tile": 16, "halo": 8, "blend": "mean"},
        {"tile": 16, "statistics": "two_pass"},
        {"tile": 8, "statistics": "exact"},
        {"tile": 8, "statistics": "exact", "how": Execution(features="host")},
    ],
    ids=str,
)
@torch.no_grad()
def test_tiling(options):
    """With the picture there, and with the picture on the CPU and only tiles there."""
    x, model = torch.rand(1, 3, 24, 32), tiny().eval()
    expected, _ = model.tiled(x, **options)
    with second_device() as device:
        model.to(device)
        assert torch.allclose(model.tiled(x.to(device), **options)[0].cpu(), expected, atol=CLOSE)
        assert torch.allclose(model.tiled(x, **options)[0], expected, atol=CLOSE)
        out = np.zeros(expected.shape, np.float32)
        model.tiled(x.to(device), out=out, **options)
    assert np.allclose(out, expected, atol=CLOSE)


@pytest.mark.parametrize("form", [None, *FORMS])
def test_losses(form):
    p, t = torch.rand(2, 2, 3, 64, 64)

    def gradients(device) -> list[torch.Tensor]:
        torch.manual_seed(0)
        networks = {"detector": ArtifactDetector(), "discriminator": MultiScaleDiscriminator(channels=4, scales=1)}
        rest = dict.fromkeys(("frequency", "gradient", "ms_ssim", "adversarial", "artifact_class"), 0.1)
        loss = TotalLoss(artifact_feature=0.1, learnable=form, **rest, **networks).to(device)
        prediction = p.clone().to(device).requires_grad_()
        total, terms = loss(prediction, t.to(device), t.to(device))
        total.backward()
        assert {value.device for term in terms.values() for value in term.values()} == {torch.device(device)}
        return [total.detach().cpu(), prediction.grad.cpu()]

    expected = gradients("cpu")
    with second_device() as device:
        found = gradients(device)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(expected, found, strict=True))


def test_other_functions_of_pictures():
    functions = {
        "psnr": lambda x: psnr_y(x[:1], x[1:], 2),
        "ssim": lambda x: ssim_y(x[:1], x[1:], 2),
        "ms_ssim": lambda x: ms_ssim_y(x[:1], x[1:], 2),
        "downscale": lambda x: downscale(x, 2, "lanczos"),
        "upscale": lambda x: upscale(x, 2, "bicubic"),
        "alike": lambda x: resized_alike(x, x, 0.75)[0],
        "unsharp": unsharp,
        "lines": sharpen_lines,
        "dual": lambda x: DualLoss("normalised").to(x.device)([x, x], [x.flip(0), x.flip(-1)])[0],
    }
    x = torch.rand(2, 3, 176, 176)
    for name, function in functions.items():
        expected = function(x)
        with second_device() as device:
            found = function(x.to(device))
            assert found.device == device, name
            assert torch.allclose(found.cpu(), expected, atol=1e-5), name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_training_resumes_there_as_it_does_here(tmp_path, stage):
    """Log and weights; stopped after three steps; with the optimizers' states, averages and discriminator."""
    _, expected = start(tmp_path / "here", stage, iterations=6, validate_every=3)
    changes = {"iterations": 6, "validate_every": 3}
    with second_device() as device:
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "there", stage, callback=stop_at(3), **changes)
        model, log = start(tmp_path / "there", stage, **changes)
        assert {value.device for value in model.state_dict().values()} == {device}
    columns = [c for c in expected if c != "seconds"]
    pd.testing.assert_frame_equal(log[columns], expected[columns], rtol=1e-3)
    here, there = (load(tmp_path / where / "best.safetensors").state_dict() for where in ("here", "there"))
    apart = 6 * 2e-3 if torch.cuda.is_available() else 1e-4  # rounding: Adam steps by the sign
    assert all(torch.allclose(here[name].float(), there[name].float(), atol=apart) for name in here)


@torch.no_grad()
def test_the_detector_its_material_and_its_evaluation():
    lrs, clean = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 96, 96)

    def report(device) -> dict:
        torch.manual_seed(0)
        hat, detector = tiny().to(device), ArtifactDetector(8).to(device)
        seams = seam_examples(hat, list(lrs), tile=16, rng=np.random.default_rng(0))
        return evaluate_detector(detector, list(clean), seams, batches=2, batch=2, patch=48)

    expected = report("cpu")
    with second_device() as device:
        found = report(device)
        assert found["seam_ratio"] == pytest.approx(expected["seam_ratio"], rel=1e-4)
        pd.testing.assert_frame_equal(found["confusion"], expected["confusion"], rtol=1e-4)
        detector = ArtifactDetector(8).to(device)
        logits = detector(clean[:1, :, :48, :48].to(device))
        target = torch.ones(1, 2, *logits.shape[1:], device=device)  # present, and asked about
        assert DetectorLoss().to(device)(logits, target)[0].device == device


@torch.no_grad()
def test_scores_and_the_viewer_come_back_to_the_cpu():
    pairs, models = Patches(2, size=24), {"mine": tiny().eval()}
    tilings = tilings_of([(8, 0)]) | {"exact": {"tile": 8, "statistics": "exact"}}
    expected, _, _ = evaluate(models, pairs, tilings)
    with second_device() as device:
        models["mine"].to(device)
        table, pictures, _ = evaluate(models, pairs, tilings)
        assert {picture.device.type for picture in pictures.values()} == {"cpu"}
        viewer = SeamViewer({"p": (pairs[0]["lr"], pairs[0]["hr"])}, models, tiles=(8, 16), halos=(0, 8))
        assert viewer.result("a").picture.device.type == "cpu" and "TC" in viewer.result("a").figures
    numbers = ["PSNR-Y", "SSIM-Y"]
    pd.testing.assert_frame_equal(table[numbers], expected[numbers], rtol=1e-4)


def test_the_notebooks_from_02_on_find_what_they_find_on_the_cpu(folder, monkeypatch):
    """Their cells in this process, where the second device is."""
    shutil.copytree(folder / "outputs/demo/data", folder / "outputs/there/data")
    monkeypatch.chdir(folder)
    with second_device() as device:
        for name in NAMES[1:]:
            cells = [c for c in nbformat.read(f"notebooks/{name}.ipynb", 4).cells if c.cell_type == "code"]
            given = "".join(f"{k} = {v!r}\n" for k, v in {**TINY[name], "run": "there"}.items())
            place = 1 + next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", ()))
            sources = [c.source for c in cells]
            sources.insert(place, f"# Parameters\n{given}")
            names = {"In": sources, "display": lambda *_, **__: None}
            for source in sources:
                exec(compile(source, name, "exec"), names)
            networks = [m for m in names.values() if isinstance(m, TiledSR)] + list(names.get("models", {}).values())
            assert networks and {p.device for m in networks for p in m.parameters()} == {device}, name
    plt.close("all")
    here, there = (pd.read_csv(folder / f"outputs/{run}/eval/means.csv") for run in ("demo", "there"))
    columns = ["variant", "tiling", "PSNR-Y", "SSIM-Y", "SGR"]
    pd.testing.assert_frame_equal(there[columns], here[columns], rtol=1e-3)
