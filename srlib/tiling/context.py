"""How much context tiles need for one picture: measured on it at a few places, against a much larger context.

A deep network's reach is hundreds of pixels, and most of it hardly counts. How much does depends on the weights and on
the picture, so that it is tried.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srlib.tiling.means import Means
from srlib.tiling.picture_sums import PictureSums, frame_factor
from srlib.tiling.plan import TilePlan, cut
from srlib.tiling.reach import Reach

_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # times the grid, which is made 8 pixels or more
_MOST = 256  # LR pixels of context that are tried
_AFFORDABLE = 2.0  # LR pixels read per pixel with which the whole reach is taken
_CORE = 64  # LR pixels: the tiles that are measured on


@dataclass(frozen=True)
class Choice:
    """The context that was chosen for a picture, and what it is known by.

    halo: LR pixels. exact: it is the network's whole reach, nothing was measured. places: tiles measured; values: so
    many output values; differing: of which so many differ in 8 bits from those with `against` LR pixels of context;
    decibels: PSNR against these. enough: whether that is what was asked for; reason: why the reach was not taken, and
    whether the network takes statistics of the whole picture.
    """

    halo: int
    exact: bool = False
    places: int = 0
    values: int = 0
    differing: int = 0
    decibels: float = math.inf
    against: int = 0
    enough: bool = True
    reason: str = ""

    def __str__(self) -> str:
        if not self.places:
            return f"context {self.halo}{f': {self.reason}' if self.reason else ''}"
        found = (
            f"at {self.places} places {self.differing} of {self.values} 8-bit values differ from those with "
            f"{self.against}, {self.decibels:.1f} dB"
        )
        short = "" if self.enough else "; the most that was tried, and not enough"
        return f"context {self.halo}, measured: {found}{short}{f'; {self.reason}' if self.reason else ''}"


def choose_halo(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    plan: Callable[[int | str, int], TilePlan],
    *,
    scale: int,
    grid: int,
    tile: int | str = "auto",
    reach: Reach | None = None,
    statistics: str = "local",
    decibels: float | None = None,
    places: int = 6,
    seed: int = 0,
) -> Choice:
    """The smallest context with which tiles of x (B, C, H, W) come out as with a context at least three times as large,
    or with the network's whole reach.

    run: the network, (T, C, h, w) -> (T, C', h*scale, w*scale), answers where x is. plan(tile, halo): the plan that
    tiles of the picture would have. grid: LR pixels; contexts are multiples of it. tile: what the picture will be cut
    into, or "auto". reach: that of the network, where it is known: it is taken where its tiles read at most twice the
    picture. statistics: "local" or "two_pass", for which all tiles go through the network once beforehand.
    decibels: the least PSNR at the places measured on; None: no 8-bit value differs there. places: half of them are
    those with most detail, the others drawn by `seed`.
    """
    whole = reach is not None and bool(reach.whole)
    reasons = ["statistics of the whole picture keep tiles from agreeing exactly"] if whole else []
    known = None  # the context with which tiles lack nothing that context can give
    if reach is not None and reach.halo is not None and not (whole and statistics == "local"):
        grid = math.lcm(grid, reach.period or 1)
        known = -(-reach.halo // grid) * grid
        try:
            full = plan(tile, known)
            if full.overhead <= _AFFORDABLE:
                return Choice(known, not whole, reason="; ".join(["the network's reach", *reasons]))
            reasons.append(f"the reach, {known}, would have {full.overhead:.1f} pixels read per pixel")
        except MemoryError:
            reasons.append(f"the reach, {known}, does not fit in memory")
    least = grid * -(-8 // grid)
    if len(plan(tile, least)) == 1:
        return Choice(least, reason="the picture is one tile")
    measured = _Measured(run, x, plan, scale, grid, tile, statistics, places, seed)
    for halo, against in measured.pairs(known):
        if len(measured.plan(halo)) == 1:
            return Choice(halo, exact=True, reason="every tile reads the whole picture")
        choice = replace(measured.compared(halo, against, decibels), reason="; ".join(reasons))
        if choice.enough:
            return choice
    if known and known <= 2 * _MOST:
        return Choice(known, not whole, reason="; ".join(["the network's reach, as no less is enough", *reasons]))
    return choice


class _Measured:
    """Answers of a network at some places of a picture, by the context that it was given."""

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        x: Tensor,
        plan: Callable[[int | str, int], TilePlan],
        scale: int,
        grid: int,
        tile: int | str,
        statistics: str,
        places: int,
        seed: int,
    ):
        self.run, self.x, self.scale = run, x, scale
        step = grid * -(-8 // grid)
        self.ladder = [step * n for n in _STEPS if step * n <= max(_MOST, 3 * step)]
        self.means: Means | None = None
        core = grid * -(-_CORE // grid)
        whole = _counts_sums(run, cut(x, plan(core, 0), [0])[0])
        if whole and statistics == "local":  # what a tile's own statistics do depends on its size
            core = tile if isinstance(tile, int) else grid * -(-256 // grid)
        if isinstance(tile, int):
            core = min(core, tile)
        self.plan = lambda halo: plan(core, halo)
        if whole and statistics == "two_pass":
            self._gather(plan(tile if isinstance(tile, int) else grid * -(-256 // grid), self.ladder[2]))
        self.cores = _chosen(x, self.plan(0), places, seed)
        self.known: dict[tuple[int, int, int], Tensor] = {}

    def pairs(self, most: int | None) -> Iterator[tuple[int, int]]:
        """Contexts to try, each with the one that it is compared with; most: with which tiles lack nothing."""
        top = min(most or 3 * self.ladder[-1], max(self.x.shape[-2:]))
        for halo in self.ladder:
            if halo >= top and halo > self.ladder[0]:
                return
            yield halo, -(-min(3 * halo, max(top, halo)) // self.ladder[0]) * self.ladder[0]

    def compared(self, halo: int, against: int, decibels: float | None) -> Choice:
        """What a context gives beside another, place by place until it is known not to be enough."""
        count = sum((r.stop - r.start) * (c.stop - c.start) for r, c in self.cores) * self.scale**2 * len(self.x)
        most = 0.0 if decibels is None else 10 ** (-decibels / 10) * count  # that squares may sum to, of one channel
        squares, differing, values, places, channels = 0.0, 0, 0, 0, 1
        for core in self.cores:
            pair = [self._answer(context, core) for context in (halo, against)]
            a, b = ((t.clamp(0, 1) * 255 + 0.5).floor() for t in pair)
            differing += int((a != b).sum())
            squares += (pair[0] - pair[1]).double().square().sum().item()
            values, channels, places = values + a.numel(), a.shape[1], places + 1
            enough = not differing if decibels is None else squares <= most * channels
            if not enough:
                break
        found = -10 * math.log10(squares / values) if squares else math.inf
        return Choice(halo, False, places, values, differing, found, against, enough)

    def _answer(self, halo: int, core: tuple[slice, slice]) -> Tensor:
        """(B, C', h*scale, w*scale) of a core; kept, as a context may be compared with several."""
        if (halo, core[0].start, core[1].start) not in self.known:
            self.known[halo, core[0].start, core[1].start] = self._cut_out(self.plan(halo), core)
        return self.known[halo, core[0].start, core[1].start]

    def _cut_out(self, plan: TilePlan, core: tuple[slice, slice]) -> Tensor:
        i, j = (bisect_right(axis.cores, part.start) - 1 for axis, part in zip((plan.y, plan.x), core, strict=True))
        read = cut(self.x, plan, [i * len(plan.x.origins) + j])[0]
        y = self._run(read, plan, [0])
        rows, columns = (
            slice((part.start - origin) * self.scale, (part.stop - origin) * self.scale)
            for part, origin in zip(core, (plan.y.origins[i], plan.x.origins[j]), strict=True)
        )
        return y[..., rows, columns].clone()

    def _run(self, read: Tensor, plan: TilePlan, numbers: list[int]) -> Tensor:
        if self.means is None:
            return self.run(read)
        self.means.plan, self.means.numbers = plan, numbers
        with self.means:
            return self.run(read)

    def _gather(self, plan: TilePlan) -> None:
        self.means = Means(plan, len(self.x))
        for number in range(len(plan)):
            self._run(cut(self.x, plan, [number])[0], plan, [number])
        self.means.use()


def _counts_sums(run: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the network takes means or norms over the picture."""
    seen = []

    def note(features: Tensor) -> None:
        if len(features) == len(x) and frame_factor(features.shape[-2:], x.shape[-2:]):
            seen.append(1)

    with PictureSums(note):
        run(x)
    return bool(seen)


def _chosen(x: Tensor, plan: TilePlan, places: int, seed: int) -> list[tuple[slice, slice]]:
    """Rows and columns of cores of the plan: the ones with most detail, and others at random."""
    cores = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(plan.y.cores[:-1], plan.y.cores[1:], strict=True)
        for left, right in zip(plan.x.cores[:-1], plan.x.cores[1:], strict=True)
    ]
    details = [_detail(x[..., rows, columns]) for rows, columns in cores]
    by_detail = sorted(range(len(cores)), key=lambda n: -details[n])
    most, rest = by_detail[: -(-places // 2)], by_detail[-(-places // 2) :]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[: places // 2].tolist()
    return [cores[n] for n in [*most, *(rest[n] for n in drawn)]]


def _detail(part: Tensor) -> float:
    """Sum of squared steps between neighbours."""
    return part.diff(dim=-1).square().sum().item() + part.diff(dim=-2).square().sum().item()
