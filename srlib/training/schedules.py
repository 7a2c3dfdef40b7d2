"""Learning rates as pure functions of the step: nothing to save, nothing to restore on resume."""

from math import cos, pi


def cosine(step: float, *, total: float, max_lr: float, min_lr: float = 1e-7) -> float:
    """Half a cosine from max_lr at step 0 to min_lr at step `total` (Loshchilov and Hutter, SGDR, 2017)."""
    return min_lr + (max_lr - min_lr) * (1 + cos(pi * min(step, total) / total)) / 2


def one_cycle(step: int, *, total: int, max_lr: float, min_lr: float = 1e-7, rise: float = 0.3) -> float:
    """Cosine up from max_lr / 25 over the first `rise` of the steps, then down to min_lr (Smith, 2018)."""
    peak = max(rise * total, 1)
    if step < peak:
        return cosine(peak - step, total=peak, max_lr=max_lr, min_lr=max_lr / 25)
    return cosine(step - peak, total=max(total - peak, 1), max_lr=max_lr, min_lr=min_lr)


def constant(step: int, *, max_lr: float, min_lr: float = 0.0, warmup_steps: int = 0) -> float:
    """max_lr, after a linear warm-up from min_lr."""
    return min_lr + (max_lr - min_lr) * min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_restarts(
    step: int,
    *,
    first_cycle_steps: int = 50_000,
    cycle_mult: float = 1.5,
    max_lr: float = 2e-4,
    min_lr: float = 1e-7,
    warmup_steps: int = 2_000,
    gamma: float = 0.8,
) -> float:
    """Cycles of a linear warm-up and half a cosine; each has its peak scaled by gamma and its cosine part
    made cycle_mult times longer than the one before, at least 1.
    """
    if not cycle_mult >= 1:
        raise ValueError(f"cycle_mult {cycle_mult} must be at least 1: shorter and shorter cycles would never end")
    if not 0 <= warmup_steps < first_cycle_steps:
        raise ValueError(f"warmup_steps {warmup_steps} must be below first_cycle_steps {first_cycle_steps}")
    length = first_cycle_steps
    peak = max_lr
    while step >= length:
        step -= length
        length = int((length - warmup_steps) * cycle_mult) + warmup_steps
        peak *= gamma
    if step < warmup_steps:
        return min_lr + (peak - min_lr) * step / warmup_steps
    return cosine(step - warmup_steps, total=length - warmup_steps, max_lr=peak, min_lr=min_lr)
