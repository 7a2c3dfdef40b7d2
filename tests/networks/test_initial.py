"""An untrained HAT that starts as an interpolation upscales bilinearly, and learns everywhere."""

import pytest
import torch
import torch.nn.functional as F

from srlib.networks.hat import HAT
from srlib.networks.initial import rescaled, start_as_interpolation

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_untrained_network_interpolates_and_still_learns_everywhere(scale):
    model = start_as_interpolation(HAT(**TINY, upscale=scale))
    x = torch.rand(1, 3, 24, 24)
    out = model(x)
    steps = [2, 2] if scale == 4 else [scale]  # x4 is two doublings
    expected = x
    for s in steps:
        expected = F.interpolate(expected, scale_factor=s, mode="bilinear")
    inside = (..., slice(8, -8), slice(8, -8))  # at the border convolutions see zeros, not the repeated edge
    assert (out - expected)[inside].abs().max() < 1e-5

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves conv_last, then the gradient reaches everything behind it
        optimizer.zero_grad()
        (model(x) - torch.rand(1, 3, 24 * scale, 24 * scale)).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("narrow", [{"embed_dim": 2, "squeeze_factor": 2, "compress_ratio": 2}, {"num_feat": 5}])
def test_a_network_too_narrow_to_carry_the_picture_is_refused(narrow):
    with pytest.raises(ValueError, match="must be at least . to start as an interpolation"):
        start_as_interpolation(HAT(**{**TINY, **narrow}))


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 3), (2, 1), (1, 2)])
def test_weights_of_another_scale_are_taken_but_for_the_upsampler(before, after):
    hat = HAT(**TINY, upscale=before, img_range=255.0)
    other = rescaled(hat, after)
    assert other.config == {**hat.config, "upscale": after}
    assert other(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16 * after, 16 * after)
    old, new = hat.state_dict(), other.state_dict()
    assert all(torch.equal(weight, old[name]) for name, weight in new.items() if not name.startswith("upsample."))
