"""How far a network looks, found by running it: reach, grid, and what it computes from the whole picture.

One column of a picture is NaN; the output columns that become NaN are those that depend on it, whatever the network is
made of. Two things need care. Means, norms and attention between channels carry one NaN everywhere, which would hide
how far the rest looks: they are replaced by constants, and counted. And windows make the answer depend on where the
column lies, so that all places in a window are tried; of one above 8 pixels those at its ends and in its middle.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from srlib.tiling.picture_sums import PictureSums, Pooled, frame_factor

_LOW = (16, 32, 64)  # rows of the strips: the fewest that the network takes
_WIDE = (3 * 64, 5 * 64, 11 * 64, 23 * 64, 41 * 64)  # columns; odd numbers of 64, so that no window has as many pixels
_GRIDS = (1, 2, 4, 8, 16, 32, 64, 3, 5, 6, 7, 9, 10, 12, 14, 20, 24, 28, 36, 40, 48)


@dataclass(frozen=True)
class Reach:
    """How far a network looks, in LR pixels.

    pixels: the distance of the farthest LR pixel that an output pixel depends on, the worst of all places, sides and
    both axes, whole-picture statistics aside; None: more than `seen`, or everywhere.
    halo: the least context, a multiple of `period`, with which tiles on that grid lack nothing but those statistics.
    period: the grid: shifted by so many pixels a picture gives the same; None: not found.
    whole: whether one pixel changes the whole picture. statistics: what is computed from the whole picture, as far as
    it was recognised, and how often. seen: how far the widest picture that was tried let one look.
    notes: what was not found, or only in another way.
    """

    scale: int
    pixels: int | None = None
    halo: int | None = None
    period: int | None = None
    whole: bool | None = None
    statistics: dict[str, int] | None = None
    seen: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def cost(self, tile: int = 256) -> float | None:
        """LR pixels read per pixel of the picture, by tiles of that size with all the context they need."""
        return None if self.halo is None else (1 + 2 * self.halo / tile) ** 2

    def __str__(self) -> str:
        taken = ", ".join(f"{count} {name}" for name, count in (self.statistics or {}).items())
        far = f"{self.pixels} LR pixels to each side"
        if self.pixels is None:
            far = f"the whole picture, or more than {self.seen} LR pixels to each side: which of them is not known"
        grid = {None: "not found", 1: "none, tiles may begin anywhere"}.get(
            self.period, f"{self.period}: tiles begin at multiples of it"
        )
        whole = {True: f"yes: {taken or 'of an unknown kind'}", False: "no", None: "not known"}[self.whole]
        costs = (
            f"{self.halo} LR pixels of it make tiles exact; tiles of 256 then read {self.cost() or 0:.1f} pixels each"
        )
        if self.halo is None:
            costs = "none that is known makes tiles exact"
        elif self.whole:
            costs = costs.replace("exact", "exact, the statistics aside")
        return "\n".join(
            [
                f"scale          {self.scale}",
                f"reach          {far}",
                f"grid           {grid}",
                f"whole picture  {whole}",
                f"context        {costs}",
                *(f"note           {note}" for note in self.notes),
            ]
        )


def find_reach(
    model: Callable[[Tensor], Tensor],
    *,
    channels: int = 3,
    window: int = 1,
    device: torch.device | str | None = None,
    seconds: float = 120.0,
) -> Reach:
    """Run model, (B, channels, H, W) -> (B, C', H*scale, W*scale), on low and wide pictures of noise, some of it NaN.

    window: a grid that the network is known for; it is tried first. device: where it runs, by default where its
    parameters are. seconds: about what it may take; what was not found by then is in the notes. Raises ValueError for a
    network in training mode, and for one that takes no such picture or whose output is not larger by a whole number.
    """
    if getattr(model, "training", False):
        raise ValueError("the reach is that of a network in eval mode: call model.eval() first")
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    place = torch.device(device or (parameter.device if parameter is not None else "cpu"))
    with torch.no_grad():
        return _Probe(model, channels, window, place, seconds).result()


class _Constants(PictureSums):
    """Within `with`, what is computed from the whole picture is a constant, and counted in `seen`."""

    def __init__(self, picture: tuple[int, int]):
        super().__init__(self._take)
        self.picture = picture
        self.seen: Counter[str] = Counter()
        heights = {picture[0], *(-(-picture[0] // n) * n for n in (32, 64))}  # as networks pad
        widths = {picture[1], *(-(-picture[1] // n) * n for n in (32, 64))}
        areas = {int(h * f) * int(w * f) for h in heights for w in widths for f in (1, 1 / 2, 1 / 4, 1 / 8)}
        self.areas = {area for area in areas if area > 512}

    def _take(self, x: Tensor) -> Pooled | None:
        if len(x) != 1 or frame_factor(x.shape[-2:], self.picture) is None:
            return None
        self.seen["norms" if "norm" in self.name else "means"] += 1
        one = torch.ones(x.shape[:2], device=x.device)
        return Pooled(one / 2, one, x.shape[2:].numel())

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kind = _flat_sum(function, args, kwargs or {})
        if kind and next(a for a in args if isinstance(a, Tensor)).shape[-1] in self.areas:
            self.seen[kind] += 1
            return torch.full_like(function(*args, **(kwargs or {})), kind == "sums")  # Gram matrices 0, norms 1
        self.name = getattr(function, "__name__", "")
        return super().__torch_function__(function, types, args, kwargs)


def _flat_sum(function: Callable, args: tuple, kwargs: dict) -> str:
    """What kind of sum over the last dimension of (..., H*W) a function is: attention between channels has both."""
    if function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm):
        return "Gram matrices" if args[0].ndim > 1 else ""
    if function is torch.einsum and isinstance(args[0], str) and "->" in args[0]:
        given, left = args[0].replace(" ", "").split("->")
        return "Gram matrices" if given.split(",")[0][-1:] not in left else ""
    if function in (torch.sum, torch.Tensor.sum):
        over = args[1] if len(args) > 1 else kwargs.get("dim")
        last = (-1, args[0].ndim - 1)
        return "sums" if over in (*last, *([d] for d in last), *((d,) for d in last)) and args[0].ndim > 1 else ""
    return ""


class _TooSlow(Exception):
    """The next run would take more than the time that is left."""


class _Probe:
    """The runs of one network. Pictures are strips, `low` pixels times `width`; upright ones for the other axis."""

    def __init__(
        self, model: Callable[[Tensor], Tensor], channels: int, window: int, device: torch.device, seconds: float
    ):
        self.model, self.channels, self.device, self.limit = model, channels, device, seconds
        self.grids = (*((window,) if window > 1 else ()), *_GRIDS)
        self.start = time.perf_counter()
        self.per_pixel = 0.0  # seconds
        self.lossy = False  # whether NaN gets lost on the way: then changes are looked for, too
        self.seen: Counter[str] = Counter()
        self.low = self.scale = self.least = 0
        self._fit()
        self.known = Reach(self.scale)

    def result(self) -> Reach:
        """All that could be found in the time."""
        try:
            for known in self._steps():
                self.known = known
        except _TooSlow:
            lacks = [
                name
                for name, value in (
                    ("reach", self.known.pixels),
                    ("grid", self.known.period),
                    ("context", self.known.halo),
                )
                if value is None
            ]
            missing = ", ".join(lacks) or "the other axis"
            self.known = self._noted(f"stopped after {self.limit:.0f} s; not found or not checked: {missing}")
        seconds = time.perf_counter() - self.start
        return replace(self.known, statistics=dict(self.seen), seconds=round(seconds, 1))

    def _noted(self, note: str) -> Reach:
        return replace(self.known, notes=(*self.known.notes, note))

    def _steps(self) -> Iterator[Reach]:
        first = None
        for width in _WIDE:
            first = self._spread(width, width // 2, 1)
            yield replace(self.known, seen=width // 2 - 1)
            if first:
                break
        if first:
            self.lossy = True
            changed = self._spread(width, width // 2, 1)
            self.lossy = changed is None or any(more > nan for more, nan in zip(changed, first, strict=True))
            if self.lossy:
                yield self._noted("NaN gets lost in this network: changed pixels were looked for instead")
                first = changed
        self.least = width if self.seen.keys() - {"means", "norms"} else 0  # narrower, not all would be recognised
        yield replace(self.known, whole=self._whole(first, width))
        if not first:
            yield replace(self.known, period=self._likeness())
            if self.known.period:
                yield self._noted("the grid is the one on which shifted pictures are most alike, not equal")
            return
        yield replace(self.known, pixels=max(first))
        period = self._grid(max(first))
        if period is None:
            yield self._noted(f"no grid up to {max(_GRIDS)} pixels gives a shifted picture the same answer")
            return
        while True:
            width = max(_odd(2 * (max(first) + 2 * period + 32)), self.least)
            base = width // 2 // period * period
            places = range(period + 1) if period <= 8 else (0, 1, period // 2 - 1, period // 2, period - 1, period)
            spreads = {place: self._spread(width, base + place, 1) for place in places}
            if spreads[0] == spreads[period] or period >= 128:
                break
            period *= 2  # the answers agree so nearly that the grid was taken for a finer one
        block = self._spread(width, base, period)
        if block is None or None in spreads.values():
            yield self._noted("the reach differs from place to place by more than was expected: take it as a hint")
            return
        pixels = max(side for spread in spreads.values() for side in spread or ())
        halo = -(-max(block) // period) * period
        yield replace(self.known, pixels=pixels, period=period, halo=halo)
        other = self._spread(width, base, period, upright=True)
        if other is None or max(other) > max(block):
            more = self.known.seen if other is None else max(other)
            yield self._noted(f"it looks farther up and down than to the sides: {more} pixels or more")
            yield replace(self.known, pixels=pixels - max(block) + more, halo=-(-more // period) * period)

    def _fit(self) -> None:
        """Find `low` and `scale`."""
        why: Exception | str = ""
        for low in _LOW:
            self.low, width = low, _WIDE[0]
            try:
                self._run(self._noise(width))  # warms up
                begin = time.perf_counter()
                y = self._run(self._noise(width))
                self.per_pixel = (time.perf_counter() - begin) / (low * width)
            except Exception as error:  # whatever a network says to a picture that it does not take
                why = error
                continue
            scale = y.shape[-1] // width
            if scale < 1 or tuple(y.shape[-2:]) != (low * scale, width * scale):
                why = f"{low}x{width} pixels become {y.shape[-2]}x{y.shape[-1]}"
                continue
            if not y.isfinite().all():
                why = "its answer to noise is not finite"
                continue
            self.scale = scale
            return
        raise ValueError(f"the network takes no pictures of {_LOW[-1]}x{_WIDE[0]} with {self.channels} channels: {why}")

    def _noise(self, width: int) -> Tensor:
        noise = torch.rand((1, self.channels, self.low, width), generator=torch.Generator().manual_seed(width))
        return noise.to(self.device)

    def _run(self, x: Tensor, *, upright: bool = False, plain: bool = False) -> Tensor:
        """The network on one strip (1, C, low, W) -> (1, C', low*scale, W*scale). plain: with its statistics."""
        pixels, left = x.shape[2] * x.shape[3], self.limit - (time.perf_counter() - self.start)
        if self.per_pixel and self.per_pixel * pixels > left:
            raise _TooSlow
        x = (x.transpose(2, 3) if upright else x).clone()  # some networks write into their input
        constants = _Constants((x.shape[-2], x.shape[-1]))
        with nullcontext() if plain else constants:
            y = self.model(x)
        if constants.seen.total() > self.seen.total():  # small features are recognised in large pictures only
            self.seen = constants.seen
        return (y.transpose(2, 3) if upright else y).float()

    def _spread(self, width: int, column: int, count: int, **how: bool) -> tuple[int, int] | None:
        """How many columns to the left and right of `count` columns, from `column` on, depend on these; None where the
        picture ends before they do.
        """
        x = self._noise(width)
        block = (..., slice(column, column + count))
        broken = x.clone()
        broken[block] = torch.nan
        touched = ~self._run(broken, **how).isfinite()
        if self.lossy:
            y, moved = self._run(x, **how), x.clone()
            moved[block] += 1000 * torch.randn(moved[block].shape, generator=torch.Generator().manual_seed(0)).to(x)
            touched |= ~((self._run(moved, **how) - y).abs() <= 1e-6 * y.abs().max())
        columns = touched.amax((0, 1, 2)).unflatten(0, (width, self.scale)).amax(1).nonzero().flatten().tolist()
        if not columns:
            return (0, 0)
        if columns[0] == 0 or columns[-1] == width - 1:
            return None
        return max(column - columns[0], 0), max(columns[-1] - (column + count - 1), 0)

    def _whole(self, first: tuple[int, int] | None, width: int) -> bool | None:
        if not self.seen:
            return None if first is None else False
        width = width if first else _WIDE[0]
        return self._spread(width, width // 2, 1, plain=True) is None

    def _grid(self, reach: int) -> int | None:
        """The smallest shift of a picture that shifts the answer, away from the borders."""
        margin = reach + 32
        width = max(_odd(2 * margin + max(self.grids) + 64), self.least)
        for shift, difference, size in self._shifted(width, margin):
            if difference <= (1e-4 if self.device.type == "cpu" else 2e-3) * size:
                return shift
        return None

    def _likeness(self) -> int | None:
        """The smallest shift that makes as little difference as any, in the middle of a picture; None where all do."""
        width = _WIDE[1]
        differences = {shift: difference for shift, difference, _ in self._shifted(width, width // 3, _GRIDS[:7])}
        least = min(differences.values())
        if max(differences.values()) <= 4 * least:
            return None
        return next(shift for shift, difference in differences.items() if difference <= 2 * least)

    def _shifted(
        self, width: int, margin: int, shifts: tuple[int, ...] | None = None
    ) -> Iterator[tuple[int, float, float]]:
        """(shift, largest difference, largest value) of the answers to a picture and to it shifted."""
        shifts = shifts or self.grids
        x = self._noise(width + max(shifts))
        here = self._run(x[..., :width])
        size = here.abs().max().item()
        for shift in shifts:
            there = self._run(x[..., shift : shift + width])
            a = here[..., (margin + shift) * self.scale : (width - margin) * self.scale]
            b = there[..., margin * self.scale : (width - margin - shift) * self.scale]
            yield shift, (a - b).abs().max().item(), size


def _odd(width: int) -> int:
    """The next odd multiple of 32."""
    count = -(-width // 32)
    return 32 * (count + 1 - count % 2)
