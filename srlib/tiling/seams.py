"""How visible a tiling is: a tiled picture against the whole one, overall and around its seams.

t is the tiled picture, r the same network's whole one, both (..., H, W) in [0, 1]; seams are the rows and
columns c of the output at which a new tile starts, so that the seam lies between c - 1 and c. No figure is
judged alone: blending lowers SGR without raising TC.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Seams = tuple[list[int], list[int]]  # output rows and columns at which a new tile starts
_FLAT = (0.5 / 255) ** 2  # mean squared step below which a picture is flat: half a level of 8 bits is rounded away


def consistency(tiled: Tensor, whole: Tensor) -> float:
    """TC in dB: the PSNR of the tiled against the whole picture, both in [0, 1]; infinite when equal."""
    return -10 * (tiled - whole).double().square().mean().log10().item()


def seam_gradient_ratio(tiled: Tensor, whole: Tensor, seams: Seams) -> float:
    """SGR: energy of the steps across all seams, relative to the whole picture's there; 1 is ideal.

    NaN without seams, and where the whole picture is flat along them: its steps are below half a level of 8 bits (rms),
    and a ratio to next to nothing says nothing.
    """
    steps, reference = (sum(sum(axis) for axis in _steps(picture, seams)) for picture in (tiled, whole))
    return steps / reference if reference > _FLAT * sum(map(len, seams)) else float("nan")


def step_ratios(tiled: Tensor, whole: Tensor, seams: Seams) -> tuple[list[float], list[float]]:
    """What SGR is the mean of, in energy: the same ratio of each seam alone, rows and columns; NaN as there."""
    pairs = zip(_steps(tiled, seams), _steps(whole, seams), strict=True)
    rows, columns = ([t / r if r > _FLAT else float("nan") for t, r in zip(*pair, strict=True)] for pair in pairs)
    return rows, columns


def _steps(picture: Tensor, seams: Seams) -> tuple[list[float], list[float]]:
    """Mean squared step across each seam, rows and columns."""
    picture = picture.double()
    rows = [(picture[..., c, :] - picture[..., c - 1, :]).square().mean().item() for c in seams[0]]
    return rows, [(picture[..., c] - picture[..., c - 1]).square().mean().item() for c in seams[1]]


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


class Piece(NamedTuple):
    """A piece of a seam, from one crossing to the next, in output pixels; rms of tiled - whole beside it, in [0, 1]."""

    along: str  # "row": between rows at - 1 and `at`, from column start to stop; or "column", likewise
    at: int
    start: int
    stop: int
    rms: float


def worst_pieces(tiled: Tensor, whole: Tensor, seams: Seams, count: int = 10, near: int = 4) -> list[Piece]:
    """The pieces of seams with the most error in the `near` output pixels on either side, the worst first."""
    squared = (tiled - whole).double().square().flatten(0, -3).mean(0).cpu().numpy()  # (H, W)
    found = []
    for along, plane, at, crossing in (("row", squared, *seams), ("column", squared.T, *seams[::-1])):
        ends = [0, *crossing, plane.shape[1]]
        for c in at:
            band = plane[max(c - near, 0) : c + near].mean(0)
            rms = np.sqrt(np.add.reduceat(band, ends[:-1]) / np.diff(ends))
            found += [Piece(along, c, *piece, float(e)) for piece, e in zip(pairwise(ends), rms, strict=True)]
    return sorted(found, key=lambda piece: -piece.rms)[:count]
