"""Schedules against values worked out by hand."""

import pytest

from srlib.training.schedules import constant, cosine, one_cycle, warmup_restarts


def test_cosine():
    assert cosine(0, total=100, max_lr=1.0, min_lr=0.1) == pytest.approx(1.0)
    assert cosine(50, total=100, max_lr=1.0, min_lr=0.1) == pytest.approx(0.55)
    assert cosine(100, total=100, max_lr=1.0, min_lr=0.1) == pytest.approx(0.1)
    assert cosine(300, total=100, max_lr=1.0, min_lr=0.1) == pytest.approx(0.1)


def test_one_cycle():
    values = [one_cycle(i, total=100, max_lr=1.0, min_lr=0.0) for i in range(101)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[15] == pytest.approx((1 + 1 / 25) / 2)
    assert values[30] == pytest.approx(1.0) and max(values) == values[30]
    assert values[65] == pytest.approx(0.5) and values[100] == pytest.approx(0.0)


def test_constant():
    values = [constant(i, max_lr=1.0, min_lr=0.2, warmup_steps=3) for i in range(6)]
    assert values == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0])
    assert constant(0, max_lr=1.0) == 1.0


def test_warmup_restarts_at_its_published_numbers():
    """Cycle 1 to 50000; cycle 2: int(48000 * 1.5) + 2000 = 74000 steps to 124000; cycle 3: 108000 + 2000."""
    half = lambda peak: (peak + 1e-7) / 2  # noqa: E731
    expected = {0: 1e-7, 1000: half(2e-4), 2000: 2e-4, 26_000: half(2e-4), 50_000: 1e-7, 52_000: 1.6e-4}
    expected |= {88_000: half(1.6e-4), 124_000: 1e-7, 126_000: 1.28e-4, 180_000: half(1.28e-4), 234_000: 1e-7}
    for step, lr in expected.items():
        assert warmup_restarts(step) == pytest.approx(lr), step


def test_warmup_restarts():
    """Cycle 1: steps 0-9 (2 of warm-up); cycle 2: int(8 * 1.5) + 2 = 14 steps, 10-23, its peak 0.8."""
    arguments = {"first_cycle_steps": 10, "cycle_mult": 1.5, "max_lr": 1.0, "min_lr": 0.0, "warmup_steps": 2}
    expected = {0: 0.0, 1: 0.5, 2: 1.0, 6: 0.5, 10: 0.0, 11: 0.4, 12: 0.8, 18: 0.4, 24: 0.0, 26: 0.64}
    for step, lr in expected.items():
        assert warmup_restarts(step, gamma=0.8, **arguments) == pytest.approx(lr), step
    with pytest.raises(ValueError, match="below first_cycle_steps"):
        warmup_restarts(0, first_cycle_steps=10, warmup_steps=10)
    for shorter in (0.5, 0, -1, float("nan")):
        with pytest.raises(ValueError, match="cycle_mult .* must be at least 1"):
            warmup_restarts(100, first_cycle_steps=10, warmup_steps=0, cycle_mult=shorter)
