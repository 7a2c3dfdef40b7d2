"""Sharpened targets: steeper edges, untouched flats, and a mask that finds drawn lines."""

import pytest
import torch

from srlib.data.drawings import draw
from srlib.data.pictures import to_float
from srlib.data.sharpen import SHARPENERS, line_mask, sharpen_lines, unsharp


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


@pytest.mark.parametrize(("length", "kept"), [(31, 0), (32, 32)])
def test_components_under_32_pixels_are_dropped(length, kept):
    x = torch.ones(1, 1, 64, 64)
    x[..., 20, 5 : 5 + length] = 0
    assert line_mask(x).sum() == kept
    assert line_mask(x, smallest=1).sum() == length


def test_a_faint_line_is_no_line():
    x = torch.full((1, 1, 64, 64), 0.8)
    x[..., 20, :] = 0.4
    x[..., 40, :] = 0.7
    assert line_mask(x)[..., 20, :].all() and not line_mask(x)[..., 30:, :].any()


def test_lines_are_sharpened_three_times_and_the_rest_once():
    x = torch.full((1, 3, 96, 96), 0.8)
    x[..., 47:49, 10:86] = 0.4
    base, y = unsharp(x), sharpen_lines(x)
    line = y != base
    assert line[..., 47:49, 12:84].all() and not line[..., :40, :].any()
    assert torch.equal(y[line], unsharp(unsharp(base))[line])
    assert (y[line] < base[line]).all()


def test_a_drawing_has_lines():
    mask = line_mask(to_float(draw(0, 192, 192))[None])
    assert 0.005 < mask.float().mean() < 0.3


@pytest.mark.parametrize("name", ["unsharp", "lines"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 1, 16, 40), (1, 3, 5, 5), (1, 1, 1, 7)])
def test_any_patch_stays_in_range(name, shape):
    y = SHARPENERS[name](torch.rand(shape))
    assert y.shape == shape and y.min() >= 0 and y.max() <= 1
