"""Upscaling in tiles: the network run over a plan's tiles, and three ways to deal with what tiles cannot see.

Tiles on the window grid (plan.py), with context enough, lack only what the network computes from the whole
picture, such as HAT's channel means (`statistics`). Nothing here knows a network: `model` is any callable that maps
(B, C, h, w) to (B, C, h*scale, w*scale).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from srlib.tiling.canvas import Canvas, Out, Sink, checked, sink_of
from srlib.tiling.exact import Chunks
from srlib.tiling.means import Means
from srlib.tiling.memory import bytes_per_pixel, free_bytes
from srlib.tiling.plan import BLENDS, TilePlan, blend_weights, cut, plan_tiles, span

STATISTICS = ("local", "two_pass", "exact", "window")
WALKED = ("exact", "window")  # layer by layer over the whole picture, without seams
ON_OOM = ("raise", "shrink")


class Cancelled(Exception):
    """The `cancel` of tiled_apply said so."""


@dataclass
class Report:
    """What tiled_apply did: the plan it ended with, and a line for each time it had to start again."""

    plan: TilePlan
    scale: int
    statistics: str
    blend: str
    batch: int
    features: str = "device"
    span: int = 0
    passes: int = 2
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def seams(self) -> tuple[list[int], list[int]]:
        """Rows and columns of the output at which a new tile (`exact`, `window`: a new chunk) starts."""
        return self.plan.seams(self.scale)

    def __str__(self) -> str:
        size = f"{self.plan.x.size}x{self.plan.y.size} LR pixels x{self.scale}"
        if self.statistics in WALKED:
            place = (
                f"in {self.features} memory" if self.features in ("device", "host") else f"on disk in {self.features}"
            )
            what = "exact" if self.statistics == "exact" else f"statistics over windows of {self.span}"
            how = f"{what}, in {len(self.plan)} chunks of {self.plan.tile}, features {place}"
        else:
            how = (
                f"{len(self.plan)} tiles of {self.plan.tile} + {self.plan.halo}, {self.blend}, {self.statistics}, "
                f"{self.batch} at once, {self.plan.overhead:.2f} pixels read per pixel"
            )
        return "\n".join([f"{size}: {how}, {self.seconds:.1f} s", *self.notes])


@dataclass(frozen=True)
class Execution:
    """Where and how a plan is run. Nothing here changes the picture, but for the rounding of `dtype`.

    device: where the model runs, None for where its parameters are; only tiles move there. dtype: of autocast, None
    for none. features: where "exact" keeps its maps: "device", "host", or a folder for a memory map.
    on_oom: "raise", or "shrink", which halves the batch, then the tile ("exact": keeps its maps in host memory, then
    halves the chunk), and starts the whole pass again (mixed plans make seams); the report says so.
    progress(done, total) is called after every call of the model; cancel() is called before each: if it returns True,
    Cancelled is raised.
    """

    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    features: str = "device"
    on_oom: str = "raise"
    progress: Callable[[int, int], None] | None = None
    cancel: Callable[[], bool] | None = None


def tiled_apply(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    plan: TilePlan,
    *,
    scale: int,
    blend: str = "crop",
    statistics: str = "local",
    span: int = 0,
    passes: int = 2,
    batch: int | None = None,
    out: Out | None = None,
    how: Execution = Execution(),
    started: Callable[[TilePlan], None] | None = None,
) -> tuple[Tensor | None, Report]:
    """Upscale x (B, C, H, W) in tiles; returns (picture (B, C, H*scale, W*scale), report).

    Differentiable from end to end while `out` is None and statistics are local; to upscale pictures call it under
    torch.no_grad(), or every tile's graph is kept.

    plan: plan_tiles(H, W, ...), or what auto_plan chooses.
    blend: "crop" keeps each core; "ramp" fades linearly over `halo` LR pixels straddling each seam;
    "gaussian" and "mean" average all that was read, and are there for comparison.
    statistics: what a network computes from means, variances or norms over the whole picture (PictureSums) is, with
    "local", each tile's own; with "two_pass", taken in a first pass over all tiles and used in a second: twice
    the time, near-exact where the halo suffices; with "exact", the whole picture's: the model is evaluated layer by
    layer in chunks of the plan's tile (halo, offset, blend and batch have no effect), which needs a model with a
    method `walk`, such as HAT; see srlib.tiling.exact.Chunks for cost and memory. "window" does the same, but takes
    what comes from sums over the picture from overlapping windows of `span` LR pixels, a multiple of the network's
    window, as large as it was trained on; for networks of transposed attention, see srlib.tiling.spans.
    passes: of "two_pass"; each more than two takes statistics again, with those of the one before, and comes nearer.
    batch: tiles per call of the model, None for all of them at once. Their memory, and that of one row of tiles'
    output if `out` is given, is what is needed beside x.
    out: where the picture goes: None returns it, on x's device; a tensor, array or memory map (B, C, H*scale,
    W*scale), whole numbers being filled with rounded 0..max; or a function that is called with (band (B, C,
    rows, W*scale), first row) from top to bottom, on x's device, after a restart from row 0 again. None is then
    returned for the picture.
    started: called with the plan before it is run, and after a restart with the smaller one.

    Raises ValueError for an unknown choice, and for a plan or an `out` of another size than x; MemoryError when even
    the smallest plan does not fit; FloatingPointError before NaN or infinity is written to a tensor, array or memory
    map (what is returned, or given to a function, is as the network made it); Cancelled.
    """
    exact = statistics in WALKED
    _check(model, x, plan, blend, statistics, span, passes, batch, how)
    if exact:
        grid: dict[str, Any] = {"window": plan.window, "own_padding": plan.own_padding}
        plan = plan_tiles(plan.y.size, plan.x.size, tile=plan.tile, halo=0, **grid)
    sink = None if out is None else sink_of(out, len(x), plan.y.size * scale, plan.x.size * scale)
    if sink and sink is not out:
        sink = checked(sink, how.dtype or x.dtype)
    device = _device(model, x, how)
    report = Report(plan, scale, statistics, blend, min(batch or len(plan), len(plan)), how.features, span, passes)

    start = time.perf_counter()
    while True:
        job = _Job(model, x, report, device, how, sink)
        if started:
            started(report.plan)
        try:
            picture = job.exact() if exact else job.tiled()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            report.seconds = time.perf_counter() - start
            return picture, report
        except (RuntimeError, MemoryError) as error:
            if how.on_oom == "raise" or not _out_of_memory(error):
                raise
            smaller = _shrink(report, device)
            if smaller is None:
                raise MemoryError(
                    f"out of memory with one tile of {report.plan.tile}, and there is no smaller plan; use a smaller "
                    + ("picture, or features on disk" if exact else "halo, another device, or statistics='exact'")
                ) from error
            report = smaller
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _check(
    model: Any,
    x: Tensor,
    plan: TilePlan,
    blend: str,
    statistics: str,
    span: int,
    passes: int,
    batch: int | None,
    how: Execution,
) -> None:
    """All that can be wrong with tiled_apply's arguments, before the model runs."""
    choices = [("blend", blend, BLENDS), ("statistics", statistics, STATISTICS), ("on_oom", how.on_oom, ON_OOM)]
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")
    if x.ndim != 4:
        raise ValueError(f"x must be (B, C, H, W), not {tuple(x.shape)}")
    if x.shape[-2:] != (plan.y.size, plan.x.size):
        raise ValueError(f"the plan is for {plan.y.size}x{plan.x.size} LR pixels, x has {x.shape[-2]}x{x.shape[-1]}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch {batch}: at least one tile goes through the model at once")
    if statistics in WALKED and not hasattr(model, "walk"):
        name = type(model).__name__
        raise ValueError(f"{name} has no walk(x, run, out): {statistics!r} needs one; 'two_pass' comes near")
    if statistics in WALKED and getattr(model, "training", False):
        raise ValueError(f"{statistics} is for a network in eval mode: call model.eval() first")
    if passes < 2:
        raise ValueError(f"passes {passes}: 'two_pass' takes 2 or more")
    if statistics == "window" and (span < 1 or span % plan.window):
        raise ValueError(f"span {span}: statistics 'window' take windows of a multiple of {plan.window} LR pixels")
    if statistics != "window" and span:
        raise ValueError(f"span {span} is for statistics 'window', not {statistics!r}")


