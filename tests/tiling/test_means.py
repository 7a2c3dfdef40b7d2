"""Statistics of the whole picture are seen however a network takes them, and tiles that share them agree better."""

import pytest
import torch
import torch.nn.functional as F
from tilings import tiled
from torch import nn

from srlib.tiling.picture_sums import frame_factor
from srlib.tiling.seams import consistency


class Once(nn.Module):
    """A network that takes one statistic of the picture, so that two passes give the whole picture's answer."""

    def __init__(self, take):
        super().__init__()
        self.take = take
        self.weight, self.bias = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.rand(4))

    def forward(self, x):
        return self.take(self, torch.cat([x, x[:, :1] * x[:, 1:2]], 1))  # (N, 4, H, W)


def channels_last(x):
    x = x.permute(0, 2, 3, 1)
    return (x * x.mean((1, 2), keepdim=True)).permute(0, 3, 1, 2)


def divided(x):
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-3).sqrt()


TAKEN = {
    "module": lambda net, x: x * nn.AdaptiveAvgPool2d(1)(x),
    "pool": lambda net, x: x * F.adaptive_avg_pool2d(x, (1, 1)),
    "mean of two sides": lambda net, x: x * x.mean((2, 3), keepdim=True),
    "mean without sides": lambda net, x: x * torch.mean(x, dim=[-1, -2])[..., None, None],
    "mean of all": lambda net, x: x * x.mean(dim=(1, 2, 3), keepdim=True),
    "channels last": lambda net, x: channels_last(x),
    "var": lambda net, x: x / x.var((2, 3), keepdim=True),
    "var, biased": lambda net, x: x / x.var((2, 3), unbiased=False, keepdim=True),
    "std": lambda net, x: x / torch.std(x, (2, 3), keepdim=True),
    "var_mean": lambda net, x: divided(x),
    "group_norm": lambda net, x: F.group_norm(x, 2, net.weight, net.bias),
    "GroupNorm": lambda net, x: nn.GroupNorm(4, 4, affine=False)(x),
    "InstanceNorm2d": lambda net, x: nn.InstanceNorm2d(4)(x),
    "instance_norm": lambda net, x: F.instance_norm(x, weight=net.weight, bias=net.bias),
    "of features": lambda net, x: x * F.avg_pool2d(x, 2).mean((2, 3), keepdim=True),
    "of larger features": lambda net, x: x * F.interpolate(x, scale_factor=2).mean((2, 3), keepdim=True),
}


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_one_statistic_shared_is_the_whole_pictures(taken, batch):
    net = Once(TAKEN[taken]).eval()
    x = torch.rand(2, 3, 50, 66) * torch.linspace(0.1, 1, 66)  # tiles differ
    if taken in ("of features", "of larger features"):
        x = x[..., :48, :64]
    whole = net(x)
    options = {"scale": 1, "tile": 16, "halo": 16, "batch": batch}
    local, _ = tiled(net, x, **options)
    shared, _ = tiled(net, x, statistics="two_pass", **options)
    assert (local - whole).abs().max() > 0.02  # the test could fail
    assert (shared - whole).abs().max() < 2e-5


@torch.no_grad()
def test_means_of_windows_and_of_what_is_already_a_mean_are_the_tiles_own():
    def windows(x):
        parts = F.unfold(x, 8, stride=8).transpose(1, 2).reshape(-1, 3, 8, 8)  # (N*windows, 3, 8, 8)
        parts = parts * parts.mean((2, 3), keepdim=True)
        flat = parts.reshape(len(x), -1, 3 * 64).transpose(1, 2)
        y = F.fold(flat, x.shape[2:], 8, stride=8)
        return y + F.adaptive_avg_pool2d(x, 1).mean((2, 3), keepdim=True)

    x = torch.rand(1, 3, 48, 64)
    shared, _ = tiled(windows, x, scale=1, tile=16, halo=8, window=8, batch=2, statistics="two_pass")
    assert (shared - windows(x)).abs().max() < 1e-5


