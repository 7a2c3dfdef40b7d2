"""HAT equals the reference, loads by published names, takes any size."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from spandrel import ModelLoader
from torch.utils.flop_counter import FlopCounterMode

from srlib.networks.hat import CONFIGS, HAT
from srlib.networks.initial import start_far_reaching
from srlib.tiling.memory import peak_of

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
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


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
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


# SPEC 1: published GMACs for a 64x64 input at x4, and what is executed here: padding heads from 30 to 32
# channels adds to it, cutting border windows in two takes off.
@pytest.mark.parametrize(("name", "published"), [("HAT-S", 54.9), ("HAT", 102.4)])
def test_published_multiplications(name, published):
    with torch.device("meta"):
        model, x = HAT(**CONFIGS[name], upscale=4).eval(), torch.empty(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert counter.get_total_flops() / 2e9 == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_named_configuration_can_be_built(name, scale):
    with torch.device("meta"):
        model = HAT(**CONFIGS[name], upscale=scale)
        assert model(torch.empty(1, 3, 48, 64)).shape == (1, 3, 48 * scale, 64 * scale)


@pytest.mark.parametrize("mode", ["inference", "training", "checkpointing"])
def test_compiles_in_one_piece_and_for_any_size(mode):
    torch._dynamo.reset()
    model = start_far_reaching(HAT(**TINY, checkpointing=mode == "checkpointing")).train(mode != "inference")
    compiled = torch.compile(model, fullgraph=True, backend="eager" if mode == "inference" else "aot_eager")
    for height, width in [(16, 24), (21, 40)]:  # the second makes sizes symbols
        results = []
        for run in (model, compiled):
            model.zero_grad()
            with torch.set_grad_enabled(mode != "inference"):
                results.append([run(torch.linspace(0, 1, 3 * height * width).view(1, 3, height, width))])
            if mode != "inference":
                results[-1][0].square().mean().backward()
                results[-1] += [p.grad for p in model.parameters()]
        for plain, fused in zip(*results, strict=True):
            assert (plain - fused).abs().max() <= 1e-4 * plain.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_half_precision_stays_finite_with_large_activations(dtype, way):
    """Queries and keys of some hundreds: their products leave fp16's range, 65504."""
    model = start_far_reaching(HAT(**TINY, conv_scale=0.3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv" in name:
                parameter.mul_(300)
        x = torch.rand(1, 3, 24, 24)
        exact = model(x)
        if way == "weights":
            half = model.to(dtype)(x.to(dtype))
        else:
            with torch.autocast("cpu", dtype):
                half = model(x)
    assert exact.isfinite().all() and half.isfinite().all()


def test_training_keeps_less_than_the_reference():
    """Peak memory of a step; the whole claim is benchmarks/hat.py's."""
    model = HAT(**{**CONFIGS["vram8"], "drop_path_rate": 0.0, "depths": (2,), "num_heads": (6,)})
    peer = ModelLoader().load_from_state_dict(model.state_dict()).model.requires_grad_(True).train()
    x = torch.rand(2, 3, 48, 48)
    peaks = [peak_of(lambda m=m: m(x).square().mean().backward(), torch.device("cpu"))[1] for m in (model, peer)]
    assert peaks[0] < 0.7 * peaks[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed_dim": 30, "num_heads": (4,)}, "not divisible"),
        ({"depths": (2, 2)}, "one entry a group"),
        ({"upscale": 5}, "power of two"),
        ({"window_size": 7}, "even"),
        ({"window_size": 10}, "overlap_ratio 0.5"),  # a margin of 2.5 pixels
        ({"overlap_ratio": 2.5}, "overlap_ratio 2.5 must be a number from 0 to 2"),
    ],
)
def test_impossible_configurations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        HAT(**{**TINY, **wrong})


def test_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match="takes 3 channels, the picture has 1"):
        HAT(**TINY)(torch.rand(1, 1, 16, 16))
