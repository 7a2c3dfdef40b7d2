"""Restormer equals its published form, Phaseformer its figures; both are exact in chunks at any size."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srlib.networks.restormer import CONFIGS, Restormer
from srlib.networks.transposed import _phases
from srlib.networks.walk import whole
from srlib.tiling.exact import Chunks

TINY = {"dim": 8, "blocks": (1, 1, 2), "heads": (1, 2, 4), "refinement": 1}


def lively(**arguments) -> Restormer:
    """With weights large enough that its answer depends on all of them."""
    torch.manual_seed(0)
    model = Restormer(**arguments).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3 if p.ndim == 1 else p * 1.5)
    return model


def in_chunks(model: Restormer, x: torch.Tensor, size: int, **options) -> torch.Tensor:
    """The picture by Chunks, padding and all."""
    height, width = (-(-side // model.window) * model.window * model.scale for side in x.shape[2:])
    picture = torch.full((len(x), 3, height, width), torch.nan)

    def put(piece, y, x):
        picture[:, :, y : y + piece.shape[1], x : x + piece.shape[2]] = piece.permute(0, 3, 1, 2)

    with torch.no_grad():
        model.walk(x, Chunks(size, device=torch.device("cpu"), **options), put)
    return picture[:, :, : x.shape[2] * model.scale, : x.shape[3] * model.scale]


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({}, "Restormer"),
        ({"LayerNorm_type": "BiasFree"}, "Restormer, bias-free norms"),
        ({"inp_channels": 6, "dual_pixel_task": True}, "Restormer, dual-pixel"),
    ],
    ids=["with bias", "bias-free", "dual-pixel"],
)
@torch.no_grad()
def test_equal_to_the_other_implementation_with_its_weights(theirs, ours):
    from spandrel_extra_arches.architectures.Restormer import Restormer as Theirs

    torch.manual_seed(0)
    other = Theirs(**theirs).eval()
    for p in other.parameters():
        p.copy_(torch.randn_like(p) * 0.1 if p.ndim == 1 else p * 1.5)
    model = Restormer(**CONFIGS[ours]).eval()
    model.load_state_dict(other.state_dict())  # strict: the names are the same
    x = torch.rand(1, theirs.get("inp_channels", 3), 40, 32)
    expected = other(x)
    assert expected.std() > 0.3 and (model(x) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "name, parameters, names",
    [
        ("Restormer", 26_126_644, 494),
        ("Restormer, bias-free norms", 26_111_668, 406),
        ("Restormer, dual-pixel", 26_132_548, 495),
        ("Phaseformer", 1_783_800 - 4608 - 3, 282 - 2),  # without the two parts that nothing uses
    ],
)
def test_sizes_are_the_published_ones(name, parameters, names):
    with torch.device("meta"):
        model = Restormer(**CONFIGS[name])
    assert sum(p.numel() for p in model.parameters()) == parameters and len(model.state_dict()) == names


@pytest.mark.parametrize("name, published", [("Restormer", 154.9), ("Phaseformer, channel attention", 13.92)])
def test_multiply_adds_are_the_published_ones_less_what_the_folded_matrix_saves(name, published):
    model = Restormer(**CONFIGS[name])
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    saved = 0  # attention times v, c*C a pixel; less what it takes to fold the matrix
    for part, dim in ((n, m.weight.shape[0]) for n, m in model.named_modules() if n.endswith("attn.project_out")):
        side = 64 // (dim // model.config["dim"])
        if "decoder_level1" in part or "refinement" in part:
            side = 64
        heads = len(model.get_submodule(part.removesuffix(".project_out")).temperature)
        saved += side * side * dim * dim // heads - dim * dim * dim // heads
    assert (counted.get_total_flops() / 2 + saved) * 16 / 1e9 == pytest.approx(published, rel=1e-3)  # at 256x256


@pytest.mark.parametrize("answer", ["low", "high"])
@pytest.mark.parametrize("attention", ["channel", "phase"])
@pytest.mark.parametrize("size", [(45, 71), (1, 9), (64, 32)])
def test_two_answers_are_exact_in_chunks(answer, attention, size):
    model = lively(**TINY, attention=attention, gates=True, answers="two", norm="WithBias")
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        both = dict(zip(("low", "high"), model(x), strict=True))
    model.answer = answer
    picture = in_chunks(model, x, 16)
    scale = 2 if answer == "high" else 1
    assert picture.shape == both[answer].shape == (2, 3, size[0] * scale, size[1] * scale)
    assert (picture - both[answer]).abs().max() <= 2e-5
    with torch.no_grad():
        assert torch.equal(model(x), both[answer])


@pytest.mark.parametrize("answers", ["residual", "plain", "skip"])
@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_one_answer_is_exact_in_chunks(answers, norm):
    model = lively(**TINY, answers=answers, norm=norm, bias=True)
    x = torch.rand(1, 3, 37, 50)
    with torch.no_grad():
        expected = model(x)
    assert expected.std() > 0.05 and (in_chunks(model, x, 8) - expected).abs().max() <= 2e-5


def test_tiles_are_not():
    """Each would have its own matrices: what makes the exact walk necessary."""
    model = lively(**TINY)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert (model(x[..., :32]) - model(x)[..., :32])[..., :16].abs().max() > 1e-3


def test_phases_give_what_the_inverse_transform_would():
    """Parseval: products of unit spectra are those of the maps that have them, whose norm is 1."""
    for height, width in ((8, 10), (7, 9), (1, 4)):
        x = torch.rand(2, height, width, 3, dtype=torch.float64).float()
        maps = torch.fft.ifft2(torch.exp(1j * torch.fft.fft2(x.permute(0, 3, 1, 2).double()).angle())).real.flatten(2)
        assert maps.norm(dim=2).sub(1).abs().max() < 1e-6  # so that normalising changes nothing
        phases = _phases(x, height, width)
        assert (phases @ phases.mT - (maps @ maps.mT).float()).abs().max() < 1e-5


def test_the_gate_of_the_paper_is_constant_and_ours_is_not():
    """The mean of a map of phases alone is its DC part: plus or minus 1 / pixels, which no sigmoid tells from 0."""
    x = torch.rand(1, 64, 64, 16)
    maps = torch.fft.ifft2(torch.sgn(torch.fft.fft2(x.permute(0, 3, 1, 2)))).real
    assert maps.mean((2, 3)).abs().max() <= 1.01 / 64**2
    model = lively(**TINY, gates=True)
    gates = [model.gate_level1(x[..., :8].sum((1, 2)) * scale, 64 * 64) for scale in (1.0, 2.0)]
    assert (gates[0] - gates[1]).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["channel", "phase"])
def test_half_precision_stays_finite_and_near(dtype, attention):
    model = lively(**TINY, attention=attention, gates=True)
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", dtype):
            picture = model(x).float()
    assert picture.isfinite().all() and (picture - expected).abs().mean() < 0.05 * expected.std()


def test_gradients_reach_every_parameter_with_and_without_checkpointing():
    arguments = {**TINY, "gates": True, "answers": "two", "attention": "phase"}
    found = []
    for checkpointing in (False, True):
        model = lively(**arguments, checkpointing=checkpointing).train()
        low, high = model(torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1)))
        (low.square().mean() + high.square().mean()).backward()
        found.append([p.grad for p in model.parameters()])
        assert all(grad is not None and grad.abs().max() > 0 for grad in found[-1])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"norm": "batch"}, "norm 'batch' is none of WithBias, BiasFree"),
        ({"attention": "window"}, "attention 'window'"),
        ({"answers": "three"}, "answers 'three'"),
        ({"heads": (1, 2, 5, 8)}, r"heads\[2\] 5 does not divide the 192"),
        ({"blocks": (4,), "heads": (1,)}, "two levels or more"),
        ({"dim": 7}, "dim 7 is odd"),
        ({"ffn": 0.0}, "ffn 0.0"),
        ({"in_chans": 6}, "in_chans 6 and out_chans 3 differ"),
        ({"gates": "yes"}, "gates 'yes'"),
        ({"refinement": -1}, "refinement -1"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments, says):
    with pytest.raises(ValueError, match=says):
        Restormer(**arguments)


def test_what_cannot_be_run_is_refused():
    model = Restormer(**TINY, answers="two")
    with pytest.raises(ValueError, match="set the network's `answer`"):
        model.walk(torch.rand(1, 3, 8, 8), whole)
    with pytest.raises(ValueError, match="takes 3 channels, the picture has 1"):
        model(torch.rand(1, 1, 8, 8))
    phase = lively(**TINY, attention="phase")
    with pytest.raises(ValueError, match="need attention 'channel'"):
        in_chunks(phase, torch.rand(1, 3, 16, 16), 16, spans=8)


@pytest.mark.parametrize("size, span", [((40, 56), 24), ((33, 20), 16), ((16, 16), 16)])
def test_windows_of_statistics_are_those_of_tlc(size, span):
    """Brute force: attention in each window by itself, from maps of the whole picture; the mean where they overlap."""
    block = lively(**TINY).encoder_level1[0]
    x = torch.rand(1, *size, 8)
    attention, chunks = block.attn, Chunks(16, device=torch.device("cpu"), spans=span)
    with torch.no_grad():
        matrix = attention.matrix(x, block.norm1, chunks)
        mixed = chunks(lambda m, given: attention.mixed(m, given, block.norm1), x, reach=1, given=matrix)
        q, k, v = attention.projected(x, block.norm1, 0, 24).chunk(3, -1)
        total, seen = torch.zeros(1, *size, 8), torch.zeros(1, *size, 1)
        counts = [-(-side // span) for side in size]
        starts = [np.round(np.linspace(0, max(s - span, 0), n)).astype(int) for s, n in zip(size, counts, strict=True)]
        for top in starts[0]:
            for left in starts[1]:
                part = np.s_[:, top : top + span, left : left + span]
                a, b, c = (m[part].flatten(1, 2).mT for m in (q, k, v))  # (1, C, pixels)
                a, b = (torch.nn.functional.normalize(m, dim=-1) for m in (a, b))
                answer = (a @ b.mT * attention.temperature[0]).softmax(-1) @ c
                total[part] += answer.mT.unflatten(1, total[part].shape[1:3])
                seen[part] += 1
        expected = x + torch.nn.functional.linear(total / seen, attention.project_out.weight[:, :, 0, 0])
    assert seen.min() >= 1 and (mixed - expected).abs().max() <= 2e-6


def test_windows_as_large_as_the_picture_are_the_whole_and_smaller_ones_are_not():
    model = lively(**TINY, gates=True)
    x = torch.rand(1, 3, 45, 70)
    expected = in_chunks(model, x, 16)
    assert (in_chunks(model, x, 16, spans=72) - expected).abs().max() <= 2e-6
    assert (in_chunks(model, x, 16, spans=24) - expected).abs().max() > 1e-3
    steps = []
    in_chunks(model, x, 16, spans=24, before_each=lambda: steps.append(1))
    assert Chunks(16, device=torch.device("cpu"), spans=24).steps(model, x) == len(steps)
