"""Files round-trip, published files load by their shapes, foreign files are refused with a sentence."""

import json

import pytest
import torch
from safetensors.torch import save_file
from spandrel import ModelLoader
from test_hat import GOLDEN, golden

from srlib.networks.checkpoints import hat_config, load, load_hat, load_model, save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.reading import read
from srlib.networks.restormer import CONFIGS as RESTORMERS
from srlib.networks.restormer import Restormer

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4}


@pytest.fixture
def tiled() -> TiledSR:
    return erasing()


def erasing(**arguments) -> TiledSR:
    """With an eraser that changes a lot, unless it is told not to."""
    known = {"tile_size": 16, "tile_pad": 8, "channels": 8, "blocks": 1, "gains": [[0, 1.0], [8, 0.3]]}
    model = TiledSR(HAT(**TINY, upscale=3), use_tiling=True, **{**known, **arguments})
    torch.nn.init.normal_(model.out_conv.weight, std=0.1)
    return model.eval()


def plain(model: TiledSR, x: torch.Tensor) -> torch.Tensor:
    """The stitched picture, as it is without an eraser."""
    other = TiledSR(model.hat_model, use_tiling=True, tile_size=model.tile_size, tile_pad=model.tile_pad)
    return other.eval()(x)


ERASERS = [{}, {"sees": ["lr"]}, {"sees": [], "radius": 3}, {"gains": []}, {"gains": [[8, 0.1]], "tile_choices": [8]}]


@pytest.mark.parametrize("arguments", [*ERASERS, {"radius": 0}], ids=str)
def test_the_eraser_comes_back_with_what_it_sees_and_its_gains(arguments, tmp_path):
    model, x = erasing(**arguments), torch.rand(1, 3, 41, 40)
    loaded = load(save_model(tmp_path / "m.safetensors", model))
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        assert torch.equal(model(x), plain(model, x)) == (arguments == {"gains": []})


@pytest.mark.parametrize("arguments", [*ERASERS, {"radius": 0}], ids=str)
def test_weights_alone_say_what_the_eraser_is(arguments, tmp_path):
    model, x = erasing(**arguments), torch.rand(1, 3, 41, 40)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    loaded = load(tmp_path / "m.pth", use_tiling=True, tile_size=16, tile_pad=8)
    names = ["channels", "blocks", "gains", "radius", *(["sees"] if model.radius else [])]
    assert {n: loaded.config[n] for n in names} == {n: model.config[n] for n in names}
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert ("eraser_facts" in model.state_dict()) == bool(model.radius)


def test_files_from_before_the_eraser_knew_where_seams_are_load_and_work(tmp_path):
    model, x = erasing(radius=0), torch.rand(1, 3, 41, 40)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    assert state["out_conv.weight"].shape == (3, 8, 3, 3)  # at output resolution, of 3 colours
    later = ("radius", "sees", "gains", "tile_choices")
    config = json.dumps({k: v for k, v in model.config.items() if k not in later})
    save_file(state, tmp_path / "old.safetensors", {"kind": "TiledSR", "config": config})
    loaded = load(tmp_path / "old.safetensors")
    assert loaded.radius == 0 and loaded.config == model.config
    with torch.no_grad():
        sr = model.hat_model(x)
        expected = sr + model.out_conv(model.residual_block(sr))
        assert torch.equal(loaded.whole(x), expected) and not torch.equal(expected, sr)
        assert torch.equal(loaded(x), model(x)) and not torch.equal(loaded(x), plain(model, x))
    again = load(save_model(tmp_path / "new.safetensors", loaded))
    assert again.config == loaded.config and torch.equal(again(x), loaded(x))


def test_gains_measured_after_loading_are_saved(tmp_path):
    model = load(save_model(tmp_path / "m.safetensors", erasing(gains=[])))
    model.gains = [[16, 0.01], [0, 0.5]]
    assert load(save_model(tmp_path / "n.safetensors", model)).unit(0) == 0.5


def test_tiled_round_trip_with_changes(tiled, tmp_path):
    path = save_model(tmp_path / "m.safetensors", tiled, step=7)
    x = torch.rand(1, 3, 24, 40)
    loaded = load(path)
    assert torch.equal(loaded(x), tiled(x))
    assert load(path, use_tiling=False).use_tiling is False
    assert torch.equal(load_hat(path)(x), tiled.hat_model(x))
    assert list(tmp_path.iterdir()) == [path]


