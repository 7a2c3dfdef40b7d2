import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from srlib.experiments.other_tilers import TILERS


def local(x):
    """x2, looks 4 pixels far."""
    blurred = conv2d(x, torch.ones(3, 1, 9, 9) / 81, padding=4, groups=3)
    return interpolate(blurred + x, scale_factor=2, mode="nearest")


def far(x):
    return local(x) + x.mean((-2, -1), keepdim=True)


@pytest.mark.parametrize("size", [(70, 101), (33, 40), (20, 150)])
@pytest.mark.parametrize("name", TILERS)
def test_tiles_give_a_network_s_whole_picture_as_far_as_context_reaches(name, size):
    x = torch.rand(1, 3, *size)
    found = TILERS[name](local, x, 40, 2)
    apart = (found - local(x)).abs()
    assert found.shape == (1, 3, 2 * size[0], 2 * size[1])
    if "averaged" not in name:  # 10 and 16 pixels of context are more than the 4 that it looks
        assert apart.max() < 1e-5
    elif max(size) > 40:
        assert apart.max() > 1e-3  # what lacks context is averaged in


def test_whole_picture_statistics_differ_from_tile_to_tile():
    x = torch.rand(1, 3, 64, 64)
    x[..., :32] *= 0.2
    for name, tiler in TILERS.items():
        assert (tiler(far, x, 32, 2) - far(x)).abs().max() > 0.05, name
