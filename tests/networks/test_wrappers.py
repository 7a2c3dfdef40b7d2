"""Whatever was put around a network, compiled, parallel or averaged, its files load and what is saved of it loads."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_hat import TINY
from torch import nn
from torch.optim.swa_utils import AveragedModel

from srlib.networks.checkpoints import load, load_hat, load_model, save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.export import exported
from srlib.networks.hat import HAT
from srlib.networks.reading import read
from srlib.networks.wrappers import bare_names, unwrapped


def compiled_layers(hat: HAT) -> HAT:
    for group in hat.layers:
        group.conv = torch.compile(group.conv)
    return hat


WRAPPERS = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "averaged of compiled": lambda model: AveragedModel(torch.compile(model)),
    "compiled of parallel of compiled": lambda model: torch.compile(nn.DataParallel(torch.compile(model))),
}


KINDS = ["HAT", "TiledSR", "TiledSR of radius 0"]


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    hat = HAT(**TINY)
    if kind == "HAT":
        return hat
    eraser = {"radius": 0} if kind.endswith("radius 0") else {"radius": 5, "gains": [[0, 1.0], [8, 0.5]]}
    model = TiledSR(hat, use_tiling=True, tile_size=16, tile_pad=8, channels=8, blocks=3, **eraser)
    nn.init.normal_(model.out_conv.weight, std=0.1)
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = bare_names(a.state_dict()), bare_names(b.state_dict())
    return list(one) == list(other) and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_of_a_wrapped_network_is_the_network(kind, wrapper, tmp_path):
    model = network(kind)
    path = save_model(tmp_path / "m.safetensors", WRAPPERS[wrapper](model))
    with safe_open(path, "pt") as file:
        assert file.metadata()["kind"] == type(model).__name__ and set(file.keys()) == set(model.state_dict())
    loaded = load_model(path, HAT) if kind == "HAT" else load(path)
    assert type(loaded) is type(model) and same(loaded, model) and loaded.config == model.config


@pytest.mark.parametrize(
    ("prefix", "container"),
    [("", None), ("model.", None), ("net_g.", "state_dict"), ("generator.", "params_ema"), ("model.net.", "deeper")],
)
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_wrapped_network_load(kind, wrapper, prefix, container, tmp_path):
    model = network(kind)
    wrapped = model if wrapper is None else WRAPPERS[wrapper](model)
    state = {prefix + k: v for k, v in wrapped.state_dict().items()}
    content = {"state": {"weights": state}, "step": torch.tensor(3)} if container == "deeper" else {container: state}
    torch.save(content if container else state, tmp_path / "m.ckpt")
    loaded = load(tmp_path / "m.ckpt")
    assert same(loaded if kind != "HAT" else loaded.hat_model, model)
    assert same(load_hat(tmp_path / "m.ckpt"), model.hat_model if kind != "HAT" else model)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, AveragedModel, compiled_layers])
def test_a_wrapped_hat_inside_a_tiled_sr(wrap, tmp_path):
    model = network("TiledSR")
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    model.hat_model = wrap(model.hat_model)
    assert (model.scale, model.window) == (2, 8)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "raw.safetensors")
    for path in (save_model(tmp_path / "m.safetensors", model), tmp_path / "raw.safetensors"):
        loaded = load(path).state_dict()
        assert set(loaded) == set(expected) and all(torch.equal(v, expected[k]) for k, v in loaded.items())


def test_a_tiled_sr_is_built_of_a_compiled_hat(tmp_path):
    model = TiledSR(torch.compile(network("HAT")))
    assert same(load(save_model(tmp_path / "m.safetensors", model)), model)


def test_files_that_older_versions_wrote_of_a_compiled_network_load(tmp_path):
    model = network("HAT")
    path = save_model(tmp_path / "m.safetensors", model)
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), "kind": "OptimizedModule"}
    save_file({f"_orig_mod.{k}": v for k, v in model.state_dict().items()}, path, metadata)
    assert same(load_hat(path), model) and same(load(path).hat_model, model) and same(load_model(path, HAT), model)


def test_the_other_networks_and_the_optimizer_of_a_training_are_left(tmp_path):
    model, other = network("HAT"), nn.Sequential(nn.Conv2d(3, 8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    both = {f"generator.{k}": v for k, v in model.state_dict().items()}
    both |= {f"discriminator.{k}": v for k, v in other.state_dict().items()}
    contents = {
        "apart": {"g": model.state_dict(), "d": other.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3},
        "together": {"state_dict": both, "epoch": 3, "loops": {"fit": {"done": 1}}},
        "beside": {**model.state_dict(), "config": {"scale": 2}, "d": other.state_dict(), "epoch": 3},
        "with the average": {"params": network("HAT").state_dict(), "params_ema": model.state_dict()},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert same(load_hat(tmp_path / f"{name}.pth"), model), name


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda s: {"model": s, "weights": s}, "holds several networks, model, weights: save one of them alone"),
        (lambda s: {"a_ema": s, "ema": s, "b": s}, "holds several networks, a_ema, ema: save one of them alone"),
        (
            lambda s: {p + k: v for p in ("net_g.", "net_g_ema.") for k, v in s.items()},
            "several HATs, net_g., net_g_ema.",
        ),
        (
            lambda s: s | {"module.conv_first.weight": s["conv_first.weight"]},
            "are both the network's conv_first.weight",
        ),
        (lambda s: s | {"module.gadget": torch.ones(1)}, "has gadget, unknown to this HAT"),
    ],
)
def test_no_choice_is_made_in_silence(content, complaint, tmp_path):
    torch.save(content(network("HAT").state_dict()), tmp_path / "m.pth")
    with pytest.raises(ValueError, match=complaint):
        load_hat(tmp_path / "m.pth")


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, AveragedModel])
def test_a_tiled_sr_of_a_wrapped_hat_tiles_exactly_and_is_exported(wrap, kind):
    model, x = network(kind).eval(), torch.rand(1, 3, 17, 25)
    with torch.no_grad():
        expected = model.erase(model.hat_model(x))
        assert torch.equal(expected, model.hat_model(x)) == (kind == "TiledSR")  # which a whole picture leaves alone
        given = model.hat_model = wrap(model.hat_model).eval()
        for tile in (16, "auto"):
            assert (model.tiled(x, statistics="exact", tile=tile)[0] - expected).abs().max() < 1e-5
        program = exported(model if kind == "TiledSR" else wrap(model)).module()
        assert (program(x) - expected).abs().max() < 1e-5
    assert model.hat_model is given and model.use_tiling


def test_names_of_other_networks_stay(tmp_path):
    state = {"features.0.weight": torch.ones(2), "submodule.weight": torch.ones(1)}
    torch.save(state, tmp_path / "vgg.pth")
    assert list(read(tmp_path / "vgg.pth")[0]) == list(state)
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    assert unwrapped(model) is model
    with pytest.raises(ValueError, match="a Sequential has no config"):
        save_model(tmp_path / "m.safetensors", model)
