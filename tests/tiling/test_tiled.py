"""Plans are aligned and complete, stitching is exact, and a run survives what runs meet."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tilings import tiled
from torch import nn

from srlib.networks.hat import HAT
from srlib.tiling.plan import BLENDS, blend_weights, cut, plan_tiles
from srlib.tiling.seams import consistency
from srlib.tiling.tiled import Cancelled, auto_plan, tiled_apply


@st.composite
def plans(draw):
    window = draw(st.sampled_from([1, 4, 8, 16]))
    tile = window * draw(st.integers(1, 6))
    return {
        "height": draw(st.integers(1, 200)),
        "width": draw(st.integers(1, 200)),
        "tile": tile,
        "halo": window * draw(st.integers(0, 4)),
        "window": window,
        "offset": (window * draw(st.integers(0, tile // window - 1)), window * draw(st.integers(0, 3))),
    }


@given(plans())
@settings(deadline=None, max_examples=200)
def test_any_plan_is_aligned_complete_and_of_one_read_size(arguments):
    plan = plan_tiles(**arguments)
    for axis, size in ((plan.y, arguments["height"]), (plan.x, arguments["width"])):
        assert axis.cores[0] == 0 and axis.cores[-1] == size
        assert all(a < b <= a + axis.read for a, b in zip(axis.cores[:-1], axis.cores[1:], strict=True))
        assert len(set(axis.origins)) == len(axis.origins)
        assert axis.read == min(arguments["tile"] + 2 * arguments["halo"], axis.padded)
        for start, stop, origin in zip(axis.cores[:-1], axis.cores[1:], axis.origins, strict=True):
            assert origin % arguments["window"] == 0
            assert 0 <= origin <= max(start - arguments["halo"], 0)
            assert min(stop + arguments["halo"], axis.padded) <= origin + axis.read <= axis.padded


@given(plans(), st.integers(1, 4), st.sampled_from(BLENDS))
@settings(deadline=None, max_examples=200)
def test_blend_weights_sum_to_one_and_crop_writes_each_pixel_once(arguments, scale, blend):
    plan = plan_tiles(**arguments)
    total = torch.zeros(plan.y.padded * scale, dtype=torch.float64)
    for weight, origin in zip(blend_weights(plan.y, plan.halo, scale, blend), plan.y.origins, strict=True):
        total[origin * scale : (origin + plan.y.read) * scale] += weight
        if blend == "crop":
            assert set(weight.tolist()) <= {0.0, 1.0}
    assert torch.allclose(total[: plan.y.size * scale], torch.ones((), dtype=torch.float64))
    assert not total[plan.y.size * scale :].any()


@given(plans(), st.integers(1, 4), st.sampled_from(BLENDS), st.integers(1, 5))
@settings(deadline=None, max_examples=100)
def test_identity_model_gives_nearest_neighbour_upscaling(arguments, scale, blend, batch):
    x = torch.rand(1, 1, arguments.pop("height"), arguments.pop("width"))

    def upscale(t):
        return t.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    out, _ = tiled(upscale, x, scale=scale, blend=blend, batch=batch, **arguments)
    if blend == "crop":
        assert torch.equal(out, upscale(x))
    else:
        assert torch.allclose(out, upscale(x), atol=1e-6)


def nearest(t):
    return t.repeat_interleave(2, -1).repeat_interleave(2, -2)


@given(plans(), st.sampled_from(BLENDS), st.integers(1, 5))
@settings(deadline=None, max_examples=100)
def test_bands_handed_over_one_by_one_make_the_same_picture(arguments, blend, batch):
    x = torch.rand(2, 3, arguments.pop("height"), arguments.pop("width"))
    expected, _ = tiled(nearest, x, scale=2, blend=blend, batch=batch, **arguments)
    bands = []
    picture, _ = tiled(
        nearest, x, scale=2, blend=blend, batch=batch, out=lambda b, top: bands.append((top, b)), **arguments
    )
    assert picture is None
    assert [top for top, _ in bands] == [sum(b.shape[2] for _, b in bands[:i]) for i in range(len(bands))]
    assert torch.equal(torch.cat([b for _, b in bands], 2), expected)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
def test_the_picture_goes_to_a_memory_map(tmp_path, dtype):
    x = torch.rand(1, 3, 37, 50)
    out = np.memmap(tmp_path / "picture", dtype, "w+", shape=(1, 3, 74, 100))
    tiled(nearest, x, scale=2, tile=16, halo=8, window=8, blend="ramp", batch=2, out=out)
    expected = nearest(x).numpy()
    if dtype == "float32":
        assert np.allclose(out, expected, atol=1e-6)
    else:
        top = np.iinfo(dtype).max
        assert np.abs(out.astype(float) - expected * top).max() <= 0.51


def test_the_picture_goes_to_a_tensor():
    x = torch.rand(1, 3, 20, 20)
    for dtype, top, step in [(torch.float32, 1, 1e-6), (torch.uint8, 255, 0.51), (torch.int32, 2**31 - 1, 1000)]:
        out = torch.empty(1, 3, 40, 40, dtype=dtype)
        tiled(nearest, x, scale=2, tile=8, halo=0, out=out)
        assert (out.double() - nearest(x).double() * top).abs().max() <= step


def test_an_output_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"out must be \(1, channels, 16, 16\), not \(1, 3, 16, 8\)"):
        tiled(nearest, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, out=torch.empty(1, 3, 16, 8))


class OutOfMemory:
    """Upscales while no more than `most` pixels come at once and it has been called `calls` times."""

    def __init__(self, most: int, calls: int = 0):
        self.most, self.calls, self.seen = most, calls, []

    def __call__(self, t):
        self.seen.append(tuple(t.shape))
        if len(self.seen) > self.calls and t.shape[0] * t.shape[2] * t.shape[3] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return nearest(t)


def test_out_of_memory_at_a_later_tile_starts_the_whole_pass_again_smaller():
    x = torch.rand(1, 3, 96, 96)
    model = OutOfMemory(most=24 * 24, calls=3)  # tile 32: reads of 40 do not fit
    tops, rows = [], {}

    def take(band, top):
        tops.append(top)
        rows[top] = band

    options = {"scale": 2, "halo": 4, "batch": 2, "on_oom": "shrink"}
    picture, report = tiled(model, x, tile=16, **options)
    assert torch.equal(picture, nearest(x))
    assert report.batch == 1 and report.plan.tile == 16
    assert report.notes == ["out of memory with tile 16, batch 2: started again with batch 1"]
    model = OutOfMemory(most=24 * 24, calls=3)
    picture, report = tiled(model, x, tile=32, out=take, **options)
    assert report.plan.tile == 16 and len(report.notes) == 2 and report.notes[0] in str(report)
    assert tops.count(0) == 2  # it had begun, and began again
    assert torch.equal(torch.cat([rows[top] for top in tops[tops.index(0, 1) :]], 2), nearest(x))
    assert len({shape[2:] for shape in model.seen[-len(report.plan) :]}) == 1  # one plan, not a mixture


def test_a_batch_larger_than_the_plan_costs_no_restarts():
    picture, report = tiled(
        OutOfMemory(most=2 * 256), torch.rand(1, 3, 32, 32), scale=2, tile=16, halo=0, batch=64, on_oom="shrink"
    )
    assert report.batch == 2 and len(report.notes) == 1


def test_out_of_memory_is_raised_unless_shrinking_is_asked_for_and_when_nothing_is_left_to_shrink():
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(torch.OutOfMemoryError):
        tiled(OutOfMemory(0), x, scale=2, tile=16, halo=0)
    with pytest.raises(MemoryError, match="out of memory with one tile of 8, and there is no smaller plan"):
        tiled(OutOfMemory(0), x, scale=2, tile=16, halo=0, window=8, on_oom="shrink")


def test_other_errors_are_not_mistaken_for_memory():
    def broken(t):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        tiled(broken, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, on_oom="shrink")


def test_progress_counts_up_to_the_end_and_cancel_stops():
    x, seen = torch.rand(1, 3, 64, 48), []
    tiled(nearest, x, scale=2, tile=16, halo=0, batch=2, progress=lambda *p: seen.append(p))
    assert seen == [(i, 6) for i in range(1, 7)]
    calls, bands = [], []

    def model(t):
        calls.append(1)
        return nearest(t)

    stop = {"out": lambda _, top: bands.append(top), "cancel": lambda: len(calls) == 4}
    with pytest.raises(Cancelled, match="after 4 steps of 12"):
        tiled(model, x, scale=2, tile=16, halo=0, batch=1, **stop)
    assert len(calls) == 4 and bands == [0]


def test_auto_plan_reads_the_fewest_pixels_that_fit(monkeypatch):
    x = torch.rand(1, 3, 100, 200)
    cost = 3 * 4 * (1 + 4)  # bytes of a pixel in and four out; and what lies between

    def fitting(free: float) -> int:
        monkeypatch.setattr("srlib.tiling.tiled.free_bytes", lambda device: free)
        return auto_plan(nearest, x, halo=8, window=8).tile

    assert fitting(1e12) == 184  # with its context the whole picture: one tile
    small = fitting(2 * cost * 64 * 64)
    assert 8 <= small < 104 and small % 8 == 0
    assert fitting(4 * cost * 64 * 64) > small
    bare = auto_plan(nearest, x, halo=0, window=8)  # every tile reads as much: the one with the fewest seams
    plans = [plan_tiles(100, 200, tile=tile, halo=0, window=8) for tile in range(8, 201, 8)]
    assert bare.tile > 8 and len(bare) == min(len(p) for p in plans if p.memory(cost, 1) <= 2 * cost * 64 * 64)
    with pytest.raises(MemoryError, match="use a smaller halo"):
        fitting(1000)
    monkeypatch.undo()
    picture, report = tiled(nearest, x, scale=2, tile="auto", halo=8, window=8)
    assert torch.equal(picture, nearest(x)) and report.batch == 1


def test_autocast_runs_the_model_in_another_precision_and_returns_the_pictures():
    model, seen = nn.Conv2d(3, 3, 1), []
    model.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    picture, _ = tiled(model, torch.rand(1, 3, 16, 16), scale=1, tile=8, halo=0, dtype=torch.bfloat16)
    assert set(seen) == {torch.bfloat16} and picture.dtype == torch.float32


def test_mistakes_are_refused_at_the_door():
    x = torch.rand(1, 3, 8, 8)
    for wrong, message in [
        ({"on_oom": "retry"}, "'retry' is none of raise, shrink"),
        ({"batch": 0}, "at least one tile"),
        ({"x": x[0]}, r"x must be \(B, C, H, W\), not \(3, 8, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            tiled(nearest, **{"x": x, "scale": 2, "tile": 8, "halo": 0, **wrong})


def test_a_plan_for_another_picture_is_refused():
    with pytest.raises(ValueError, match="the plan is for 8x16 LR pixels, x has 8x8"):
        tiled_apply(nearest, torch.rand(1, 3, 8, 8), plan_tiles(8, 16, tile=8, halo=0), scale=2)


def test_unknown_statistics_and_models_without_a_walk_are_refused():
    with pytest.raises(ValueError, match="statistics 'global' is none of local, two_pass, exact"):
        tiled(nearest, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, statistics="global")
    with pytest.raises(ValueError, match="no walk"):
        tiled(nearest, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, statistics="exact")
    with pytest.raises(ValueError, match="nothing to share"):
        tiled(nearest, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, statistics="two_pass")
    hat = HAT(embed_dim=8, depths=(1,), num_heads=(2,), window_size=8, squeeze_factor=4)
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        tiled(hat, torch.rand(1, 3, 8, 8), scale=2, tile=8, halo=0, window=8, statistics="exact")


@given(plans())
@settings(deadline=None, max_examples=50)
def test_cut_equals_padding_the_picture_once(arguments):
    x = torch.rand(1, 1, arguments["height"], arguments["width"])
    plan = plan_tiles(**arguments)
    pads = (plan.x.padded - plan.x.size, plan.y.padded - plan.y.size)
    mode = "reflect" if pads[0] < plan.x.size and pads[1] < plan.y.size else "replicate"
    padded = torch.nn.functional.pad(x, (0, pads[0], 0, pads[1]), mode=mode)
    for number, read in enumerate(cut(x, plan, range(len(plan)))):
        i, j = divmod(number, len(plan.x.origins))
        y, c = plan.y.origins[i], plan.x.origins[j]
        assert torch.equal(read, padded[..., y : y + plan.y.read, c : c + plan.x.read])


@pytest.mark.parametrize("wrong", [{"tile": 20}, {"halo": 4}, {"offset": (3, 0)}, {"offset": (0, 9)}])
def test_off_the_window_grid_is_refused_with_the_remedy(wrong):
    with pytest.raises(ValueError, match="is not a multiple of the window 8.*try"):
        plan_tiles(64, 64, **{"tile": 32, "halo": 8, "window": 8, **wrong})
    with pytest.raises(ValueError, match="halo -8 must be at least 0"):
        plan_tiles(64, 64, tile=32, halo=-8, window=8)


def test_unknown_blend_is_named():
    with pytest.raises(ValueError, match="'average' is none of crop"):
        tiled(lambda t: t, torch.rand(1, 1, 8, 8), scale=1, tile=8, halo=0, blend="average")


def test_aligned_tiles_with_halo_agree_far_better_than_misaligned_ones():
    """The heart of the contract, on a random but not trivial HAT: alignment, then halo, bring agreement."""
    model = HAT(
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=8,
        squeeze_factor=4,
        compress_ratio=4,
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
        x = torch.rand(1, 3, 76, 90)
        whole = model(x)
        arguments = {"scale": 2, "tile": 32}
        none = consistency(tiled(model, x, halo=0, window=8, **arguments)[0], whole)
        aligned = consistency(tiled(model, x, halo=16, window=8, **arguments)[0], whole)
        misaligned = consistency(tiled(model, x, halo=20, **arguments)[0], whole)
        mean = consistency(tiled(model, x, halo=16, window=8, blend="mean", **arguments)[0], whole)
        one = consistency(tiled(model, x, scale=2, tile=96, halo=0, window=8)[0], whole)
    assert aligned > misaligned + 10
    assert aligned > none + 10
    assert aligned > mean + 10
    assert one > 120  # a single tile is the whole picture


def test_gradient_through_the_stitching_equals_the_untiled_one():
    """A model without context: tiling must be invisible to the gradient, too."""
    x = torch.rand(2, 3, 20, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 3, 20, 12, dtype=torch.float64)
    for blend in BLENDS:
        out, _ = tiled(torch.sin, x, scale=1, tile=8, halo=4, blend=blend)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
        assert torch.allclose(gradient, torch.cos(x) * weight)


def test_plan_says_beforehand_what_it_costs():
    plan = plan_tiles(128, 128, tile=64, halo=16, window=8)
    assert len(plan) == 4 and plan.overhead == 2.25 and plan.seams(2) == ([128], [128])
    assert plan.memory(100.0) == 96 * 96 * 100 and plan.memory(100.0, batch=9) == 4 * 96 * 96 * 100
    plan = plan_tiles(128, 128, tile=64, halo=32, window=8)  # every read is the whole picture: one tile, no seam
    assert len(plan) == 1 and plan.overhead == 1.0 and plan.seams(2) == ([], [])
