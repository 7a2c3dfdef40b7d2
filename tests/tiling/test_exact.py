"""The exact walk equals the whole forward to rounding, at any depth; two_pass comes near where local does not."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import strong
from tilings import tiled
from torch import nn

from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.tiling.memory import LiveBytes
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seams import consistency
from srlib.tiling.tiled import Cancelled, Report, _shrink


@pytest.mark.parametrize("window", [8, 16])
@torch.no_grad()
def test_exact_equals_the_whole_forward_36_blocks_deep(window):
    model = strong(embed_dim=12, depths=(6,) * 6, num_heads=(2,) * 6, window_size=window)
    x = torch.rand(1, 3, 45, 71)
    whole = model(x)
    assert whole.std() > 0.3  # not a trivial network
    picture, report = tiled(model, x, scale=2, tile=16, halo=0, window=window, statistics="exact")
    assert (picture - whole).abs().max() <= 2e-5
    local, _ = tiled(model, x, scale=2, tile=16, halo=16, window=window)
    assert (local - whole).abs().max() > 2e-3  # which tiles with a window of context do not reach
    assert len(report.plan) == 15 and report.seams == ([32, 64], [32, 64, 96, 128])


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([8, 16, 24, 64]), st.sampled_from([1, 2, 3, 4]))
@settings(deadline=None, max_examples=25)
def test_exact_at_any_size_chunk_and_scale(height, width, chunk, scale):
    model = strong(embed_dim=8, depths=(2,), num_heads=(2,), window_size=8, upscale=scale)
    x = torch.rand(2, 3, height, width)
    with torch.no_grad():
        whole = model(x)
    bands = []
    picture, _ = tiled(model, x, scale=scale, tile=chunk, halo=0, window=8, statistics="exact")
    options = {"tile": chunk, "halo": 0, "window": 8, "statistics": "exact"}
    tiled(model, x, scale=scale, out=lambda band, _: bands.append(band), **options)
    assert torch.equal(torch.cat(bands, 2), picture)
    assert (picture - whole).abs().max() <= 2e-5


def test_features_may_lie_in_host_memory_or_on_disk(tmp_path):
    model = strong(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=8)
    x = torch.rand(1, 3, 40, 40)
    options = {"scale": 2, "tile": 16, "halo": 0, "window": 8, "statistics": "exact"}
    expected, _ = tiled(model, x, **options)
    for features in ("host", str(tmp_path)):
        picture, report = tiled(model, x, features=features, **options)
        assert torch.equal(picture, expected) and report.features == features
    assert not os.listdir(tmp_path)


def test_no_room_on_the_disk_is_an_error_and_not_a_crash(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    model = strong(embed_dim=8, depths=(2,), num_heads=(2,), window_size=8)
    options = {"scale": 2, "tile": 16, "halo": 0, "window": 8, "statistics": "exact", "features": str(tmp_path)}
    with pytest.raises(OSError, match=r"features .*: no room for a map of .* MiB \(No space left"):
        tiled(model, torch.rand(1, 3, 20, 20), **options)
    assert not os.listdir(tmp_path)


def test_maps_too_large_for_a_gpu_go_to_host_memory_and_chunks_keep_their_size():
    report = Report(plan_tiles(64, 64, tile=32, halo=0, window=8), 2, "exact", "crop", 1)
    host = _shrink(report, torch.device("cuda"))
    assert (host.features, host.plan.tile) == ("host", 32) and "features in host memory" in host.notes[0]
    assert _shrink(host, torch.device("cuda")).plan.tile == 16
    assert _shrink(report, torch.device("cpu")).plan.tile == 16


def test_exact_needs_a_fraction_of_the_memory():
    model = strong(embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=8)
    x = torch.rand(1, 3, 192, 192)
    peaks = []
    for run in (
        lambda: model(x),
        lambda: tiled(model, x, scale=2, tile=32, halo=0, window=8, statistics="exact"),
    ):
        with torch.no_grad(), LiveBytes() as memory:
            run()
        peaks.append(memory.peak)
    one_map = 192 * 192 * 16 * 4
    assert peaks[1] < 5.5 * one_map < 0.25 * peaks[0]


def test_exact_under_autocast_stays_near_the_whole_forward_under_autocast():
    model = strong(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=8, conv_scale=0.01)
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model(x).float()
    options = {"scale": 2, "tile": 16, "halo": 0, "window": 8, "statistics": "exact"}
    picture, _ = tiled(model, x, dtype=torch.bfloat16, **options)
    exact, _ = tiled(model, x, **options)
    seen = []
    tiled(model, x, dtype=torch.bfloat16, out=lambda *_: seen.append(torch.is_autocast_enabled("cpu")), **options)
    assert picture.dtype == torch.float32 and not any(seen)
    assert (picture - whole).abs().mean() < 2 * (whole - exact).abs().mean()


def test_exact_shrinks_its_chunks_when_memory_runs_out_and_can_be_cancelled():
    model = strong(embed_dim=8, depths=(2,), num_heads=(2,), window_size=8)
    x = torch.rand(1, 3, 48, 48)
    expected = model(x)

    def walk(picture, run, out=None):
        def guarded(step, *maps, **arguments):
            if run.size > 16:
                raise torch.OutOfMemoryError("out of memory")
            return run(step, *maps, **arguments)

        return HAT.walk(model, picture, guarded, out)

    seen = []
    model.walk = walk
    options = {"scale": 2, "tile": 48, "halo": 0, "window": 8, "statistics": "exact", "on_oom": "shrink"}
    picture, report = tiled(model, x, **options)
    assert (picture - expected).abs().max() <= 2e-5
    assert report.plan.tile == 8 and len(report.notes) == 2
    del model.walk
    tiled(model, x, progress=lambda *p: seen.append(p), **{**options, "tile": 16})
    assert seen[-1][0] == seen[-1][1] == len(seen) and seen[0][0] == 1
    with pytest.raises(Cancelled):
        tiled(model, x, cancel=lambda: True, **options)


@torch.no_grad()
def test_two_pass_comes_nearer_than_local_and_ends_without_hooks():
    model = strong(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=8)
    x = torch.rand(2, 3, 160, 128) * torch.linspace(0, 1, 128)  # tiles differ from the whole in their means
    whole = model(x)
    options = {"scale": 2, "tile": 32, "halo": 32, "window": 8, "batch": 4}
    local, _ = tiled(model, x, **options)
    two_pass, _ = tiled(model, x, statistics="two_pass", **options)
    assert consistency(two_pass, whole) > consistency(local, whole) + 20
    assert torch.equal(tiled(model, x, **options)[0], local)


@torch.no_grad()
def test_two_pass_is_exact_where_the_mean_is_all_that_tiles_miss():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            return x * self.pool(x)

    x = torch.rand(2, 3, 50, 34)
    picture, _ = tiled(Gated(), x, scale=1, tile=16, halo=8, batch=3, statistics="two_pass")
    assert torch.allclose(picture, Gated()(x), atol=1e-6)


@pytest.mark.parametrize(("blocks", "scale"), [(1, 2), (3, 2), (1, 1)])
@torch.no_grad()
def test_the_older_eraser_sees_across_tiles_and_bands(blocks, scale):
    hat = strong(embed_dim=8, depths=(2,), num_heads=(2,), window_size=8, upscale=scale)
    model = TiledSR(hat, tile_size=16, tile_pad=8, channels=8, blocks=blocks, radius=0).eval()  # the older kind
    nn.init.normal_(model.out_conv.weight, std=0.2)
    x = torch.rand(1, 3, 43, 61)
    exact, _ = model.tiled(x, tile=16, statistics="exact", chunk=24)
    assert (exact - model(x)).abs().max() <= 2e-5
    for blend in ("crop", "ramp"):
        stitched, _ = tiled(hat, x, scale=scale, tile=16, halo=8, window=8, blend=blend)
        bands = []
        whole, _ = model.tiled(x, blend=blend, chunk=24)
        model.tiled(x, blend=blend, batch=1, chunk=24, out=lambda band, _, bands=bands: bands.append(band))
        assert (whole - model.erase(stitched)).abs().max() <= 2e-5
        assert (torch.cat(bands, 2) - whole).abs().max() <= 2e-5