def test_what_is_no_picture_has_no_factor():
    assert [frame_factor(f, (48, 96)) for f in [(48, 96), (24, 48), (96, 192), (3, 6), (144, 288), (64, 96)]] == [
        *(1, 1 / 2, 2, 1 / 16, 3, 1),
    ]
    assert not any(frame_factor(f, (48, 96)) for f in [(8, 8), (16, 16), (1, 1), (48, 8)])
    assert frame_factor((31, 62), (63, 125)) == frame_factor((32, 63), (63, 125)) == 1 / 2  # rounded down, or up


class Normed(nn.Module):
    """A shallow kind of RealPLKSR: blocks of a large convolution and a norm over groups and the picture."""

    def __init__(self, blocks=4, dim=8):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, dim, 3, padding=1), nn.Conv2d(dim, 3, 3, padding=1)
        self.mixers = nn.ModuleList(nn.Conv2d(dim, dim, 7, padding=3) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.GroupNorm(2, dim) for _ in range(blocks))

    def forward(self, x):
        y = self.first(x)
        for mix, norm in zip(self.mixers, self.norms, strict=True):
            y = y + norm(F.mish(mix(y)))
        return self.last(y)


@torch.no_grad()
def test_each_further_pass_comes_nearer():
    net = Normed().eval()
    x = torch.rand(1, 3, 128, 96) * torch.linspace(0, 1, 96)
    whole = net(x)
    options = {"scale": 1, "tile": 32, "halo": 16, "batch": 1}
    found = [consistency(tiled(net, x, **options)[0], whole)]
    for passes in (2, 3, 4, 5):
        picture, report = tiled(net, x, statistics="two_pass", passes=passes, **options)
        found.append(consistency(picture, whole))
        assert report.passes == passes
    print("local, and 2 to 5 passes:", *(f"{tc:.1f}" for tc in found), "dB")
    assert all(more > less + 5 for less, more in zip(found[:-1], found[1:], strict=True)), found
    with pytest.raises(ValueError, match="passes 1: 'two_pass' takes 2 or more"):
        tiled(net, x, passes=1, **options)


def network(name):
    """(network, scale, grid) of spandrel: its kind, less deep."""
    pytest.importorskip("spandrel")
    if name == "RealPLKSR":
        from spandrel.architectures.PLKSR import RealPLKSR

        return RealPLKSR(dim=8, n_blocks=6, upscaling_factor=2), 2, 1
    if name == "NAFNet":
        from spandrel.architectures.NAFNet import NAFNet

        net = NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1, 1, 1, 4], dec_blk_nums=[1, 1, 1, 1])
        for key, parameter in net.named_parameters():
            if key.endswith(("beta", "gamma")):  # zero: the blocks would do nothing
                nn.init.constant_(parameter, 0.5)
        return net, 1, 16
    from spandrel.architectures.RCAN import RCAN

    net = RCAN(scale=2, n_feats=8, reduction=4, n_resgroups=2, n_resblocks=4)
    for key, parameter in net.named_parameters():
        if "conv_du" in key:
            parameter *= 3  # so that the means count
    return net, 2, 1


@pytest.mark.parametrize("name", ["RealPLKSR", "NAFNet", "RCAN"])
@torch.no_grad()
def test_two_pass_repairs_other_networks(name):
    net, scale, grid = network(name)
    net = net.eval()
    x = torch.rand(1, 3, 192, 256) * torch.linspace(0, 1, 256)
    whole = net(x.clone())
    size = whole.max() - whole.min()
    options = {"scale": scale, "tile": 64, "halo": 64, "window": grid, "batch": 1}
    found = {"local": tiled(net, x, **options)[0]}
    found |= {n: tiled(net, x, statistics="two_pass", passes=n, **options)[0] for n in (2, 3, 4)}
    found = {way: consistency(picture / size, whole / size) for way, picture in found.items()}
    print(name, *(f"{way}: {tc:.1f}" for way, tc in found.items()))
    assert found[2] > found["local"] + 6 and found[3] > found[2] + 8, found


def test_a_network_without_statistics_is_told_after_one_tile():
    calls = []

    def net(x):
        calls.append(len(x))
        return x.amax((2, 3), keepdim=True) * x

    with pytest.raises(ValueError, match="two_pass finds no mean, variance or norm over the picture in function"):
        tiled(net, torch.rand(1, 3, 64, 64), scale=1, tile=16, halo=0, batch=1, statistics="two_pass")
    assert calls == [1]
