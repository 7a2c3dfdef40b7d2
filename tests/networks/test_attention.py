"""Windows are what unfold says, attention is the formula, its gradients too, in every precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srlib.networks.attention import (
    as_windows,
    attend,
    from_heads,
    from_windows,
    key_parts,
    linear,
    position_bias,
    split_windows,
    to_heads,
)


def formula(q, k, v, bias, scale):
    return (q @ k.mT * scale + bias).softmax(-1) @ v


def inputs(G=5, h=3, N=16, M=36, d=12, strength=1.0, **options):
    shapes = ((G, h, N, d), (G, h, M, d), (G, h, M, d), (h, N, M))
    generator = torch.Generator().manual_seed(0)
    return [(strength * torch.randn(s, generator=generator)).to(**options).requires_grad_() for s in shapes]


def test_windows_there_and_back():
    x = torch.rand(2, 12, 15, 6)
    windows = as_windows(x, 4, 5)
    (heads,) = split_windows(windows, 1, 2)
    assert heads.shape == (2 * 3 * 3, 2, 20, 3)
    assert torch.equal(heads[4, 1].view(4, 5, 3), x[0, 4:8, 5:10, 3:])  # the first picture's window in the middle
    assert torch.equal(from_windows(heads, windows.shape), x)


@pytest.mark.parametrize(("window", "key_window"), [(8, 12), (4, 4), (4, 12), (6, 8)])
def test_key_parts_are_unfold(window, key_window):
    x = torch.rand(2, 5 * window + key_window - window, 3)
    got = torch.cat(key_parts(x, 1, window, key_window), 2)
    assert torch.equal(got, x.unfold(1, key_window, window).transpose(2, 3))


def test_position_bias_is_indexing():
    table, index = torch.rand(10, 3), torch.randint(10, (4, 6))
    assert torch.equal(position_bias(table, index), table[index].permute(2, 0, 1))


@pytest.mark.parametrize("d", [4, 10])
def test_padded_heads_change_nothing(d):
    torch.manual_seed(0)
    qkv, proj, x = nn.Linear(12, 3 * d), nn.Linear(3 * d, 12), torch.rand(2, 8, 8, 12)
    heads = to_heads(x, qkv.weight, qkv.bias, 3)
    assert heads.shape[-1] % 4 == 0
    assert torch.equal(heads.unflatten(3, (3, -1))[..., d:].abs().max(), torch.tensor(0.0)) if d % 4 else True
    assert torch.allclose(from_heads(heads, proj, 3), proj(qkv(x)), atol=1e-6)


def test_linear_is_linear():
    layer, x = nn.Linear(12, 20), torch.rand(2, 8, 6, 12)
    assert torch.allclose(linear(x, layer.weight, layer.bias), layer(x), atol=1e-6)


def test_attend_and_all_its_gradients_equal_the_formula():
    given = inputs(G=7, N=64, M=144, h=6)
    ours, theirs = attend(*given[:3], bias=given[3], scale=0.3), formula(*given, 0.3)
    assert torch.allclose(ours, theirs, atol=1e-5)
    up = torch.randn(ours.shape)
    for a, b in zip(torch.autograd.grad(ours, given, up), torch.autograd.grad(theirs, given, up), strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_gradients_by_finite_differences():
    given = [x.double().detach().requires_grad_() for x in inputs(G=2, h=2, N=4, M=9, d=4)]
    from srlib.networks.attention import _CachedAttention

    # in double precision the formula's forward, the fused kernel being fp32's; the backward is what is tested
    assert torch.autograd.gradcheck(lambda *x: _CachedAttention.apply(*x, 0.5), given)


def test_frozen_bias_still_lets_gradients_through():
    q, k, v, bias = inputs()
    frozen = bias.detach()
    ours = torch.autograd.grad(attend(q, k, v, bias=frozen, scale=0.3).sum(), q)[0]
    theirs = torch.autograd.grad(formula(q, k, v, frozen, 0.3).sum(), q)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_is_near_and_stays_finite_with_large_activations(dtype, training):
    exact = inputs()
    half = [x.detach().to(dtype).requires_grad_(training) for x in exact[:3]] + [
        exact[3].detach().requires_grad_(training)
    ]
    assert (attend(*half[:3], bias=half[3], scale=0.3) - formula(*exact, 0.3)).abs().max() < 0.05
    large = [
        x.detach().to(dtype).requires_grad_(training) for x in inputs(strength=1000.0)
    ]  # scores of 1e7: fp16 ends at 65504
    out = attend(*large[:3], bias=large[3], scale=0.3)
    assert out.dtype == dtype and out.isfinite().all()
    if training:
        out.sum().backward()
        assert all(x.grad.isfinite().all() for x in large)


def test_bf16_gradients_are_near_the_formulas():
    exact = inputs(G=9, N=64, M=64)
    half = [x.detach().bfloat16().requires_grad_() for x in exact[:3]] + [exact[3].detach().requires_grad_()]
    up = torch.randn(9, 3, 64, 12)
    ours = torch.autograd.grad(attend(*half[:3], bias=half[3], scale=0.3), half, up.bfloat16())
    theirs = torch.autograd.grad(formula(*exact, 0.3), exact, up)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).square().mean().sqrt() < 0.02 * b.square().mean().sqrt()


def test_autocast_may_mix_precisions():
    q, k, v, bias = (x.detach() for x in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q.bfloat16(), k, v.bfloat16(), bias=bias, scale=0.3)
    assert (out - formula(q, k, v, bias, 0.3)).abs().max() < 0.05


def test_windows_that_share_memory_are_not_mixed_up():
    """One window of a picture is a view of the map, in another order than its heads."""
    x = torch.rand(1, 4, 4, 3 * 2 * 4).bfloat16()
    q, k, v = split_windows(as_windows(x, 4, 4), 3, 2)
    bias = torch.zeros(2, 16, 16)
    assert (
        attend(q, k, v, bias=bias, scale=0.5) - formula(q.float(), k.float(), v.float(), bias, 0.5)
    ).abs().max() < 0.02


def test_scores_are_not_kept_for_the_backward_pass():
    kept = []
    q, k, v, bias = inputs(G=50, N=64, M=64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        attend(q, k, v, bias=bias, scale=0.3)
    assert sum(kept) == sum(t.numel() for t in (q, k, v, bias))


def test_the_fused_kernel_is_taken_without_gradients():
    q, k, v, bias = (x.detach() for x in inputs())
    with torch.profiler.profile() as profile:
        attend(q, k, v, bias=bias, scale=0.3)
    assert any("flash_attention" in event.key for event in profile.key_averages())
    assert torch.allclose(
        attend(q, k, v, bias=bias, scale=0.3), F.scaled_dot_product_attention(q, k, v, bias[None], scale=0.3)
    )
