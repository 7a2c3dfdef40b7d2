"""Plans are aligned and complete, stitching is exact, and the seam metrics say what they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srlib.hat import HAT
from srlib.tiling import (
    BLENDS,
    blend_weights,
    consistency,
    plan_tiles,
    seam_gradient_ratio,
    seam_profile,
    seam_report,
    tiled_apply,
    worst_seam,
)


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
        assert all(a < b <= a + arguments["tile"] for a, b in zip(axis.cores[:-1], axis.cores[1:], strict=True))
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
def test_identity_model_gives_nearest_neighbour_enlargement(arguments, scale, blend, batch):
    x = torch.rand(1, 1, arguments.pop("height"), arguments.pop("width"))

    def nearest(t):
        return t.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    out, _ = tiled_apply(nearest, x, scale=scale, blend=blend, batch=batch, **arguments)
    if blend == "crop":
        assert torch.equal(out, nearest(x))
    else:
        assert torch.allclose(out, nearest(x), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"tile": 20}, {"halo": 4}, {"offset": (3, 0)}, {"offset": (0, 9)}, {"tile": 0}])
def test_off_the_window_grid_is_refused_with_the_remedy(wrong):
    with pytest.raises(ValueError, match="is not a multiple of the window 8.*try"):
        plan_tiles(64, 64, **{"tile": 32, "halo": 8, "window": 8, **wrong})


def test_unknown_blend_is_named():
    with pytest.raises(ValueError, match="'average' is none of crop"):
        tiled_apply(lambda t: t, torch.rand(1, 1, 8, 8), scale=1, tile=8, halo=0, blend="average")


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
        none = consistency(tiled_apply(model, x, halo=0, window=8, **arguments)[0], whole)
        aligned = consistency(tiled_apply(model, x, halo=16, window=8, **arguments)[0], whole)
        misaligned = consistency(tiled_apply(model, x, halo=20, **arguments)[0], whole)
        mean = consistency(tiled_apply(model, x, halo=16, window=8, blend="mean", **arguments)[0], whole)
        one = consistency(tiled_apply(model, x, scale=2, tile=96, halo=0, window=8)[0], whole)
    assert aligned > misaligned + 10
    assert aligned > none + 10
    assert aligned > mean + 10
    assert one > 120  # a single tile is the whole picture


def test_gradient_through_the_stitching_equals_the_untiled_one():
    """A model without context: tiling must be invisible to the gradient, too."""
    x = torch.rand(2, 3, 20, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 3, 20, 12, dtype=torch.float64)
    for blend in BLENDS:
        out, _ = tiled_apply(torch.sin, x, scale=1, tile=8, halo=4, blend=blend)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
        assert torch.allclose(gradient, torch.cos(x) * weight)


def test_metrics_by_hand():
    whole = torch.zeros(1, 1, 4, 8)
    whole[..., 4:] = 0.1  # the whole picture steps by 0.1 across column 4
    tiled = whole.clone()
    tiled[..., 4:] += 0.1
    seams = ([], [4])
    assert consistency(tiled, whole) == pytest.approx(-10 * torch.tensor(0.005).log10().item(), abs=1e-4)
    assert seam_gradient_ratio(tiled, whole, seams) == pytest.approx(4)
    assert seam_profile(tiled, whole, seams, 5)[:4].tolist() == pytest.approx([0.005**0.5] * 4)
    assert seam_profile(tiled, whole, seams, 5)[4].isnan()
    report = seam_report(tiled, whole, seams)
    assert report["max_difference"] == pytest.approx(0.1) and report["differing_share"] == 0.5
    assert consistency(whole, whole) == float("inf")


def test_worst_seam_is_found():
    whole = torch.zeros(1, 3, 128, 128)
    tiled = whole.clone()
    tiled[..., 60:70, 40:44] = 0.5  # on the seam at row 64
    tiled[..., 5:15, 100:120] = 1.0  # larger, but on no seam
    top, left = worst_seam(tiled, whole, ([64], []), crop=32)
    assert top == 48 and left <= 40 and left + 32 >= 44


def test_plan_says_beforehand_what_it_costs():
    plan = plan_tiles(128, 128, tile=64, halo=32, window=8)
    assert len(plan) == 4 and plan.overhead == 4.0 and plan.seams(2) == ([128], [128])
