"""Upscaling in tiles: the plan, the cut, the stitching, and how visible the seams are.

What makes tiles fit: the whole picture is padded once; every tile is read with `halo` pixels of context
and at one common size; all positions are multiples of the network's window, so that a tile's windows are
the whole picture's windows. Off that grid no amount of halo brings the whole picture's answer back.

Vocabulary: a tile's *core* is what it contributes, its *read* is the core plus context. LR pixels unless
said otherwise. Nothing here knows a network: `model` is any callable that maps (B, C, h, w) to
(B, C, h*scale, w*scale).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLENDS = ("crop", "ramp", "gaussian", "mean")
Seams = tuple[list[int], list[int]]  # output rows and columns at which a new tile starts


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
    """The product of two axes; tiles are numbered row by row."""

    y: Axis
    x: Axis
    halo: int

    def __len__(self) -> int:
        return len(self.y.origins) * len(self.x.origins)

    @property
    def overhead(self) -> float:
        """LR pixels the network reads, per pixel of the picture."""
        return len(self) * self.y.read * self.x.read / (self.y.size * self.x.size)

    def seams(self, scale: int) -> Seams:
        """Rows and columns c of the output where a new tile starts: the seam lies between c-1 and c."""
        return [c * scale for c in self.y.cores[1:-1]], [c * scale for c in self.x.cores[1:-1]]


def plan_tiles(
    height: int, width: int, *, tile: int, halo: int, window: int = 1, offset: tuple[int, int] = (0, 0)
) -> TilePlan:
    """Plan tiles of core size `tile` with `halo` pixels of context on every side.

    offset: (rows, columns) at which the first seam lies, 0 for a seam every `tile` from the edge; training
    draws it at random. Raises ValueError when tile, halo or offset is not a multiple of `window`.
    """
    for name, value, least in [
        ("tile", tile, 1),
        ("halo", halo, 0),
        ("offset rows", offset[0], 0),
        ("offset columns", offset[1], 0),
    ]:
        if value < least or value % window:
            down = max(value // window * window, window if least else 0)
            raise ValueError(
                f"{name} {value} is not a multiple of the window {window}: "
                f"off the window grid tiles cannot match the whole picture; try {down} or {down + window}"
            )
    return TilePlan(
        _plan_axis(height, tile, halo, window, offset[0]),
        _plan_axis(width, tile, halo, window, offset[1]),
        halo,
    )


def _plan_axis(size: int, tile: int, halo: int, window: int, offset: int) -> Axis:
    padded = size + -size % window
    read = min(tile + 2 * halo, padded)
    starts = [0, *range(offset % tile or tile, size, tile)]
    origins = [min(max(start - halo, 0), padded - read) for start in starts]
    return Axis(size, padded, read, (*starts, size), tuple(origins))


def tiled_apply(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    scale: int,
    tile: int,
    halo: int,
    window: int = 1,
    offset: tuple[int, int] = (0, 0),
    blend: str = "crop",
    batch: int | None = None,
) -> tuple[Tensor, TilePlan]:
    """Upscale x (B, C, H, W) in tiles; returns the picture (B, C, H*scale, W*scale) and the plan.

    Differentiable from end to end. batch: tiles per call of the model, None for all of them at once.
    Raises ValueError for a plan off the window grid or an unknown blend.
    """
    plan = plan_tiles(*x.shape[-2:], tile=tile, halo=halo, window=window, offset=offset)
    reads = cut(x, plan)  # (T, B, C, rh, rw)
    step = batch or len(plan)
    tiles = [model(reads[i : i + step].flatten(0, 1)) for i in range(0, len(plan), step)]
    tiles = torch.cat(tiles).unflatten(0, reads.shape[:2])  # (T, B, C, rh*scale, rw*scale)
    return stitch(tiles, plan, scale, blend), plan


def cut(x: Tensor, plan: TilePlan) -> Tensor:
    """(B, C, H, W) -> (T, B, C, read_h, read_w): the picture padded once, then read tile by tile."""
    bottom, right = plan.y.padded - plan.y.size, plan.x.padded - plan.x.size
    if bottom or right:
        mode = "reflect" if bottom < plan.y.size and right < plan.x.size else "replicate"
        x = F.pad(x, (0, right, 0, bottom), mode=mode)
    return torch.stack(
        [x[..., y : y + plan.y.read, c : c + plan.x.read] for y in plan.y.origins for c in plan.x.origins]
    )


def stitch(tiles: Tensor, plan: TilePlan, scale: int, blend: str = "crop") -> Tensor:
    """(T, B, C, read_h*scale, read_w*scale) -> (B, C, H*scale, W*scale).

    blend: "crop" keeps each core; "ramp" fades linearly over `halo` LR pixels straddling each seam;
    "gaussian" and "mean" average everything read (for comparison: they mix in pixels near the reads'
    borders, which lack context). Weights of every output pixel sum to one.
    """
    rows, columns = (
        blend_weights(plan.y, plan.halo, scale, blend),
        blend_weights(plan.x, plan.halo, scale, blend),
    )
    out = tiles.new_zeros(*tiles.shape[1:3], plan.y.size * scale, plan.x.size * scale)
    number = 0
    for y, row in zip(plan.y.origins, rows, strict=True):
        for x, column in zip(plan.x.origins, columns, strict=True):
            # weights are zero outside the span [a, b) of the read, which is all that is touched
            (ya, yb), (xa, xb) = _span(row), _span(column)
            weight = row[ya:yb, None] * column[None, xa:xb]
            part = tiles[number, :, :, ya:yb, xa:xb]
            if blend != "crop":
                part = part * weight.to(tiles)
            out[:, :, y * scale + ya : y * scale + yb, x * scale + xa : x * scale + xb] += part
            number += 1
    return out


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


def _span(weights: Tensor) -> tuple[int, int]:
    """First and one past the last position of a non-zero weight."""
    index = weights.nonzero()
    return int(index[0]), int(index[-1]) + 1


def consistency(tiled: Tensor, whole: Tensor) -> float:
    """TC in dB: the PSNR of the tiled against the whole picture, both in [0, 1]; infinite when equal."""
    return -10 * (tiled - whole).double().square().mean().log10().item()


def seam_gradient_ratio(tiled: Tensor, whole: Tensor, seams: Seams) -> float:
    """SGR: energy of the steps across the seams, relative to the whole picture's there; 1 is ideal."""

    def energy(picture: Tensor) -> float:
        picture = picture.double()
        rows = sum((picture[..., c, :] - picture[..., c - 1, :]).square().mean().item() for c in seams[0])
        return rows + sum((picture[..., c] - picture[..., c - 1]).square().mean().item() for c in seams[1])

    reference = energy(whole)
    return energy(tiled) / reference if reference else float("nan")


