"""HAT equals the reference, loads by published names, takes any size."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from srlib.hat import CONFIGS, HAT

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))
TINY = {
    "embed_dim": 16,
    "depths": (2,),
    "num_heads": (2,),
    "window_size": 8,
    "squeeze_factor": 4,
    "compress_ratio": 4,
}


def golden(path):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    for unused in ("img_size", "upsampler", "resi_connection"):
        config.pop(unused)
    tensors = load_file(path)
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    return config, weights, tensors["input"], tensors["output"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_equals_the_reference(path):
    config, weights, picture, expected = golden(path)
    model = HAT(**config).eval()
    model.load_state_dict(weights, strict=True)
    with torch.no_grad():
        assert (model(picture) - expected).abs().max() < 1e-5


def test_golden_files_are_there():
    assert len(GOLDEN) == 3


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_scales_channels_and_odd_sizes(scale, channels):
    model = HAT(**TINY, upscale=scale, in_chans=channels).eval()
    for height, width in [(16, 16), (13, 22), (1, 5)]:
        out = model(torch.rand(2, channels, height, width))
        assert out.shape == (2, channels, height * scale, width * scale)


def test_odd_size_equals_cropping_the_mirrored_picture():
    model = HAT(**TINY).eval()
    x = torch.rand(1, 3, 13, 22)
    padded = F.pad(x, (0, 2, 0, 3), mode="reflect")
    assert torch.equal(model(x), model(padded)[:, :, :26, :44])


def test_checkpointing_changes_memory_not_gradients():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = HAT(**TINY, checkpointing=checkpointing)
        model(torch.linspace(0, 1, 3 * 16 * 16).view(1, 3, 16, 16)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# SPEC 1: published parameter counts in millions
@pytest.mark.parametrize(("name", "scale", "millions"), [("HAT-S", 4, 9.6), ("HAT", 4, 20.8), ("HAT-L", 2, 40.7)])
def test_published_parameter_counts(name, scale, millions):
    with torch.device("meta"):
        model = HAT(**CONFIGS[name], upscale=scale)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed_dim": 30, "num_heads": (4,)}, "not divisible"),
        ({"depths": (2, 2)}, "one entry a group"),
        ({"upscale": 5}, "power of two"),
        ({"window_size": 7}, "even"),
    ],
)
def test_impossible_configurations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        HAT(**{**TINY, **wrong})


def test_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match="takes 3 channels, the picture has 1"):
        HAT(**TINY)(torch.rand(1, 1, 16, 16))
