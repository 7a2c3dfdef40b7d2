"""Gradients go where each stage wants them, and only there; the eraser starts as the identity."""

import pytest
import torch
from tilings import tiled

from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4}


def tiny(**arguments) -> TiledSR:
    arguments = {"channels": 8, "blocks": 2, "gains": [[8, 0.1]], **arguments}
    return TiledSR(HAT(**TINY), tile_size=16, tile_pad=8, **arguments)


def test_eraser_starts_as_the_identity():
    model = tiny().eval()
    x = torch.rand(1, 3, 40, 24)
    assert torch.equal(model(x), model.hat_model(x))
    model.use_tiling = True
    assert torch.equal(model(x), tiled(model.hat_model, x, scale=2, tile=16, halo=8, window=8)[0])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_erase_nearly_the_same(kind):
    torch.manual_seed(0)
    model, x = load("small", use_tiling=True, tile_size=32, tile_pad=0), torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        exact, half = model.tiled(x)[0], model.to(kind).tiled(x.to(kind))[0]
    assert model.unit(0) > 0 and (half - exact).abs().max() < 0.05


def test_stage_2_gradients_reach_hat_and_eraser_through_the_stitching():
    model = tiny(use_tiling=True).train()
    torch.nn.init.normal_(model.out_conv.weight, std=0.1)  # while it is zero nothing behind it can learn
    model(torch.rand(2, 3, 40, 48)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_stage_3_trains_the_eraser_and_nothing_else():
    model = tiny(use_tiling=True).freeze_hat().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.rand(1, 3, 48, 48)) - 0.5).square().mean().backward()
        optimizer.step()
    assert not model.hat_model.training and model.residual_block.training
    assert all(p.grad is None for p in model.hat_model.parameters())
    for name, value in model.state_dict().items():
        same = torch.equal(value, before[name])
        assert same == name.startswith(("hat_model.", "eraser_facts")), name


def test_training_draws_the_grid_and_evaluation_does_not():
    model = tiny(use_tiling=True)
    model.tile_pad = 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert len({model.train()(x).sum().item() for _ in range(20)}) > 1
        assert len({model.eval()(x).sum().item() for _ in range(5)}) == 1
        assert torch.allclose(model(x), model.tiled(x)[0], atol=1e-6)
    assert model.tiled(x)[1].seams == ([32, 64, 96], [32, 64, 96])


def test_tile_batches_change_memory_not_the_picture():
    model = tiny(use_tiling=True).eval()
    x = torch.rand(1, 3, 50, 30)
    expected = model(x)
    model.tile_batch = 3
    assert torch.allclose(model(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"tile_size": 20}, "tile_size 20 is not a multiple of the window 8.*try 16 or 24"),
        ({"tile_pad": 5}, "tile_pad 5 is not a multiple of the window 8.*try 0 or 8"),
        ({"tile_size": 0}, "tile_size 0 must be a whole number of at least 8"),
        ({"tile_size": 16.0}, "tile_size 16.0 must be a whole number"),
        ({"tile_pad": -8}, "tile_pad -8 must be a whole number of at least 0"),
        ({"tile_choices": (16, 20)}, "tile_choices: tile_size 20 is not a multiple"),
        ({"tile_choices": 16}, "tile_choices 16 must be a list"),
        ({"tile_batch": 0}, "tile_batch 0 must be a whole number of at least 1"),
        ({"channels": 0}, "channels 0 must be a whole number of at least 1"),
        ({"blocks": -1}, "blocks -1 must be a whole number of at least 0"),
        ({"use_tiling": "no"}, "use_tiling 'no' must be True or False"),
        ({"radius": -1}, "radius -1 must be a whole number of at least 0"),
        ({"sees": ["hr"]}, r"sees \['hr'\] must be a list of seams, lr"),
        ({"sees": "lr"}, "sees 'lr' must be a list"),
        ({"gains": [0.1]}, r"gains \[0.1\] must be a list of pairs of numbers"),
        ({"gains": [[0, -0.1]]}, "must be a list of pairs of numbers, .* not negative"),
    ],
)
def test_what_it_cannot_run_with_is_refused_at_the_door(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        TiledSR(HAT(**TINY), **{"tile_size": 16, "tile_pad": 8, **wrong})


@pytest.mark.parametrize("window", [4, 8, 12, 20])
def test_the_default_tiles_lie_on_any_window_grid(window):
    model = TiledSR(HAT(**{**TINY, "window_size": window}), use_tiling=True, blocks=0).eval()
    assert model.tile_size % window == model.tile_pad % window == 0 and 64 <= model.tile_size < 64 + window
    assert model(torch.rand(1, 3, 30, 30)).shape == (1, 3, 60, 60)


def test_auto_leaves_room_for_as_many_tiles_as_go_through_at_once(monkeypatch):
    model, x = tiny().eval(), torch.rand(1, 3, 64, 96)
    monkeypatch.setattr("srlib.tiling.tiled.free_bytes", lambda device: 2e7)
    sizes = [model.tiled(x, tile="auto", halo=8, batch=batch)[1].plan.y.read for batch in (1, 4)]
    assert sizes[1] < sizes[0]
    with pytest.raises(ValueError, match="batch 0: at least one tile"):
        model.tiled(x, batch=0)
    with pytest.raises(ValueError, match="tile 'large' is neither a number of LR pixels nor \"auto\""):
        model.tiled(x, tile="large")


def test_parameters_of_an_eraser_that_erases_nothing_do_not_count():
    model = TiledSR(HAT(**TINY, upscale=2), gains=[[0, 0.1]])
    own, hat = (sum(p.numel() for p in part.parameters()) for part in (model, model.hat_model))
    assert model.used_parameters() == hat < own
    torch.nn.init.ones_(model.out_conv.weight)
    assert model.used_parameters() == own
    model.gains = []
    assert model.used_parameters() == hat