def seam_profile(tiled: Tensor, whole: Tensor, seams: Seams, distances: int = 32) -> Tensor:
    """E(k), k < distances: rms of tiled - whole over the output pixels k away from their nearest seam.

    k = 0 are the two pixels that touch a seam. NaN where no pixel has that distance.
    """
    H, W = tiled.shape[-2:]
    near = torch.minimum(_distance(H, seams[0])[:, None], _distance(W, seams[1])[None])  # (H, W)
    squared = (tiled - whole).double().square().flatten(0, -3).mean(0)
    keep = near < distances
    index = near[keep]
    total = torch.zeros(distances, dtype=torch.float64).index_add_(0, index, squared[keep].cpu())
    count = torch.zeros(distances, dtype=torch.float64).index_add_(0, index, torch.ones(len(index)).double())
    return (total / count).sqrt()


def _distance(size: int, seams: list[int]) -> Tensor:
    """(size,) distance of each pixel to its nearest seam; a pixel touching it has 0."""
    position = torch.arange(size)
    if not seams:
        return torch.full((size,), 2**30)
    away = torch.stack([torch.where(position >= c, position - c, c - 1 - position) for c in seams])
    return away.amin(0)


def seam_report(tiled: Tensor, whole: Tensor, seams: Seams) -> dict[str, float]:
    """The figures a tiling is judged by: TC (dB), SGR, the largest difference, and the share of pixel
    values that differ once both pictures are rounded to 8 bits. Pictures (..., H, W) in [0, 1].
    """
    as_bytes = [p.clamp(0, 1).mul(255).round() for p in (tiled, whole)]
    return {
        "TC": consistency(tiled, whole),
        "SGR": seam_gradient_ratio(tiled, whole, seams),
        "max_difference": (tiled - whole).abs().max().item(),
        "differing_share": (as_bytes[0] != as_bytes[1]).double().mean().item(),
    }


def worst_seam(tiled: Tensor, whole: Tensor, seams: Seams, crop: int = 96) -> tuple[int, int]:
    """(top, left) of the crop x crop square, centred on a seam, where tiled - whole has the most energy."""
    squared = (tiled - whole).float().square().flatten(0, -3).mean(0)  # (H, W)
    H, W = squared.shape
    height, width = min(crop, H), min(crop, W)
    energy = F.avg_pool2d(squared[None, None], (height, width), stride=1)[0, 0]  # by top-left corner
    allowed = torch.zeros_like(energy, dtype=torch.bool)
    for c in seams[0]:
        allowed[min(max(c - height // 2, 0), H - height)] = True
    for c in seams[1]:
        allowed[:, min(max(c - width // 2, 0), W - width)] = True
    if not allowed.any():
        return (H - height) // 2, (W - width) // 2
    best = int(energy.masked_fill(~allowed, -1).argmax())
    return best // energy.shape[1], best % energy.shape[1]
