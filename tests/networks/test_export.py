"""Exported models give the same picture at any size; what cannot be exported is refused."""

import onnx
import pytest
import torch

from srlib.__main__ import main
from srlib.networks.checkpoints import save_model
from srlib.networks.diffir import DiffIR
from srlib.networks.eraser import TiledSR
from srlib.networks.export import export_onnx, exported, largest_difference
from srlib.networks.export_tiles import export_tiles
from srlib.networks.hat import HAT
from srlib.networks.initial import start_far_reaching
from srlib.networks.restormer import CONFIGS, Restormer

SIZES = [(16, 24), (9, 33), (40, 17)]  # whole windows, and not


def small_hat(depth: int, scale: int) -> HAT:
    """Of one group. depth: its blocks; every second one has shifted windows."""
    hat = HAT(embed_dim=18, depths=(depth,), num_heads=(3,), window_size=8, squeeze_factor=4, upscale=scale)
    return start_far_reaching(hat).eval()


@pytest.fixture(scope="module")
def model() -> TiledSR:
    torch.manual_seed(0)
    model = TiledSR(small_hat(1, 3), use_tiling=True, tile_size=16, tile_pad=8, channels=8, blocks=1, radius=0)
    torch.nn.init.normal_(model.out_conv.weight, std=0.1)
    return model.eval()


KINDS = ["HAT", "TiledSR", "TiledSR of radius 0"]


def of_kind(kind, model):
    """A HAT with shifted windows; the fixture's network; or its HAT with an eraser of today, which on a whole picture
    does nothing.
    """
    if kind == "HAT":
        return small_hat(2, 3)
    if kind == "TiledSR of radius 0":
        return model
    model = TiledSR(model.hat_model, use_tiling=True, tile_pad=8, channels=8, blocks=1, gains=[[8, 1.0]])
    torch.nn.init.normal_(model.out_conv.weight, std=0.1)
    return model.eval()


def whole(model, x):
    """A whole picture: HAT, and of radius 0 the eraser."""
    if not isinstance(model, TiledSR):
        return model(x)
    sr = model.hat_model(x)
    return sr if model.radius else sr + model.out_conv(model.residual_block(sr))


@pytest.mark.parametrize("kind", KINDS)
def test_exported_program_takes_any_size(model, kind):
    model = of_kind(kind, model)
    program = exported(model.train()).module()
    assert model.training and getattr(model, "use_tiling", True)  # left as it was
    model.eval()
    for height, width in SIZES:
        x = torch.rand(1, 3, height, width)
        with torch.no_grad():
            assert (program(x) - whole(model, x)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_takes_any_size_and_number(model, kind, tmp_path):
    chosen = of_kind(kind, model)
    path = export_onnx(chosen, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == [path]  # one file, no weights beside it
    onnx.checker.check_model(path)
    graph = onnx.load(path).graph
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    assert sizes == [["batch", 3, "height", "width"], ["batch", 3, "3*height", "3*width"]]
    for number, (height, width) in enumerate(SIZES, 1):
        lr = torch.rand(number, 3, height, width)
        assert largest_difference(path, lambda x: whole(chosen, x), {"lr": lr}) < 1e-5
    erases = any("out_conv" in i.name for i in graph.initializer)
    assert erases == (kind == "TiledSR of radius 0")  # what does nothing is left out


def test_a_restoration_at_one_size_is_exported():
    model, x = small_hat(1, 1), torch.rand(1, 3, 9, 33)
    with torch.no_grad():
        assert (exported(model).module()(x) - model(x)).abs().max() < 1e-5


SMALL = {"dim": 8, "blocks": [1, 1], "heads": [1, 2], "refinement": 1}
DUAL = CONFIGS["Phaseformer, lite, channel attention"] | SMALL
RESTORING = {
    "Restormer": lambda: lively(Restormer(**SMALL)),
    "the larger of two answers": lambda: TiledSR(answering(lively(Restormer(**DUAL)), "high")).eval(),
    "DiffIR": lambda: lively(DiffIR(**SMALL, prior=16, encoder_blocks=1, light=True)),
}


def answering(network, answer):
    network.answer = answer
    return network


def lively(network):
    """With weights on all of which the answer depends."""
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn_like(p) * 0.2 if p.ndim == 1 else torch.randn_like(p) / p[0].numel() ** 0.5)
    return network.eval()


@pytest.mark.parametrize("kind", RESTORING)
def test_restoring_networks_are_exported(kind, tmp_path):
    model = RESTORING[kind]()
    path = export_onnx(model, tmp_path / "m.onnx")
    written = onnx.load(path)
    height = written.graph.output[0].type.tensor_type.shape.dim[2].dim_param
    assert height == ("2*height" if "larger" in kind else "height")
    said = {fact.key: fact.value for fact in written.metadata_props}
    assert said["range"] == ("log-mapped light, 0 to 1 and more" if kind == "DiffIR" else "0 to 1")
    for number, (height, width) in enumerate(SIZES, 1):
        lr = torch.rand(number, 3, height, width)
        assert largest_difference(path, getattr(model, "hat_model", model), {"lr": lr}) < 1e-4


def test_what_has_no_meaning_is_refused(tmp_path):
    with pytest.raises(ValueError, match="first stage reads the ground truth"):
        exported(DiffIR(**SMALL, prior=16, encoder_blocks=1, stage=1))
    with pytest.raises(ValueError, match="tiles of a Restormer are not exported, only HAT's: leave --tile out"):
        export_tiles(TiledSR(Restormer(**SMALL)), tmp_path / "m.onnx", tile=16, halo=0)
    with pytest.raises(ValueError, match="attention of phases cannot be exported"):
        export_onnx(Restormer(**CONFIGS["Phaseformer, lite"] | SMALL), tmp_path / "m.onnx")
    assert not any(tmp_path.iterdir())


def test_command(model, tmp_path, capsys):
    checkpoint = save_model(tmp_path / "m.safetensors", of_kind("TiledSR", model))
    assert main(["export", str(checkpoint), str(tmp_path / "m.onnx")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "m.onnx").exists()
    assert printed.count("largest difference") == 2 and "MiB" in printed
    assert "the eraser is not in it, a whole picture has no seams" in printed
    assert main(["export", str(tmp_path / "missing.safetensors"), str(tmp_path / "n.onnx")]) == 2
    assert "no checkpoint at" in capsys.readouterr().err and not (tmp_path / "n.onnx").exists()


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="a Linear cannot be exported"):
        exported(torch.nn.Linear(2, 2))
