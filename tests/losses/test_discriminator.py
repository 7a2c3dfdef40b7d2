"""The discriminator and its relativistic losses: they separate, they guide, and processes act as one."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srlib.data.drawings import draw
from srlib.data.resize import downscale, upscale
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.terms import ragan_d, ragan_g
from srlib.losses.total import TotalLoss
from srlib.losses.weights import LearnableWeights


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


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match="at least 64 pixels a side"):
        MultiScaleDiscriminator(channels=4)(torch.rand(1, 3, 63, 80))


def drawings(seeds) -> tuple[torch.Tensor, torch.Tensor]:
    """Sharp pictures (N, 3, 256, 256), and the same from a quarter of their size."""
    real = torch.from_numpy(np.stack([draw(seed, 256, 256) for seed in seeds])).permute(0, 3, 1, 2) / 255
    return real, upscale(downscale(real, 4), 4)


def crops(pictures, number: int, size: int = 96) -> list[torch.Tensor]:
    chosen = []
    for _ in range(number):
        i, top, left = (torch.randint(n, ()).item() for n in (len(pictures[0]), *[257 - size] * 2))
        chosen.append([p[i, :, top : top + size, left : left + size] for p in pictures])
    return [torch.stack(p) for p in zip(*chosen, strict=True)]


@pytest.fixture(scope="module")
def trained() -> MultiScaleDiscriminator:
    """150 steps of the discriminator's loss."""
    torch.manual_seed(0)
    net = MultiScaleDiscriminator(channels=8).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99))
    pictures = drawings(range(8))
    for _ in range(150):
        real, fake = crops(pictures, 8)
        loss = ragan_d(net(real), net(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unseen():
    return drawings(range(100, 106))


def answers(net, pictures) -> torch.Tensor:
    """(scale, picture): mean logits."""
    return torch.stack([m.mean((1, 2, 3)) for m in net(pictures)])


def test_it_learns_to_tell_sharp_from_blurred_at_every_scale(trained, unseen):
    real, fake = (answers(trained, p) for p in crops(unseen, 48))
    assert ((real - fake).mean(1) > 0.2).all()  # untrained: 0.01
    assert ((real > fake).float().mean(1) >= 0.9).all()  # the same picture, sharp and not
    others = (real[:, :, None] > fake[:, None]).float().mean((1, 2))  # any sharp one, any other
    assert (others > torch.tensor([0.9, 0.8, 0.65])).all()


def test_the_generators_loss_alone_moves_a_picture_towards_real(trained, unseen):
    real, fake = crops(unseen, 4)
    loss = TotalLoss(pixel=0.0, adversarial=1.0, discriminator=trained)
    picture = fake.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([picture], lr=2e-3)
    for _ in range(40):
        total, _ = loss(picture, real)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        r, before, after = (answers(trained, p) for p in (real, fake, picture))
        assert ragan_g(trained(real), trained(picture)) < ragan_g(trained(real), trained(fake)) - 0.1
    assert (after > before + 0.1 * (r - before).abs()).all()


def gan(rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Values and gradients of both losses on this process's part of one batch of four.

    As the training loop has it: gradients are averaged by DistributedDataParallel, which wraps both networks.
    """
    torch.manual_seed(3)
    generator, judge = nn.Conv2d(3, 3, 3, padding=1).double(), MultiScaleDiscriminator(channels=4).double()
    x, real = (torch.rand(4, 3, 64, 64, dtype=torch.float64) * torch.arange(1, 5).view(4, 1, 1, 1) for _ in range(2))
    x, real = (t.chunk(processes)[rank] for t in (x, real))
    wrap = DistributedDataParallel if processes > 1 else lambda network: network
    wrapped, wrapped_judge = wrap(generator), wrap(judge)
    fake = wrapped(x)
    loss_g, _ = TotalLoss(pixel=0.0, adversarial=1.0, discriminator=judge)(fake, real)
    loss_g.backward()
    assert all(p.grad is None for p in judge.parameters())
    loss_d = ragan_d(wrapped_judge(real), wrapped_judge(fake.detach()))
    loss_d.backward()
    weights = LearnableWeights(2, "normalised").double()
    nan = float("nan")
    losses = torch.tensor([[[4.0, 1.0], [8.0, 5.0]], [[2.0, 3.0], [nan, 1.0]], [[1.0, 2.0], [6.0, 0.5]]])
    for step in losses.double():  # (2, 2): of each half of the batch
        weights(step.chunk(processes)[rank].mean(0))
    found = {"value g": loss_g, "value d": loss_d, "mean": weights.running, "seen": weights.seen}
    for name, network in {"g": generator, "d": judge}.items():
        found |= {f"{name} {k}": p.grad for k, p in network.named_parameters()}
    return {k: v.detach() for k, v in found.items()}


def one_of_two(rank: int, folder) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(gan(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = gan(0, 1)
    assert first.keys() == alone.keys() and len(alone) == 4 + 2 + 24
    assert alone["seen"] == 2 and alone["mean"].tolist() == pytest.approx([4.75, 2.125])  # the NaN of one left out
    for name, expected in alone.items():
        if name.startswith("value"):  # of its own half: the mean of both is the whole batch's
            assert not torch.equal(first[name], second[name])
            found = (first[name] + second[name]) / 2
        else:
            assert torch.equal(first[name], second[name]), name
            found = first[name]
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max() + 1e-12), name
