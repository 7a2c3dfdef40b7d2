"""The context chosen for a picture is enough for all of it, not only where it was measured; and it is said how."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srlib.data.drawings import draw
from srlib.tiling.context import choose_halo
from srlib.tiling.plan import plan_tiles
from srlib.tiling.reach import Reach, find_reach
from srlib.tiling.tiled import tiled_apply


class Fading(nn.Module):
    """Looks far, and less and less: `blocks` residual convolutions, which also shift by windows of `window`."""

    def __init__(self, blocks=24, dim=6, window=1):
        super().__init__()
        self.window = window
        self.first, self.last = nn.Conv2d(3, dim, 3, padding=1), nn.Conv2d(dim, 3, 3, padding=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(blocks))
        with torch.no_grad():
            for convolution in self.convolutions:
                convolution.weight *= 2

    def forward(self, x):
        y = self.first(x)
        for convolution in self.convolutions:
            y = y + 0.5 * F.leaky_relu(convolution(y), 0.2)
        if self.window > 1:
            y = y + F.avg_pool2d(y, self.window).repeat_interleave(self.window, 2).repeat_interleave(self.window, 3)
        return 0.1 * self.last(y) + x


def picture(seed, height=192, width=224):
    return torch.from_numpy(draw(seed, height, width).copy()).permute(2, 0, 1)[None] / 255  # (1, 3, H, W)


def chosen(net, x, *, tile="auto", grid=1, **options):
    def plan(size, halo):
        return plan_tiles(*x.shape[-2:], tile=64 if size == "auto" else size, halo=halo, window=grid)

    return choose_halo(net, x, plan, scale=1, grid=grid, tile=tile, **options)


def differing(net, x, halo, grid=1, tile=32, **options):
    """(share of the 8-bit values of the whole picture that tiles change, PSNR against it)."""
    plan = plan_tiles(*x.shape[-2:], tile=tile, halo=halo, window=grid)
    tiles, _ = tiled_apply(net, x, plan, scale=1, batch=1, **options)
    whole = net(x)
    a, b = ((t.clamp(0, 1) * 255 + 0.5).floor() for t in (tiles, whole))
    return (a != b).double().mean().item(), -10 * math.log10((tiles - whole).square().mean().item() + 1e-30)


@pytest.mark.parametrize("grid", [1, 8])
@torch.no_grad()
def test_the_promise_holds_where_it_was_not_measured(grid):
    net = Fading(window=grid).eval()
    shares, halos = [], []
    for seed in range(4):
        x = picture(seed)
        choice = chosen(net, x, grid=grid)
        assert choice.enough and choice.differing == 0 and choice.places == 6 and choice.against >= 3 * choice.halo
        shares.append(differing(net, x, choice.halo, grid)[0])
        halos.append(choice.halo)
        assert differing(net, x, 0, grid)[0] > 1e-3  # context is needed
    other = differing(net, picture(9), max(halos), grid)[0]  # a picture that no choice has seen
    print(
        f"grid {grid}: contexts {halos} of a reach of 26; 8-bit values that differ from the whole picture: "
        + ", ".join(f"{share:.2%}" for share in [*shares, other])
    )
    assert max(*shares, other) < 1e-4 and max(halos) < 26


@torch.no_grad()
def test_a_bound_in_decibels_takes_less():
    net, x = Fading().eval(), picture(0)
    bounded, equal = chosen(net, x, decibels=60), chosen(net, x)
    assert bounded.enough and bounded.halo < equal.halo and 60 <= bounded.decibels < equal.decibels
    assert differing(net, x, bounded.halo, tile=64)[1] >= 60


@torch.no_grad()
def test_the_reach_where_it_is_cheap():
    net, x = Fading(blocks=6).eval(), picture(0)
    reach = find_reach(net)
    choice = chosen(net, x, reach=reach)
    assert (choice.halo, choice.exact, choice.places) == (8, True, 0) == (reach.halo, True, 0)
    assert str(choice) == "context 8: the network's reach"
    assert differing(net, x, choice.halo)[1] > 140
    far = chosen(net, picture(0, 256, 320), tile=32, reach=Reach(1, 100, 100, 1, False, {}))
    assert far.halo <= 16 and far.places and "the reach, 100, would have " in str(far)


@torch.no_grad()
def test_where_nothing_less_is_enough_it_is_the_reach_or_said():
    def net(x):  # every pixel within 30 counts as much as any
        return F.avg_pool2d(x, 61, 1, 30)

    x = picture(0)
    plain, known = chosen(net, x, tile=32), chosen(net, x, tile=32, reach=Reach(1, 30, 30, 1, False, {}))
    assert plain.halo == 32 and plain.enough and plain.places
    assert known.halo == 30 and known.exact and "as no less is enough" in str(known)
    everywhere = chosen(lambda x: x + x.cumsum(3) / 1000, picture(0, 64, 1600))
    assert not everywhere.enough and "the most that was tried, and not enough" in str(everywhere)


class Averaging(nn.Module):
    """A far look, and the mean of the whole picture."""

    def __init__(self):
        super().__init__()
        self.far = Fading(blocks=12)

    def forward(self, x):
        return self.far(x) * (0.5 + x.mean((2, 3), keepdim=True))


@torch.no_grad()
def test_statistics_of_the_whole_picture_are_shared_or_said_to_be_in_the_way():
    net, x = Averaging().eval(), picture(1, 256, 320) * torch.linspace(0.3, 1, 320)
    reach = find_reach(net)
    assert reach.whole and reach.statistics == {"means": 1}
    shared = chosen(net, x, tile=32, statistics="two_pass", reach=Reach(**{**vars(reach), "halo": 100}))
    assert shared.enough and shared.halo <= 24 and "statistics of the whole picture" in str(shared)
    assert differing(net, x, shared.halo, statistics="two_pass")[0] < 1e-4
    local = chosen(net, x, tile=32, reach=reach)  # measured with each tile's own means, which are much worse
    assert (local.halo, local.reason) == (192, "every tile reads the whole picture") and local.exact
    local = chosen(net, picture(1, 64, 1600) * torch.linspace(0.3, 1, 1600), tile=32, reach=reach)
    assert not local.enough and not local.exact and local.places
    assert "statistics of the whole picture keep tiles from agreeing exactly" in str(local)


@torch.no_grad()
def test_a_picture_of_one_tile_needs_no_choice_and_the_choice_is_the_same_each_time():
    net = Fading(blocks=4).eval()
    assert str(chosen(net, picture(0, 48, 40))) == "context 8: the picture is one tile"
    everywhere = chosen(lambda x: x + x.cumsum(3) / 1000, picture(0, 64, 160), tile=32)
    assert everywhere.exact and everywhere.halo >= 64 and "every tile reads the whole picture" in str(everywhere)
    assert chosen(net, picture(2), seed=3) == chosen(net, picture(2), seed=3)
