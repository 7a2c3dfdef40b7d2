"""In what unit an eraser's output counts: (halo, unit) pairs, the error that tiles of that context make near seams."""

import math
from collections.abc import Sequence
from typing import cast


def unit_of(gains: Sequence[Sequence[float]], halo: int) -> float:
    """The unit for tiles with `halo` LR pixels of context, of the pictures' range: the nearest known, between two
    the logarithm is interpolated; 0, nothing is erased, above the largest. gains: by halo, as checked_gains has them.
    """
    if not gains or halo > gains[-1][0]:
        return 0.0
    last = next(i for i, (known, _) in enumerate(gains) if halo <= known)
    (low, below), (high, above) = gains[max(last - 1, 0)], gains[last]
    if halo >= high or not below or not above:
        return above
    if halo <= low:
        return below
    return math.exp(math.log(below) + (math.log(above) - math.log(below)) * (halo - low) / (high - low))


def checked_gains(gains: object) -> list[list[float]]:
    """[[halo, unit], ...] by halo. ValueError, saying what is allowed, for anything else."""
    pairs = list(gains) if isinstance(gains, list | tuple) else [None]
    for pair in pairs:
        whole = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(v, int | float) for v in pair)
        if not whole or min(cast(Sequence[float], pair)) < 0:
            raise ValueError(f"gains {gains!r} must be a list of pairs of numbers, (halo, unit), not negative")
    return sorted([float(v) for v in cast(Sequence[float], pair)] for pair in pairs)
