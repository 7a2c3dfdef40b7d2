"""Reach, grid and whole-picture operations are those that a network's structure has, found by running it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_networks import strong
from tilings import tiled
from torch import nn

from srlib.networks.restormer import Restormer
from srlib.tiling.reach import find_reach


def spandrel(architecture, **arguments):
    """A network of spandrel, by its class's name."""
    from importlib import import_module

    pytest.importorskip("spandrel")
    name, _, kind = architecture.partition(".")
    return getattr(import_module(f"spandrel.architectures.{name}"), kind or name)(**arguments)


# What one NaN pixel showed of square pictures, the worst of four places (SCUNet has worse ones), in LR pixels; with
# whole-picture statistics, what the rest of the network reaches.
KNOWN = {
    "Compact 16": ({"num_feat": 4, "num_conv": 16}, "Compact", 18, 1, {}),
    "Compact 32": ({"num_feat": 4, "num_conv": 32}, "Compact", 34, 1, {}),
    "SPAN": ({"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}, "SPAN", 21, 1, {}),
    "DITN": ({"dim": 8}, "DITN", 58, 8, {}),
    "ESRGAN 6": ({"num_filters": 4, "num_blocks": 6}, "ESRGAN", 93.3, 1, {}),
    "ESRGAN 23": ({"num_filters": 4, "num_blocks": 23}, "ESRGAN", 348.3, 1, {}),
    "MoSR": ({"dim": 16}, "MoSR", 124, 1, {}),
    "SAFMN": ({"dim": 8}, "SAFMN", 130, 8, {}),
    "PLKSR": ({"dim": 8}, "PLKSR", 282, 1, {}),
    "RealPLKSR": ({"dim": 8}, "PLKSR.RealPLKSR", 310, 1, {"norms": 28}),
    "RCAN": ({"n_feats": 4, "reduction": 2}, "RCAN", 413.8, 1, {"means": 200}),
    "MoESR": ({"dim": 8, "upsample_dim": 8}, "MoESR", 668, 2, {}),
    "NAFNet": (
        {"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1] * 4},
        "NAFNet",
        279,
        16,
        {"means": 36},
    ),
    "SwinIR light": (
        {"embed_dim": 4, "depths": [6] * 4, "num_heads": [2] * 4, "window_size": 8, "upscale": 2}
        | {"upsampler": "pixelshuffledirect"},
        "SwinIR",
        103,
        8,
        {},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_figures_of_known_architectures(name):
    arguments, architecture, pixels, grid, statistics = KNOWN[name]
    found = find_reach(spandrel(architecture, **arguments).eval(), window=8 if grid == 8 else 1)
    assert (found.pixels, found.period, found.statistics) == (math.ceil(pixels), grid, statistics), found
    assert found.whole == bool(statistics) and not found.notes
    assert found.halo % grid == 0 and found.pixels - grid < found.halo < found.pixels + grid


def test_attention_between_channels_is_counted_and_the_rest_found():
    net = spandrel(
        "DAT",
        **{"embed_dim": 32, "split_size": [8, 16], "depth": [4], "num_heads": [2], "upscale": 2},
        **{"upsampler": "pixelshuffledirect", "expansion_factor": 1},
    )
    found = find_reach(net.eval(), window=16)
    assert found.whole and found.statistics == {"means": 4, "Gram matrices": 2} and found.period == 16
    assert 16 < found.pixels < 100


def test_our_own_restormer():
    net = Restormer(dim=8, blocks=(1, 1, 1, 1), heads=(1, 1, 1, 1), refinement=1).eval()
    found = find_reach(net, window=net.window)
    assert (found.pixels, found.halo, found.period) == (76, 72, 8) and found.whole
    assert found.statistics == {"Gram matrices": 8, "sums": 16}


def test_our_own_hat():
    net = strong(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=8)
    found = find_reach(net, window=8)
    assert found.period == 8 and found.scale == 2 and found.whole and found.statistics == {"means": 4}
    alone = find_reach(net)  # the window not given
    assert replace(alone, seconds=found.seconds) == found


def box(side, more=lambda x: x):
    """Means over `side` pixels, then `more`."""
    return lambda x: more(F.avg_pool2d(x, side, 1, side // 2))


def windowed(size):
    """Each window's pixels all depend on the window."""

    def more(x):
        H, W = x.shape[2:]
        x = F.pad(x, (0, -W % size, 0, -H % size))
        pooled = F.avg_pool2d(x, size).repeat_interleave(size, 2).repeat_interleave(size, 3)
        return (x * pooled)[..., :H, :W]

    return more


@pytest.mark.parametrize("size", [2, 6, 7, 8, 12, 16, 24])
def test_windows_of_any_size_are_found(size):
    found = find_reach(box(5, windowed(size)))
    assert (found.period, found.pixels, found.halo) == (size, size - 1 + 2, -(-2 // size) * size)


@pytest.mark.parametrize(("side", "window"), [(15, 1), (9, 8), (21, 8), (5, 12)])
def test_tiles_with_the_context_found_equal_the_whole_picture_and_with_less_they_do_not(side, window):
    """What it is for."""
    net = box(side, windowed(window))
    found = find_reach(net)
    x = torch.rand(1, 3, 100, 130)
    for halo, same in [(found.halo, True), (found.halo - found.period, False)]:
        picture, _ = tiled(net, x, scale=1, tile=4 * window, halo=halo, window=window, batch=1)
        inside = (..., slice(0, 88), slice(0, 120))  # the net and the plan pad differently
        assert ((picture - net(x))[inside].abs().max() < 1e-6) == same, halo


@torch.no_grad()
def test_so_it_is_for_a_network_whose_reach_no_tool_keeps():
    net = spandrel("ESRGAN", num_filters=4, num_blocks=3, scale=2).eval()
    found = find_reach(net)
    x = torch.rand(1, 3, 80, 160)
    picture, report = tiled(net, x, scale=found.scale, tile=16, halo=found.halo, batch=1)
    assert found.halo > 32 and len(report.plan) > 2
    assert (picture - net(x)).abs().max() <= 1e-6


def test_nan_that_gets_lost_is_noticed():
    found = find_reach(box(31, lambda x: x.nan_to_num(0.0)))
    assert found.pixels == 15 and found.whole is False
    assert "NaN gets lost" in found.notes[0]
    assert find_reach(lambda x: F.max_pool2d(x, 9, 1, 4)).pixels == 4
    assert find_reach(lambda x: x.clamp(0, 1)).pixels == 0


def test_a_reach_to_one_side_and_one_that_differs_between_axes():
    assert find_reach(lambda x: x + F.pad(x, (0, 9))[..., 9:]).pixels == 9
    found = find_reach(lambda x: F.avg_pool2d(x, (21, 3), 1, (10, 1)))
    assert (found.pixels, found.halo) == (10, 10) and "up and down" in found.notes[0]


def test_what_reaches_everywhere_in_a_way_unknown_is_said():
    found = find_reach(lambda x: x + x.sort(3).values.flip(3).cumsum(3))
    assert found.pixels is found.halo is found.whole is None and found.seen > 1000 and found.cost() is None
    assert "or more than 1311 LR pixels" in str(found) and "not known" in str(found)


def test_a_network_that_writes_into_its_input_is_given_copies():
    def net(x):
        x *= 255
        return F.avg_pool2d(x, 5, 1, 2)

    assert (found := find_reach(net)).pixels == 2 and not found.notes


def test_the_time_is_kept_to():
    found = find_reach(spandrel("ESRGAN", num_filters=4, num_blocks=23).eval(), seconds=0.5)
    assert found.seconds < 3 and found.halo is None
    assert "stopped after 0 s" in found.notes[-1] or "stopped after 1 s" in found.notes[-1]
    assert "context        none that is known" in str(found)


def test_the_words():
    found = find_reach(box(21, windowed(4)), channels=1)
    assert str(found).splitlines() == [
        "scale          1",
        "reach          13 LR pixels to each side",
        "grid           4: tiles begin at multiples of it",
        "whole picture  no",
        "context        12 LR pixels of it make tiles exact; tiles of 256 then read 1.2 pixels each",
    ]
    found = find_reach(lambda x: F.group_norm(x, 1))
    assert "whole picture  yes: 1 norms" in str(found) and "exact, the statistics aside" in str(found)


def test_what_it_cannot_run_is_refused():
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        find_reach(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="takes no pictures of 64x192 with 4 channels: .*3 channels"):
        find_reach(nn.Conv2d(3, 3, 1).eval(), channels=4)
    with pytest.raises(ValueError, match="64x192 pixels become 32x96"):
        find_reach(lambda x: F.avg_pool2d(x, 2))
    with pytest.raises(ValueError, match="its answer to noise is not finite"):
        find_reach(lambda x: x / 0)