def test_what_no_weight_shows_can_be_told(tiled, tmp_path):
    told = {"img_range": 255.0, "conv_scale": 0.5}
    state, path = tiled.hat_model.state_dict(), tmp_path / "published.safetensors"
    save_file(state, path)
    expected, x = HAT(**{**tiled.hat_model.config, **told}).eval(), torch.rand(1, 3, 16, 16)
    expected.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(load(path, **told).hat_model(x), expected(x))
        assert not torch.equal(load(path).hat_model(x), expected(x))
    for name in told:
        for value in (0, -1.0, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"{name} {value} must be a positive number"):
                load(path, **{name: value})


@pytest.mark.parametrize("file", ["TiledSR", "HAT"])
@pytest.mark.parametrize("name", ["img_range", "conv_scale"])
def test_what_a_file_states_is_not_overruled(file, name, tiled, tmp_path):
    path = save_model(tmp_path / "m.safetensors", tiled if file == "TiledSR" else tiled.hat_model)
    stated = tiled.hat_model.config[name]
    load(path, **{name: stated})
    with pytest.raises(ValueError, match=f"was trained with {name} {stated}, not 0.5: leave it out"):
        load(path, **{name: 0.5})


def test_settings_of_hat_are_refused_for_other_networks_of_this_package(tmp_path):
    path = save_model(tmp_path / "m.safetensors", Restormer(**RESTORMERS["Phaseformer, lite"]))
    with pytest.raises(ValueError, match="holds a Restormer: img_range is no setting of it, leave it out"):
        load(path, img_range=255.0)


def test_others_of_the_group_may_read_it_where_they_may_read_any_file(tiled, tmp_path):
    (tmp_path / "any").touch()
    path = save_model(tmp_path / "m.safetensors", tiled)
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_bare_hat_gets_an_identity_eraser(tiled, tmp_path):
    path = save_model(tmp_path / "hat.safetensors", tiled.hat_model)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load(path)(x), tiled.hat_model(x))
    assert torch.equal(load_model(path, HAT)(x), tiled.hat_model(x))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
@pytest.mark.parametrize("key", ["params_ema", "params", None])
def test_published_files_load_by_their_shapes(path, key, tmp_path):
    _, weights, picture, expected = golden(path)
    file = tmp_path / "published.pth"
    torch.save({key: weights, "params_other": 1} if key else weights, file)
    model = load_hat(file)
    with torch.no_grad():
        assert (model(picture) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_parallel_training_and_state_dicts_load(wrapped, tmp_path):
    _, weights, picture, expected = golden(GOLDEN[0])
    parallel = {f"module.{k}": v for k, v in weights.items()}
    torch.save({"state_dict": parallel, "epoch": 3} if wrapped else parallel, tmp_path / "parallel.pth")
    save_file(parallel, tmp_path / "parallel.safetensors")
    for file in ("parallel.pth", "parallel.safetensors"):
        with torch.no_grad():
            assert (load_hat(tmp_path / file)(picture) - expected).abs().max() < 1e-5


def test_saved_hat_opens_in_spandrel_and_gives_the_same_picture(tmp_path):
    model = HAT(
        embed_dim=36,
        depths=(2, 2),
        num_heads=(6, 6),
        window_size=16,
        squeeze_factor=6,
        upscale=4,
    ).eval()
    path = save_model(tmp_path / "hat.safetensors", model)
    other = ModelLoader().load_from_file(path)
    assert other.architecture.id == "HAT" and other.scale == 4
    x = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        assert (other.model.eval()(x) - model(x)).abs().max() < 1e-5


@pytest.mark.parametrize("upscale", [1, 3, 4])
@pytest.mark.parametrize("mlp_ratio", [4.0, 0.1, 1 / 3, 1.7])
def test_config_is_read_from_shapes(upscale, mlp_ratio):
    arguments = {**TINY, "depths": (2, 4), "num_heads": (2, 4), "upscale": upscale, "in_chans": 1}
    model = HAT(**arguments, mlp_ratio=mlp_ratio, overlap_ratio=0.75)
    found = hat_config(model.state_dict())
    for name, value in arguments.items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value), name
    HAT(**found).load_state_dict(model.state_dict())


