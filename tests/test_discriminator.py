import pytest
import torch

from srlib.discriminator import MultiScaleDiscriminator
from srlib.losses import ragan_d


def test_three_scales_each_half_the_size():
    maps = MultiScaleDiscriminator(channels=4)(torch.rand(2, 3, 96, 64))
    assert [m.shape[:2] for m in maps] == [(2, 1)] * 3
    assert [m.shape[2] for m in maps] == sorted({m.shape[2] for m in maps}, reverse=True)


def test_spectral_norm_holds():
    net = MultiScaleDiscriminator(channels=8).train()
    for _ in range(30):  # power iterations
        net(torch.rand(1, 3, 64, 64))
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)


def test_it_learns_to_tell_sharp_from_blurred():
    net = MultiScaleDiscriminator(channels=8).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

    def batch():
        real = torch.rand(4, 3, 64, 64)
        return real, torch.nn.functional.avg_pool2d(real, 3, 1, 1)

    for _ in range(40):
        real, fake = batch()
        loss = ragan_d(net(real), net(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = batch()
    assert loss < 0.3
    assert all(r.mean() > f.mean() for r, f in zip(net.eval()(real)[:1], net(fake)[:1], strict=True))


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match="at least 64 pixels a side"):
        MultiScaleDiscriminator(channels=4)(torch.rand(1, 3, 63, 80))
