"""The output of a run in tiles: only the rows still being added to are in memory."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Sink = Callable[[Tensor, int], None]  # called with (band (B, C, rows, W), first row), from top to bottom
Out = Sink | Tensor | np.ndarray  # where a picture goes: see sink_of


class Canvas:
    """(B, C, height, width), all zero, to which pieces are added; finished rows go to `sink` and are forgotten.

    Without a sink it is one tensor, through which gradients flow, and `close` returns it.
    """

    def __init__(self, height: int, width: int, sink: Sink | None = None):
        self.height, self.width, self.sink = height, width, sink
        self.top = 0
        self.rows: Tensor | None = None

    def add(self, piece: Tensor, y: int, x: int) -> None:
        """Add (B, C, h, w) with its corner at row y, column x; rows above `finish` are gone."""
        if self.rows is None:
            self.rows = piece.new_zeros(*piece.shape[:2], 0 if self.sink else self.height, self.width)
        y -= self.top
        missing = y + piece.shape[2] - self.rows.shape[2]
        if missing > 0:
            self.rows = F.pad(self.rows, (0, 0, 0, missing))
        self.rows[:, :, y : y + piece.shape[2], x : x + piece.shape[3]] += piece

    def finish(self, until: int) -> None:
        """Nothing will be added above row `until`."""
        if self.sink and until > self.top:
            assert self.rows is not None  # pieces come before the rows that they finish
            count = until - self.top
            self.sink(self.rows[:, :, :count], self.top)
            self.rows, self.top = self.rows[:, :, count:].clone(), until

    def close(self) -> Tensor | None:
        """Finish all rows; the whole tensor where there is no sink."""
        self.finish(self.height)
        return None if self.sink else self.rows


def sink_of(out: Out, batch: int, height: int, width: int) -> Sink:
    """What writes bands into `out`: a function as it is; a tensor, array or memory map (batch, C, height, width)
    is filled, whole numbers with 0..max for [0, 1], rounded half up. Raises ValueError for another shape.
    """
    if callable(out) and not isinstance(out, Tensor):
        return out
    shape = tuple(getattr(out, "shape", ()))
    if len(shape) != 4 or (shape[0], *shape[2:]) != (batch, height, width):
        raise ValueError(f"out must be ({batch}, channels, {height}, {width}), not {shape or type(out).__name__}")

    def write(band: Tensor, top: int) -> None:
        rows = (slice(None), slice(None), slice(top, top + band.shape[2]))
        if isinstance(out, Tensor):
            out[rows].copy_(band if out.is_floating_point() else _integers(band, torch.iinfo(out.dtype).max))
            return
        whole = np.issubdtype(out.dtype, np.integer)
        out[rows] = (_integers(band, np.iinfo(out.dtype).max) if whole else band).cpu().numpy()

    return write


def checked(sink: Sink, dtype: torch.dtype) -> Sink:
    """A sink that hands on to `sink` only bands that are finite, so that nothing is made of the others.

    dtype: of the arithmetic, which the FloatingPointError names, with what helps.
    """
    names = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
    overflows = "numbers above 65504 are infinite in it: use bf16 or fp32"
    broken = "the weights themselves are broken: use another checkpoint"

    def take(band: Tensor, top: int) -> None:
        if not (finite := band.isfinite()).all():
            share = 100 * (~finite).any(1).double().mean().item()
            raise FloatingPointError(
                f"the network's output holds NaN or infinity in {share:.3g} % of the pixels of rows {top} to "
                f"{top + band.shape[2] - 1}, at precision {names.get(dtype, dtype)}: "
                + (overflows if dtype == torch.float16 else broken)
            )
        sink(band, top)

    return take


def _integers(band: Tensor, top: int) -> Tensor:
    return (band.double().clamp(0, 1) * top + 0.5).floor()


def filtered(
    operation: Callable[[Tensor, int, int, int], Tensor],
    reach: int,
    height: int,
    sink: Sink,
    *,
    step: int = 1,
    least: int = 1,
) -> Sink:
    """A sink that passes bands through `operation` on to `sink`.

    operation: (held, first, top, bottom) -> (B, C, bottom - top, W), the rows top to bottom of the result, where a
    pixel depends on others up to `reach` rows away; held are the picture's rows from `first` on, with `reach` rows
    above and below, as far as there are any. step: top and bottom are multiples of it, or the picture's end; least:
    it is called for at least so many rows, which wait until then.
    """
    held: Tensor | None = None  # rows from `first` on
    first = done = 0

    def take(band: Tensor, top: int) -> None:
        nonlocal held, first, done
        if held is None or top == 0:  # the latter also after a restart
            held, first, done = band, 0, 0
        else:
            held = torch.cat([held, band], 2)
        bottom = top + band.shape[2]
        until = bottom if bottom == height else (bottom - reach) // step * step
        if until - done >= least or (bottom == height and until > done):
            sink(operation(held, first, done, until), done)
            done = until
            keep = max(done - reach, 0) // step * step
            held, first = held[:, :, keep - first :].clone(), keep

    return take
