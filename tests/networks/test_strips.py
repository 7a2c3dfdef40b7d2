"""The eraser band by band is the eraser on the whole stitched picture; away from seams HAT stays to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tilings import tiled
from torch import nn

from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seam_map import near
from srlib.tiling.tiled import Execution

TINY = {"embed_dim": 8, "depths": (1,), "num_heads": (1,), "window_size": 8, "squeeze_factor": 4}


def erasing(scale=2, **arguments) -> TiledSR:
    """An eraser that changes a lot."""
    torch.manual_seed(scale)
    known = {"tile_size": 16, "tile_pad": 0, "channels": 8, "blocks": 1, "gains": [[0, 0.3], [16, 0.03]], "radius": 5}
    model = TiledSR(HAT(**TINY, upscale=scale), use_tiling=True, **{**known, **arguments}).eval()
    nn.init.normal_(model.out_conv.weight, std=0.5)
    return model


@given(
    st.sampled_from([1, 2, 3, 4]),
    st.tuples(st.integers(9, 70), st.integers(9, 70)),
    st.sampled_from([(16, 0), (16, 8), (32, 0), (24, 16), (8, 8)]),
    st.sampled_from(["crop", "ramp", "mean"]),
    st.integers(1, 200),
    st.integers(1, 9),
)
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_bands_equal_the_eraser_on_the_whole_picture(scale, size, tiles, blend, chunk, batch):
    model, x = erasing(scale), torch.rand(2, 3, *size)
    tile, halo = tiles
    plan = plan_tiles(*size, tile=tile, halo=halo, window=8)
    stitched, _ = tiled(model.hat_model, x, scale=scale, tile=tile, halo=halo, window=8, blend=blend)
    expected = model.erase(stitched, x, model.seen(plan), model.unit(halo))
    picture, report = model.tiled(x, tile=tile, halo=halo, blend=blend, chunk=chunk, batch=batch)
    assert report.plan == plan
    assert (picture - expected).abs().max() < 1e-5
    bands = []
    model.tiled(x, tile=tile, halo=halo, blend=blend, chunk=chunk, out=lambda band, _: bands.append(band.clone()))
    assert torch.equal(torch.cat(bands, 2), picture) or (torch.cat(bands, 2) - picture).abs().max() < 1e-5
    if blend == "crop":
        model.tile_size, model.tile_pad = tile, halo
        assert (model(x) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_away_from_seams_the_picture_is_hats_to_the_bit():
    model, x = erasing(), torch.rand(1, 3, 64, 80)
    plain = erasing(gains=[])
    picture, before = (m.tiled(x, tile=32, halo=0)[0] for m in (model, plain))
    counts = near(model.seen(plan_tiles(64, 80, tile=32, halo=0, window=8)))[0, 0]
    counts = counts.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(picture[..., ~counts], before[..., ~counts])
    assert (picture[..., counts] != before[..., counts]).float().mean() > 0.9


@torch.no_grad()
def test_where_nothing_is_tiled_or_the_context_is_larger_than_known_nothing_is_erased():
    model, x = erasing(), torch.rand(1, 3, 40, 48)
    hat = model.hat_model(x)
    assert torch.equal(model.whole(x), hat) and model.unit(24) == 0
    exact = {"tile": 16, "statistics": "exact"}
    assert torch.equal(model.tiled(x, **exact)[0], erasing(gains=[]).tiled(x, **exact)[0])
    assert torch.equal(*(m.tiled(x, tile=16, halo=24)[0] for m in (model, erasing(gains=[]))))
    model.use_tiling = False
    assert torch.equal(model(x), hat)


def test_units_between_known_halos_are_interpolated():
    model = erasing()
    assert model.unit(0) == pytest.approx(0.3) and model.unit(16) == pytest.approx(0.03)
    assert model.unit(8) == pytest.approx((0.3 * 0.03) ** 0.5)
    assert erasing(gains=[[8, 0.1]]).unit(0) == pytest.approx(0.1) and erasing(gains=[]).unit(0) == 0


@torch.no_grad()
def test_after_running_out_of_memory_the_smaller_tiles_seams_are_erased():
    model, x = erasing(), torch.rand(1, 3, 64, 64)
    expected, _ = model.tiled(x, tile=16)
    forward = model.hat_model.forward

    def full(y):
        if y.shape[-1] > 16:
            raise torch.OutOfMemoryError("full")
        return forward(y)

    model.hat_model.forward = full
    picture, report = model.tiled(x, tile=32, how=Execution(on_oom="shrink"))
    assert report.plan.tile == 16 and report.notes
    assert (picture - expected).abs().max() < 1e-6


def test_the_older_kind_is_said(tmp_path):
    model = erasing(radius=0)
    _, report = model.tiled(torch.rand(1, 3, 24, 24), tile=16)
    assert any("older kind" in note for note in report.notes)
    assert not any("older" in note for note in erasing().tiled(torch.rand(1, 3, 24, 24), tile=16)[1].notes)


@pytest.mark.parametrize(("tile", "most"), [(16, 1.01), (32, 1.01), (48, 1.01), (64, 0.75), (128, 0.4)])
@torch.no_grad()
def test_where_seams_lie_close_everything_is_computed_once_and_else_strips(tile, most, monkeypatch):
    """Of the picture's LR pixels, with what is looked at around each part."""
    model, x, seen = erasing(blocks=3), torch.rand(1, 3, 256, 256), []
    model.hat_model.forward = lambda tiles: tiles.repeat_interleave(2, -2).repeat_interleave(2, -1)
    erase = model.erase
    monkeypatch.setattr(
        model, "erase", lambda s, lr, *others: (seen.append(lr[0, 0].numel()), erase(s, lr, *others))[1]
    )
    model.tiled(x, tile=tile, halo=0, batch=64)
    assert 0.1 < sum(seen) / 256**2 < most
