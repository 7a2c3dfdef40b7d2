"""DiffIR has the published counts and names; its second stage is exact in chunks and draws nothing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srlib.networks.checkpoints import load, load_diffir, load_model, save_model
from srlib.networks.diffir import CONFIGS, DiffIR, second_stage
from srlib.networks.walk import whole
from srlib.tiling.exact import Chunks

TINY = {"dim": 8, "blocks": (1, 1, 1, 1), "refinement": 1, "prior": 16, "encoder_blocks": 1}


def lively(stage: int = 2, **arguments) -> DiffIR:
    """With weights large enough that its answer depends on all of them."""
    torch.manual_seed(0)
    model = DiffIR(stage=stage, **{**TINY, **arguments}).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("G.") and "kernel" not in name:
                p.copy_(torch.randn_like(p) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5))
            elif p.ndim > 1:
                p *= 2
    return model


def test_counts_and_names_are_the_published_ones():
    first, second = (DiffIR(stage=stage, **CONFIGS["DiffIR"]) for stage in (1, 2))
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert (count(first), count(first.G), count(first.E)) == (26_742_206, 25_669_374, 1_072_832)
    assert (count(second), count(second.condition), count(second.denoise)) == (26_911_934, 1_045_184, 197_376)
    assert len(first.state_dict()) == 536
    assert sum(p.numel() for name, p in first.named_parameters() if ".kernel.0." in name) == 6_537_216
    names = {name for name, _ in second.named_parameters() if not name.startswith("G.")}
    layers = [0, *(f"{n}.body.{c}" for n in range(2, 7) for c in (0, 2)), 7, 9, 11]
    wanted = {f"condition.E.{n}.{w}" for n in layers for w in ("weight", "bias")}
    wanted |= {f"condition.mlp.{n}.{w}" for n in (0, 2) for w in ("weight", "bias")}
    wanted |= {f"denoise.resmlp.{n}.{w}" for n in ("0", "2.resmlp.0") for w in ("weight", "bias")}
    assert names == wanted


@torch.no_grad()
def test_multiply_adds_are_the_published_ones_less_what_the_folded_matrix_saves():
    model = DiffIR(stage=1).eval()
    x = torch.rand(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counted:
        model(x, x)
    saved = 0  # softmax(q k^T) v and the projection after it are one product here, but the matrix costs a little
    for level, blocks in (("encoder_level1", 3), ("encoder_level2", 5), ("encoder_level3", 6), ("latent", 6)):
        for stage in (level, level.replace("encoder", "decoder")) if level != "latent" else (level,):
            part = getattr(model.G, stage)
            dim, heads = part[0].attn.project_out.in_channels, len(part[0].attn.temperature)
            side = 64 // 2 ** ["1", "2", "3", "t"].index(level[-1])
            saved += blocks * (dim * dim // heads * side * side - dim * dim * dim // heads)
    dim = model.G.refinement[0].attn.project_out.in_channels
    saved += 4 * (dim * dim * 64 * 64 - dim**3)
    assert (counted.get_total_flops() / 2 + saved) * 16 / 1e9 == pytest.approx(121.1, rel=2e-3)


def test_the_steps_are_those_of_the_published_schedule():
    weights = torch.tensor(DiffIR(**TINY).denoise.weights)
    published = torch.tensor([[1, 0], [0.76519, 0.23025], [0.63627, 0.31526], [0.50593, 0.07421]])
    assert torch.allclose(weights, published, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 50), (64, 40), (1, 9)])
@torch.no_grad()
def test_exact_in_chunks_at_any_size(size):
    model, x = lively(), torch.rand(2, 3, *size)
    expected = model(x)
    height, width = (-(-side // 8) * 8 for side in size)
    picture = torch.full((2, 3, height, width), torch.nan)

    def put(piece, y, left):
        picture[:, :, y : y + piece.shape[1], left : left + piece.shape[2]] = piece.permute(0, 3, 1, 2)

    model.walk(x, Chunks(16, device=torch.device("cpu")), put)
    assert (expected - x).std() > 0.1
    assert (picture[:, :, : size[0], : size[1]] - expected).abs().max() <= 2e-5


@torch.no_grad()
def test_the_prior_matters_and_is_of_the_whole_picture():
    model, x = lively(), torch.rand(1, 3, 32, 64)
    changed = x.clone()
    changed[..., 40:] = 0
    near, far = (model(picture)[..., :8] for picture in (x, changed))
    assert (near - far).abs().max() > 1e-3  # 32 pixels away
    prior = model.prior(x)
    assert torch.equal(prior, model.prior(x))  # evaluation draws nothing
    model.train()
    assert not torch.equal(model.prior(x), model.prior(x))  # training does
    in_chunks = lively().prior(x, Chunks(8, device=torch.device("cpu")))
    assert torch.allclose(in_chunks, prior, atol=1e-6)


def test_the_first_stage_needs_the_ground_truth_and_the_second_does_not(tmp_path):
    first, x = lively(1), torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        one, other = (first(x, truth) for truth in (x, 1 - x))
    assert (one - other).abs().max() > 1e-4
    with pytest.raises(ValueError, match="reads the ground truth: to restore, load the second"):
        first(x)
    save_model(tmp_path / "first.safetensors", first)
    assert load_model(tmp_path / "first.safetensors", DiffIR).stage == 1
    with pytest.raises(ValueError, match="first.safetensors holds DiffIR's first stage, which reads the ground truth"):
        load(tmp_path / "first.safetensors")
    second = second_stage(first)
    assert all(torch.equal(a, b) for a, b in zip(first.G.parameters(), second.G.parameters(), strict=True))
    assert second(x).shape == x.shape


@torch.no_grad()
def test_an_untrained_network_gives_the_picture_back_and_its_blocks_are_awake():
    model, x = DiffIR(**CONFIGS["DiffIR, lite"]).eval(), torch.rand(1, 3, 32, 32)
    assert torch.equal(model(x), x)
    scale, shift = model.G.latent[0].attn.kernel(model.condition(x.permute(0, 2, 3, 1), whole)).chunk(2, 1)
    assert 0.7 < scale.mean() < 1.3 and shift.abs().mean() < 0.3


@pytest.mark.parametrize("stage", [1, 2])
@torch.no_grad()
def test_published_files_are_read(stage, tmp_path):
    model, x = lively(stage, encoder_blocks=2, blocks=(1, 2, 1, 1)), torch.rand(1, 3, 20, 30)
    state = model.state_dict()
    if stage == 2:  # theirs hold the diffusion a second time, and its constants
        again = {f"diffusion.{k}": v for k, v in state.items() if k.startswith("condition")}
        again |= {f"diffusion.model.{k[8:]}": v for k, v in state.items() if k.startswith("denoise")}
        state = {**state, **again, "diffusion.betas": torch.zeros(4)}
    torch.save({"params_ema": state}, tmp_path / "net.pth")
    if stage == 1:
        with pytest.raises(ValueError, match="first stage"):
            load(tmp_path / "net.pth")
    again = load_diffir(tmp_path / "net.pth", light=True)  # of either stage, to train on
    assert again.stage == stage and again.config["light"]
    assert all(torch.equal(a, again.state_dict()[name]) for name, a in model.state_dict().items())
    if stage == 1:
        return
    read = load(tmp_path / "net.pth")
    assert torch.equal(read.hat_model(x), model(x))
    assert (read.tiled(x, statistics="exact", tile=16)[0] - model(x)).abs().max() <= 2e-5
    assert read.tiled(x, tile=16, halo=8)[0].shape == x.shape  # tiles, each with its own prior


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"stage": 3}, "stage 3 is neither 1"),
        ({"prior": 30}, "prior 30 is not a multiple of 4"),
        ({"prior": 0}, "prior 0 must be a whole number of at least 4"),
        ({"steps": 0}, "steps 0 must be a whole number"),
        ({"encoder_blocks": -1}, "encoder_blocks -1"),
        ({"heads": (3, 2, 4, 8)}, "heads"),
    ],
)
def test_what_cannot_be_built_is_said(arguments, says):
    with pytest.raises(ValueError, match=says):
        DiffIR(**{**TINY, **arguments})


def test_a_prior_of_another_size_and_windows_are_refused():
    model = lively()
    with pytest.raises(ValueError, match="takes a prior of 16 numbers"):
        model.G(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="statistics over windows are for Restormer"):
        model.walk(torch.rand(1, 3, 16, 16), Chunks(8, device=torch.device("cpu"), spans=8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near(dtype):
    model, x = lively(), torch.rand(1, 3, 32, 32)
    expected = model(x)
    with torch.autocast("cpu", dtype=dtype):
        answer = model(x).float()
    assert answer.isfinite().all()
    assert (answer - expected).abs().mean() < 0.05 * expected.std()
