"""Sharpened targets: steeper edges, untouched flats, and a mask that finds drawn lines."""

import pytest
import torch

from srlib.drawings import draw
from srlib.pictures import to_float
from srlib.sharpen import SHARPENERS, line_mask, unsharp


def soft_edge(size=96):
    x = torch.linspace(-1, 1, size)
    return (0.5 + 0.25 * torch.tanh(6 * x)).expand(1, 3, size, size).contiguous()


def test_edges_get_steeper_and_flats_stay():
    x = soft_edge()
    y = unsharp(x)
    assert y.diff(dim=-1).max() > 1.05 * x.diff(dim=-1).max()
    assert torch.equal(unsharp(torch.full((1, 3, 64, 64), 0.4)), torch.full((1, 3, 64, 64), 0.4))


def test_texture_below_the_threshold_stays():
    x = 0.5 + 5 / 255 * torch.rand(1, 3, 96, 96)
    assert torch.equal(unsharp(x), x)
    assert not torch.equal(unsharp(x, threshold=0.5), x)


def test_mask_marks_the_line_and_neither_gradient_nor_speck():
    x = torch.linspace(0.6, 1, 80).expand(1, 3, 80, 80).clone()
    x[..., 40:42, 10:70] = 0.1
    x[..., 10:12, 10:12] = 0.1
    mask = line_mask(x)
    assert mask[..., 40:42, 12:68].all()
    mask[..., 38:44, 8:72] = False
    assert not mask.any()


def test_a_drawing_has_lines():
    mask = line_mask(to_float(draw(0, 192, 192))[None])
    assert 0.005 < mask.float().mean() < 0.3


@pytest.mark.parametrize("name", ["unsharp", "lines"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 1, 16, 40), (1, 3, 5, 5)])
def test_any_patch_stays_in_range(name, shape):
    y = SHARPENERS[name](torch.rand(shape))
    assert y.shape == shape and y.min() >= 0 and y.max() <= 1
