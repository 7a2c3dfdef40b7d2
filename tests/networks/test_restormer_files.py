"""Restormers and Phaseformers out of files, their own and published ones; the command restores pictures with them."""

import numpy as np
import pytest
import torch

from srlib.__main__ import main
from srlib.data.drawings import draw
from srlib.data.picture import Picture
from srlib.data.pictures import read_picture, write_png
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import load, load_hat, save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.restormer import CONFIGS, Restormer
from srlib.networks.restormer_files import restormer_weights

TINY = {"dim": 8, "blocks": (1, 1), "heads": (1, 2), "refinement": 1}


def test_phaseformers_names_are_renamed_one_to_one():
    model = Restormer(**CONFIGS["Phaseformer"])
    state = {}
    for name, value in model.state_dict().items():
        for here, there in (
            ("patch_embed.proj.", "embed_conv_rgb."),
            ("latent.", "encoders.3."),
            *((f"encoder_level{i + 1}.", f"encoders.{i}.") for i in range(3)),
            *((f"down{i + 1}_{i + 2}.", f"downs.{i}.") for i in range(3)),
            *((f"up{4 - i}_{3 - i}.", f"ups.{i}.") for i in range(3)),
            *((f"reduce_chan_level{3 - i}.", f"reduces.{i}.") for i in range(2)),
            *((f"decoder_level{3 - i}.", f"decoders.{i}.") for i in range(3)),
            *((f"gate_level{3 - i}.", f"attention.{i}.") for i in range(3)),
            ("low.", "outputl."),
            ("enlarge.", "ups1.body.0."),
            ("high.", "output1."),
        ):
            if name.startswith(here):
                name = there + name.removeprefix(here)
        name = (
            name.replace("qkv_dwconv", "qkv_conv").replace("ffn.dwconv", "ffn.conv").replace(".body.weight", ".weight")
        )
        name = name.replace(".body.bias", ".bias") if "norm" in name else name
        state[name] = value[None] if name.endswith("temperature") else value
    state |= {"attention.3.conv.weight": torch.zeros(1, 1, 3), "ups2.body.0.weight": torch.zeros(32, 16, 3, 3)}
    assert len(state) == 282 and "encoders.0.0.norm1.weight" in state and "decoders.2.1.attn.qkv_conv.weight" in state
    renamed, config = restormer_weights(state)
    assert renamed.keys() == model.state_dict().keys()
    assert Restormer(**config).load_state_dict(renamed) and config["attention"] == "phase" and config["gates"]


@pytest.mark.parametrize("name", [n for n in CONFIGS if "Phaseformer" not in n])
def test_the_configuration_is_read_from_the_weights(name):
    with torch.device("meta"):
        model = Restormer(**CONFIGS[name])
        _, config = restormer_weights(model.state_dict())
        again = Restormer(**config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert {**config, "ffn": 2.66, "checkpointing": False} == model.config


@pytest.mark.parametrize("key", ["", "params", "state_dict"])
def test_published_and_own_files_load_and_give_the_same_picture(key, tmp_path):
    torch.manual_seed(0)
    model = Restormer(**TINY).eval()
    torch.save({key: model.state_dict()} if key else model.state_dict(), tmp_path / "net.pth")
    save_model(tmp_path / "own.safetensors", model)
    save_model(tmp_path / "tiled.safetensors", TiledSR(model, tile_size=16, tile_pad=2))
    x = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        expected = model(x)
        for name in ("net.pth", "own.safetensors", "tiled.safetensors"):
            loaded = load(tmp_path / name)
            assert (loaded.scale, loaded.window) == (1, 2) and isinstance(loaded.hat_model, Restormer)
            assert torch.equal(loaded.whole(x), expected)
            assert (loaded.tiled(x, statistics="exact", tile=16)[0] - expected).abs().max() <= 2e-5
    with pytest.raises(ValueError, match="own.safetensors holds a Restormer, not a HAT"):
        load_hat(tmp_path / "own.safetensors")


def test_of_two_answers_one_is_chosen(tmp_path):
    save_model(tmp_path / "two.safetensors", Restormer(**TINY, answers="two", gates=True))
    save_model(tmp_path / "one.safetensors", Restormer(**TINY))
    assert [load(tmp_path / "two.safetensors", answer=a).scale for a in (None, "low", "high")] == [1, 1, 2]
    with pytest.raises(ValueError, match="one.safetensors holds a network with one answer"):
        load(tmp_path / "one.safetensors", answer="high")


def test_weights_of_other_shapes_are_refused_by_name(tmp_path):
    state = Restormer(**TINY).state_dict()
    state["encoder_level1.0.ffn.project_in.weight"] = torch.zeros(10, 8, 1, 1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="odd.pth is not a Restormer: it has one's names"):
        load(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    "options", [[], ["--statistics", "window", "--span", "16"], ["--statistics", "local", "--halo", "4"]]
)
def test_the_command_restores_files(options, tmp_path, capsys):
    torch.manual_seed(0)
    model = Restormer(**TINY)
    save_model(tmp_path / "net.safetensors", model)
    write_png(tmp_path / "in.png", draw(1, 41, 50))
    line = ["upscale", *(str(tmp_path / name) for name in ("net.safetensors", "in.png", "out.png")), "--tile", "16"]
    assert main([*line, *options]) == 0
    assert "1 written" in capsys.readouterr().out
    written = read_picture(tmp_path / "out.png").rgb
    assert written.shape == (41, 50, 3)
    if not options:
        x = torch.from_numpy(draw(1, 41, 50)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            expected = (model.eval()(x)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(written.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "arguments, options, says",
    [
        ({}, ["--statistics", "window"], "needs span, a multiple of 2 LR pixels"),
        ({}, ["--statistics", "window", "--span", "9"], "needs span, a multiple of 2 LR pixels"),
        ({}, ["--span", "16"], "span 16 is for statistics window, not exact"),
        ({}, ["--answer", "high"], "one answer: there is no 'high' to choose"),
        ({"in_chans": 6, "answers": "skip"}, [], "takes 6 channels, pictures have 1 or 3"),
        ({}, ["--statistics", "two_pass"], "two_pass finds no mean, variance or norm"),
        (
            {"attention": "phase"},
            ["--statistics", "window", "--span", "16"],
            "statistics over windows need attention 'channel'",
        ),
        (
            {"attention": "phase", "gates": True},
            ["--statistics", "window", "--span", "16"],
            "statistics over windows need attention 'channel'",
        ),
    ],
)
def test_what_cannot_be_done_is_said(arguments, options, says, tmp_path, capsys):
    save_model(tmp_path / "net.safetensors", Restormer(**{**TINY, **arguments}))
    write_png(tmp_path / "in.png", draw(1, 16, 16))
    line = ["upscale", *(str(tmp_path / name) for name in ("net.safetensors", "in.png", "out.png"))]
    assert main([*line, *options]) in (1, 2) and not (tmp_path / "out.png").exists()
    assert says in capsys.readouterr().err


def test_a_restoration_that_changes_the_light_gets_no_hint():
    """It is what such networks are for; a HAT's mean stays where it was."""
    model = TiledSR(Restormer(**TINY, answers="plain")).eval()  # random weights: near black
    picture = upscale(model, Picture(np.full((16, 16, 3), 200, np.uint8)))
    assert picture[0].rgb.mean() < 100 and not picture[1].notes