def _device(model: Any, x: Tensor, how: Execution) -> torch.device:
    """Where the model runs: as told, or where its parameters are, or x."""
    parameter = next(model.parameters(), x) if isinstance(model, nn.Module) else x
    return torch.device(how.device or parameter.device)


def _out_of_memory(error: BaseException) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    said = ("allocate memory", "not enough memory", "ALLOC_FAILED")  # the CPU's allocator, cuBLAS and cuDNN
    return isinstance(error, kinds) or any(words in str(error) for words in said)


def _shrink(report: Report, device: torch.device) -> Report | None:
    """The next smaller way, or None. Tiles: half the batch, then half the tile; exact: maps off the device first."""
    plan, exact = report.plan, report.statistics in WALKED
    before = f"out of memory with tile {plan.tile}" + ("" if exact else f", batch {report.batch}")
    if exact and report.features == "device" and device.type != "cpu":
        report, after = replace(report, features="host"), "features in host memory"
    elif report.batch > 1 and not exact:
        report = replace(report, batch=report.batch // 2)
        after = f"batch {report.batch}"
    elif (half := plan.halved()) is not None:
        report, after = replace(report, plan=half), f"tile {half.tile}"
    else:
        return None
    return replace(report, notes=[*report.notes, f"{before}: started again with {after}"])


class _Job:
    """One attempt at one plan."""

    def __init__(
        self,
        model: Any,
        x: Tensor,
        report: Report,
        device: torch.device,
        how: Execution,
        sink: Sink | None,
    ):
        self.model, self.x, self.report, self.device = model, x, report, device
        self.autocast = torch.autocast(device.type, how.dtype) if how.dtype else nullcontext()
        self.progress, self.cancel = how.progress, how.cancel
        self.done = self.total = 0
        self.means = Means(report.plan, len(x)) if report.statistics == "two_pass" else None
        self.canvas = Canvas(x.shape[-2] * report.scale, x.shape[-1] * report.scale, sink)

    def before_each(self) -> None:
        """Before each call of the model, and once after the last."""
        if self.progress and self.done:
            self.progress(self.done, self.total)
        if self.cancel and self.cancel():
            raise Cancelled(f"cancelled after {self.done} steps" + (f" of {self.total}" if self.total else ""))
        self.done += 1

    def tiled(self) -> Tensor | None:
        plan = self.report.plan
        groups = [range(len(plan))[i : i + self.report.batch] for i in range(0, len(plan), self.report.batch)]
        weights = [blend_weights(axis, plan.halo, self.report.scale, self.report.blend) for axis in (plan.y, plan.x)]
        self.total = len(groups) * (self.report.passes if self.means else 1)
        if self.means:
            for number in range(self.report.passes - 1):
                if number:
                    self.means.again()
                for numbers in groups:
                    with torch.no_grad():
                        self._call(numbers)
                    self.means.check(self.model)
            self.means.use()
        for numbers in groups:
            for number, tile in zip(numbers, self._call(numbers), strict=True):
                self._place(tile, number, *weights)
        self.before_each()
        return self.canvas.close()

    def _call(self, numbers: Sequence[int]) -> Tensor:
        """The model on some tiles -> (T, B, C, read_h*scale, read_w*scale), where the picture is."""
        self.before_each()
        reads = cut(self.x, self.report.plan, numbers)  # (T, B, C, read_h, read_w)
        if self.means:
            self.means.numbers = numbers
        with self.autocast, self.means or nullcontext():
            tiles = self.model(reads.flatten(0, 1).to(self.device))
        return tiles.to(self.x).unflatten(0, reads.shape[:2])

    def _place(self, tile: Tensor, number: int, rows: list[Tensor], columns: list[Tensor]) -> None:
        """Add (B, C, read_h*scale, read_w*scale) with its weights, of which only the span that is not zero."""
        plan, scale = self.report.plan, self.report.scale
        i, j = divmod(number, len(columns))
        (ya, yb), (xa, xb) = span(rows[i]), span(columns[j])
        part = tile[..., ya:yb, xa:xb]
        if self.report.blend != "crop":
            part = part * (rows[i][ya:yb, None] * columns[j][None, xa:xb]).to(part)
        self.canvas.add(part, plan.y.origins[i] * scale + ya, plan.x.origins[j] * scale + xa)
        if j == len(columns) - 1:  # the end of a row of tiles: what lies above the next one's span is done
            last = i == len(rows) - 1
            self.canvas.finish(plan.y.size * scale if last else plan.y.origins[i + 1] * scale + span(rows[i + 1])[0])

    @torch.no_grad()
    def exact(self) -> Tensor | None:
        report = self.report
        chunks = Chunks(
            report.plan.tile,
            device=self.device,
            features=report.features,
            before_each=self.before_each,
            spans=report.span,
        )
        if self.progress or report.span:
            self.total = chunks.steps(self.model, self.x)
        with self.autocast:
            self.model.walk(self.x, chunks, self._place_chunk)
        self.before_each()
        return self.canvas.close()

    def _place_chunk(self, piece: Tensor, y: int, x: int) -> None:
        """piece: (B, rows, columns, C) at row y, column x of the padded output."""
        if y >= self.canvas.height or x >= self.canvas.width:
            return  # of a network that pads further than a chunk is large
        piece = piece.permute(0, 3, 1, 2)[..., : self.canvas.height - y, : self.canvas.width - x]
        with torch.autocast(self.device.type, enabled=False):  # whoever takes the picture is no part of the model
            self.canvas.finish(y)
            self.canvas.add(piece.to(self.x), y, x)


def auto_plan(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    halo: int,
    window: int,
    batch: int = 1,
    exact: bool = False,
    own_padding: bool = False,
    how: Execution = Execution(),
) -> TilePlan:
    """A plan for x (B, C, H, W) that fits in half of the free memory with `batch` tiles at once: of the tiles up to
    1024 the one that reads the fewest pixels, without halo the one with the fewest seams. One small tile is tried to
    see what a pixel costs. Give tiled_apply the same batch.
    exact: the largest chunk that fits, up to 128, on a GPU 256; larger ones are not faster. own_padding: as plan_tiles
    takes it.

    Raises MemoryError when not even a tile of one window fits.
    """
    device = _device(model, x, how)
    side = max(64 // window, 2) * window
    grid: dict[str, Any] = {"window": window, "own_padding": own_padding}
    small = cut(x, plan_tiles(*x.shape[-2:], tile=side, halo=0, **grid), [0])[0].to(device)
    # without the cache the half-precision copies of the weights do not count as the pixels' cost
    with torch.autocast(device.type, how.dtype, cache_enabled=False) if how.dtype else nullcontext():
        cost = bytes_per_pixel(model, small) * len(x)
    budget = free_bytes(device) / 2
    limit = 1024 if not exact else 256 if device.type == "cuda" else 128
    step = window * -(-8 // window)  # of windows smaller than 8 not every multiple is tried
    plans = [
        plan_tiles(*x.shape[-2:], tile=tile, halo=0 if exact else halo, **grid)
        for tile in range(step, limit + 1, step)
        if tile - step < max(x.shape[-2:])
    ]
    fitting = [plan for plan in plans if plan.memory(cost, batch) <= budget]
    if not fitting:
        raise MemoryError(
            f"a tile of {plans[0].y.read}x{plans[0].x.read} needs {plans[0].memory(cost, batch) / 2**20:.0f} MiB, "
            f"half of what is free on {device} is {budget / 2**20:.0f} MiB; use a smaller halo or another device"
        )
    if exact:
        return fitting[-1]
    return min(fitting, key=lambda plan: (plan.overhead, plan.tile) if halo else (len(plan), plan.overhead))
