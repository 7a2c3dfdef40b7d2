"""Where seams are, as a network can see it: a map of the signed distances to the nearest seam row and column.

LR pixels throughout: seams are the rows and columns c at which a new tile starts, TilePlan.seams(1), so that the seam
lies between the pixels c - 1 and c.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from srlib.tiling.seams import Seams

CHANNELS = 4


def seam_map(
    seams: Seams,
    rows: range,
    columns: range,
    *,
    radius: int,
    context: float = 0.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """(1, 4, len(rows), len(columns)): this part of the picture's map.

    Channels 0 and 1: the signed distance of the pixel's centre to the nearest seam row and column, in units of
    `radius` LR pixels, in (-1, 1); 0 where none is within it. Channels 2 and 3: whether there is one, as 1 for tiles
    without context and less with it: radius / (radius + context), context in LR pixels.
    """
    strength = radius / (radius + context)
    out = torch.zeros(1, CHANNELS, len(rows), len(columns), device=device)
    for axis, (places, own) in enumerate(zip((rows, columns), seams, strict=True)):
        distance, near = (t.to(out) for t in _distances(places, own, radius))
        along = (slice(None), None) if axis == 0 else (None, slice(None))
        out[0, axis] = distance[along]
        out[0, 2 + axis] = strength * near[along]
    return out


def near(seam_map: Tensor) -> Tensor:
    """(B, 4, h, w), a seam_map -> (B, 1, h, w) bool: where a seam is within the radius."""
    return (seam_map[:, 2:3] > 0) | (seam_map[:, 3:4] > 0)


def _distances(places: range, seams: Sequence[int], radius: int) -> tuple[Tensor, Tensor]:
    """(n,) signed distance in units of the radius, 0 beyond it, and whether it is within; of the nearest of seams."""
    centres = torch.arange(places.start, places.stop, dtype=torch.float32) + 0.5
    if not seams:
        return torch.zeros_like(centres), torch.zeros_like(centres, dtype=torch.bool)
    lines = torch.tensor(sorted(seams), dtype=torch.float32)
    after = torch.searchsorted(lines, centres).clamp(max=len(lines) - 1)
    before = (after - 1).clamp(min=0)
    to_after, to_before = centres - lines[after], centres - lines[before]
    distance = torch.where(to_before.abs() < to_after.abs(), to_before, to_after)
    within = distance.abs() < radius
    return torch.where(within, distance / radius, 0.0), within


def strips(
    seams: Seams, rows: range, columns: range, *, radius: int, gap: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Rectangles ((top, bottom), (left, right)) that together hold all pixels of rows x columns within `radius` of a
    seam, and no pixel twice. Strips less than `gap` apart are one: what lies between is cheaper than its context.
    """
    across, along = (
        list(_intervals(own, places, radius, gap)) for own, places in zip(seams, (rows, columns), strict=True)
    )
    top = rows.start
    for start, stop in [*across, (rows.stop, rows.stop)]:
        if top < start:  # between two strips along seam rows: what seam columns need
            yield from (((top, start), interval) for interval in along)
        if start < stop:
            yield (start, stop), (columns.start, columns.stop)
        top = stop


def _intervals(seams: Sequence[int], places: range, radius: int, gap: int) -> Iterator[tuple[int, int]]:
    """[start, stop) around the seams, within `places`, merged where less than `gap` apart."""
    current: tuple[int, int] | None = None
    for c in sorted(seams):
        start, stop = max(c - radius, places.start), min(c + radius, places.stop)
        if start >= stop:
            continue
        if current is not None and start - current[1] < gap:
            current = (current[0], stop)
        else:
            if current is not None:
                yield current
            current = (start, stop)
    if current is not None:
        yield current


def turned(seams: Tensor, turn: int) -> Tensor:
    """(4, h, w), a seam_map, in one of eight flips and rotations: rows reversed (turn & 1), columns reversed (2), then
    transposed (4); distances change their sign, rows become columns.
    """
    if turn & 1:
        seams = seams.flip(-2) * seams.new_tensor([-1, 1, 1, 1])[:, None, None]
    if turn & 2:
        seams = seams.flip(-1) * seams.new_tensor([1, -1, 1, 1])[:, None, None]
    return seams.transpose(-2, -1)[[1, 0, 3, 2]].contiguous() if turn & 4 else seams