@pytest.mark.parametrize("embed_dim", range(1, 100, 7))
def test_ratios_are_read_so_that_the_sizes_are_the_files(embed_dim):
    small = {"depths": (1,), "num_heads": (1,), "window_size": 4, "squeeze_factor": 1, "compress_ratio": 1}
    for hidden in range(1, 2 * embed_dim, 5):
        with torch.device("meta"):
            model = HAT(**small, embed_dim=embed_dim, mlp_ratio=(hidden + 0.5) / embed_dim)
            sizes = [HAT(**arguments).state_dict() for arguments in (model.config, hat_config(model.state_dict()))]
        assert {k: v.shape for k, v in sizes[0].items()} == {k: v.shape for k, v in sizes[1].items()}


def test_foreign_and_broken_files_are_refused_with_a_sentence(tiled, tmp_path):
    discriminator = tmp_path / "d.pth"
    torch.save({"params": {"conv0.weight": torch.zeros(3)}}, discriminator)
    with pytest.raises(
        ValueError,
        match="none of HAT, Restormer and DiffIR, .* spandrel .* knows: it has no conv_first.weight, but conv0",
    ):
        load_hat(discriminator)
    text = tmp_path / "text.pth"
    text.write_text("not found")
    with pytest.raises(ValueError, match="text.pth"):
        read(text)
    torch.save({"params": [1, 2]}, text)
    with pytest.raises(ValueError, match="holds no weights"):
        read(text)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(save_model(tmp_path / "m.safetensors", tiled).read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.safetensors is cut short: it has 5000 bytes and says itself"):
        load(cut)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_hat(tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="holds TiledSR, not HAT"):
        load_model(tmp_path / "m.safetensors", HAT)


@pytest.mark.parametrize("lacking", ["overlap_attn", "conv_block", "mlp", "layers.1.residual_group"])
def test_a_relative_of_hat_is_refused_by_what_it_lacks(lacking):  # SwinIR's names are HAT's without the first two
    state = HAT(**{**TINY, "depths": (2, 2), "num_heads": (2, 2)}).state_dict()
    relative = {k: v for k, v in state.items() if lacking not in k} | {"layers.1.conv.weight": torch.zeros(1)}
    with pytest.raises(
        ValueError,
        match=rf"swinir.pth is none of HAT, Restormer and DiffIR, .* spandrel .* knows: it has no .*{lacking}",
    ):
        hat_config(relative, "swinir.pth")


def test_a_mismatch_names_the_layer(tiled, tmp_path):
    _, weights, _, _ = golden(GOLDEN[0])
    weights["layers.1.conv.weight"] = torch.zeros(8, 8, 3, 3)
    path = tmp_path / "wrong.pth"
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"layers\.1\.conv\.weight is \(8, 8, 3, 3\), this HAT needs \(32, 32, 3, 3\)"):
        load_hat(path)
    del weights["layers.1.conv.weight"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"lacks layers\.1\.conv\.weight"):
        load_hat(path)


@pytest.mark.parametrize("config", ["{bad", "[1]", "null", '{"hat": 3}'])
def test_a_damaged_configuration_is_said_to_be(config, tmp_path):
    save_file(HAT(**TINY).state_dict(), tmp_path / "hat.safetensors", {"kind": "HAT", "config": config})
    for read_in in (load, load_hat, lambda path: load_model(path, HAT)):
        with pytest.raises(ValueError, match="hat.safetensors is damaged, the configuration in it cannot be read"):
            read_in(tmp_path / "hat.safetensors")
    save_file(HAT(**TINY).state_dict(), tmp_path / "other.safetensors", {"config": config})  # another program's
    assert load_hat(tmp_path / "other.safetensors").window == 8


def test_a_configuration_of_another_version_is_named(tmp_path):
    config = json.dumps({**HAT(**TINY).config, "gadget": 1})
    save_file(HAT(**TINY).state_dict(), tmp_path / "hat.safetensors", {"kind": "HAT", "config": config})
    with pytest.raises(ValueError, match="hat.safetensors describes a HAT that this version cannot build.*gadget"):
        load_hat(tmp_path / "hat.safetensors")
