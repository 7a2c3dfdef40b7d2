"""Plans for networks that pad in their own way: on the grid, and the last read ends where the picture ends."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import tiled_apply

small = st.integers(1, 5)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), small, small, st.integers(0, 3))
def test_reads_begin_on_the_grid_and_never_leave_the_picture(size, window, tiles, halos):
    plan = plan_tiles(size, 40, tile=tiles * window, halo=halos * window, window=window, own_padding=True)
    axis = plan.y
    assert axis.padded == size and all(origin % window == 0 for origin in axis.origins)
    assert axis.origins[0] == 0 and axis.origins[-1] + axis.read == size
    for start, stop, origin in zip(axis.cores[:-1], axis.cores[1:], axis.origins, strict=True):
        assert origin <= max(start - plan.halo, 0) and origin + axis.read >= min(stop + plan.halo, size)
    half = plan.halved()
    assert half is None or half.own_padding


def windowed(x: Tensor) -> Tensor:
    """Means over windows of 4, the picture padded with a value of its own at the right and bottom."""
    H, W = x.shape[-2:]
    padded = F.pad(x, (0, -W % 4, 0, -H % 4), value=7.0)
    return F.avg_pool2d(padded, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :H, :W]


def test_a_network_s_own_padding_is_kept():
    x = torch.rand(1, 3, 30, 41)
    for halo in (0, 4):
        own = plan_tiles(30, 41, tile=8, halo=halo, window=4, own_padding=True)
        assert len(own) > 8
        assert torch.allclose(tiled_apply(windowed, x, own, scale=1)[0], windowed(x))
        mirrored = plan_tiles(30, 41, tile=8, halo=halo, window=4)
        assert not torch.allclose(tiled_apply(windowed, x, mirrored, scale=1)[0], windowed(x))
