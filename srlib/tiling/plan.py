"""The plan of a tiling: where tiles lie, what they read of the picture, their weights where they overlap.

What makes tiles fit: the whole picture is padded once; every tile is read with `halo` pixels of context
and at one common size; all positions are multiples of the network's window, so that a tile's windows are
the whole picture's windows. Off that grid no amount of halo brings the whole picture's answer back.
Where a network pads in its own way, nothing is padded here: reads are so much larger that the last one, which still
begins on the grid, ends where the picture ends.

Vocabulary: a tile's *core* is what it contributes, its *read* is the core plus context. LR pixels unless
said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLENDS = ("crop", "ramp", "gaussian", "mean")


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis: core i is [cores[i], cores[i+1]), its read [origins[i], origins[i] + read)."""

    size: int
    padded: int
    read: int
    cores: tuple[int, ...]
    origins: tuple[int, ...]


@dataclass(frozen=True)
class TilePlan:
    """The product of two axes; tiles are numbered row by row. The rest is as plan_tiles was given it."""

    y: Axis
    x: Axis
    tile: int
    halo: int
    window: int = 1
    offset: tuple[int, int] = (0, 0)
    own_padding: bool = False

    def __len__(self) -> int:
        return len(self.y.origins) * len(self.x.origins)

    @property
    def overhead(self) -> float:
        """LR pixels the network reads, per pixel of the picture."""
        return len(self) * self.y.read * self.x.read / (self.y.size * self.x.size)

    def seams(self, scale: int) -> tuple[list[int], list[int]]:
        """Rows and columns c of the output where a new tile starts: the seam lies between c-1 and c."""
        return [c * scale for c in self.y.cores[1:-1]], [c * scale for c in self.x.cores[1:-1]]

    def halved(self) -> "TilePlan | None":
        """The same picture in tiles of half the size, on the window grid; None when there is no smaller tile."""
        half = self.tile // 2 // self.window * self.window
        grid = {name: getattr(self, name) for name in ("halo", "window", "offset", "own_padding")}
        return plan_tiles(self.y.size, self.x.size, tile=half, **grid) if half else None

    def memory(self, per_pixel: float, batch: int = 1) -> int:
        """Bytes that one call of the network on `batch` tiles needs; per_pixel as `bytes_per_pixel` measures it."""
        return round(min(batch, len(self)) * self.y.read * self.x.read * per_pixel)


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int,
    halo: int,
    window: int = 1,
    offset: tuple[int, int] = (0, 0),
    own_padding: bool = False,
) -> TilePlan:
    """Plan tiles of core size `tile` with `halo` pixels of context on every side; cores that would have the same
    read, next to the border, are one larger core.

    offset: (rows, columns) at which the first seam lies, 0 for a seam every `tile` from the edge; training
    draws it at random. own_padding: the network pads pictures off the window grid itself, at their right and bottom:
    the plan pads nothing. Raises ValueError when tile, halo or offset is not a multiple of `window`.
    """
    for name, value, least in [
        ("tile", tile, 1),
        ("halo", halo, 0),
        ("offset rows", offset[0], 0),
        ("offset columns", offset[1], 0),
    ]:
        if value < least:
            raise ValueError(f"{name} {value} must be at least {least}")
        if value % window:
            down = max(value // window * window, window if least else 0)
            raise ValueError(
                f"{name} {value} is not a multiple of the window {window}: "
                f"off the window grid tiles cannot match the whole picture; try {down} or {down + window}"
            )
    sides = zip((height, width), offset, strict=True)
    y, x = (_plan_axis(size, tile, halo, window, o, own_padding) for size, o in sides)
    return TilePlan(y, x, tile, halo, window, offset, own_padding)


def _plan_axis(size: int, tile: int, halo: int, window: int, offset: int, own_padding: bool) -> Axis:
    padded = size if own_padding else size + -size % window
    read = min(tile + 2 * halo + padded % window, padded)  # so the last read begins on the grid
    starts = [0, *range(offset % tile or tile, size, tile)]
    origins = [min(max(start - halo, 0), padded - read) for start in starts]
    # near the border several cores may have one and the same read: that is one tile, and no seam inside it
    own = [i for i, origin in enumerate(origins) if i == 0 or origin != origins[i - 1]]
    return Axis(size, padded, read, (*(starts[i] for i in own), size), tuple(origins[i] for i in own))


def cut(x: Tensor, plan: TilePlan, numbers: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (T, B, C, read_h, read_w): these tiles of the picture, which is as if padded once at its
    right and bottom to the plan's size: mirrored, or its edge repeated where it is smaller than the padding.
    """
    reads = []
    for number in numbers:
        i, j = divmod(number, len(plan.x.origins))
        rows, columns = _read(plan.y, plan.y.origins[i], plan), _read(plan.x, plan.x.origins[j], plan)
        reads.append(x[..., rows, :][..., columns])
    return torch.stack(reads)


def _read(axis: Axis, origin: int, plan: TilePlan) -> slice | list[int]:
    """The picture's rows (or columns) in a read: a slice, with indices where it reaches into the padding."""
    if origin + axis.read <= axis.size:
        return slice(origin, origin + axis.read)
    mirrored = all(a.padded - a.size < a.size for a in (plan.y, plan.x))
    last = axis.size - 1
    return [min(i, 2 * last - i) if mirrored else min(i, last) for i in range(origin, origin + axis.read)]


def blend_weights(axis: Axis, halo: int, scale: int, blend: str) -> list[Tensor]:
    """One (read*scale,) float64 weight vector a tile; at every output pixel the tiles' weights sum to one."""
    if blend not in BLENDS:
        raise ValueError(f"blend {blend!r} is none of {', '.join(BLENDS)}")
    total = torch.zeros(axis.padded * scale, dtype=torch.float64)
    weights = []
    for start, stop, origin in zip(axis.cores[:-1], axis.cores[1:], axis.origins, strict=True):
        p = (torch.arange(axis.read * scale, dtype=torch.float64) + 0.5) / scale + origin  # LR coordinates
        if blend == "crop":
            w = ((p > start) & (p < stop)).double()
        elif blend == "mean":
            w = torch.ones_like(p)
        elif blend == "gaussian":
            w = torch.exp(-0.5 * ((p - origin) / axis.read - 0.5).square() / 0.125**2)
        else:
            ramp = max(halo, 1e-9)
            rise = ((p - start) / ramp + 0.5).clamp(0, 1) if start > 0 else torch.ones_like(p)
            fall = ((stop - p) / ramp + 0.5).clamp(0, 1) if stop < axis.size else torch.ones_like(p)
            w = rise * fall
        w = w * (p < axis.size)
        total[origin * scale : (origin + axis.read) * scale] += w
        weights.append(w)
    return [
        w / total[o * scale : (o + axis.read) * scale].clamp_min(1e-300)
        for w, o in zip(weights, axis.origins, strict=True)
    ]


def span(weights: Tensor) -> tuple[int, int]:
    """First and one past the last position of a non-zero weight."""
    index = weights.nonzero()
    return int(index[0]), int(index[-1]) + 1
