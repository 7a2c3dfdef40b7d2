"""Exact tiling: a network evaluated step by step over the whole picture, each step in chunks of bounded memory.

A network takes part by a method `walk(x, run, out)` that hands its steps to `run` one after the other, as
srlib's HAT does; srlib/networks/hat.py's `whole` is the plain `run`, `Chunks` the one with bounded memory.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Chunks:
    """Runs the steps of a `walk` in squares of `size` pixels: the same numbers as running whole maps, to rounding.

    A step is run chunk by chunk, with as much around each chunk as it looks at, into a map of the whole picture;
    then the next step. What needs the whole picture, a mean, is taken from a finished map. So nothing is
    approximated and no context is guessed, however deep the network is.

    Memory: four maps of B*H*W*C*b bytes (H, W the padded picture in LR pixels, C embed_dim, b 4 in fp32: input,
    shortcut, and two that a step reads and writes; that of keys and values has 2*C channels), and what one step
    takes for one chunk, of the order of
    B * size**2 * b * max(20*C, 2*num_feat*scale**2). Only the maps grow with the picture, and `features` says where
    they lie. The answer goes out chunk by chunk.
    Time: the network's own, what convolutions repeat around chunks, less than (1 + 8/size)**2 of their own time,
    and the traffic between maps and chunks; benchmarks/tiling.py measures both.

    size: a multiple of the network's window. device: where steps run. features: where maps are kept, "device",
    "host", or a folder in which each is a temporary memory map, for pictures whose maps do not fit in memory.
    before_each: called before each step of each chunk.
    """

    def __init__(
        self,
        size: int,
        *,
        device: torch.device,
        features: str = "device",
        before_each: Callable[[], None] = lambda: None,
    ):
        self.size, self.device, self.features, self.before_each = size, device, features, before_each

    def __call__(
        self,
        step: Callable[..., Tensor],
        *maps: Tensor,
        reach: int = 0,
        margin: int = 0,
        shift: int = 0,
        out: Tensor | Callable[[Tensor, int, int], None] | None = None,
    ) -> Tensor | None:
        """As srlib.networks.hat.whole. out: a map to overwrite, or a function called with (piece (B, rows, columns, C),
        first row, first column) for each chunk, from the top left; then None is returned. A step that upscales
        needs the latter.
        """
        H, W = maps[0].shape[1:3]
        for top in range(0, H, self.size):
            for left in range(0, W, self.size):
                bottom, right = min(top + self.size, H), min(left + self.size, W)
                rows, columns = [slice(top, bottom)], [slice(left, right)]
                y, x = max(top - reach, 0), max(left - reach, 0)
                self.before_each()
                if shift:
                    rows, columns = _wrapped(top + shift, bottom + shift, H), _wrapped(left + shift, right + shift, W)
                    chunks = [torch.cat([torch.cat([m[:, r, c] for c in columns], 2) for r in rows], 1) for m in maps]
                else:
                    chunks = [m[:, y : bottom + reach, x : right + reach] for m in maps]
                if margin:
                    chunks[-1] = _with_margin(maps[-1], top, bottom, left, right, margin)
                chunks = [chunk.to(self.device) for chunk in chunks]
                result = step(*chunks, (bottom == H, right == W)) if shift else step(*chunks)
                scale = result.shape[1] // chunks[0].shape[1]
                result = result[:, (top - y) * scale :, (left - x) * scale :]
                result = result[:, : (bottom - top) * scale, : (right - left) * scale]
                if callable(out):
                    out(result, top * scale, left * scale)
                    continue
                if out is None:
                    out = self._new((len(result), H * scale, W * scale, result.shape[3]), result.dtype)
                for r, part in zip(rows, result.split([r.stop - r.start for r in rows], 1), strict=True):
                    for c, square in zip(columns, part.split([c.stop - c.start for c in columns], 2), strict=True):
                        out[:, r, c] = square
        return None if callable(out) else out

    def _new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        place = self.device if self.features == "device" else torch.device("cpu")
        if place.type == "cpu":
            dtype = torch.float32  # a mean over a half-precision map would make a float copy of all of it there
        if self.features in ("device", "host"):
            return torch.empty(shape, dtype=dtype, device=place)
        size = torch.Size(shape).numel()
        with tempfile.NamedTemporaryFile(dir=self.features, prefix="features-") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)  # a full disk is an error here, not a crash
            except OSError as error:
                room = f"a map of {size * dtype.itemsize / 2**20:.0f} MiB"
                raise OSError(f"features {self.features}: no room for {room} ({error.strerror})") from error
            # unlinked at once: the space is given back when the last map of it goes, however the program ends
            return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)

    def steps(self, model: Any, x: Tensor) -> int:
        """How many steps the model's walk has, counted on one window."""
        calls = 0

        def count() -> None:
            nonlocal calls
            calls += 1

        counting = Chunks(self.size, device=self.device, before_each=count)
        model.walk(x[:1, :, :1, :1].to(self.device), counting, lambda *_: None)
        return calls


def _wrapped(start: int, stop: int, size: int) -> list[slice]:
    """[start, stop) with positions from `size` on meaning those from 0 on; start < size."""
    return [slice(start, stop)] if stop <= size else [slice(start, size), slice(0, stop - size)]


def _with_margin(m: Tensor, top: int, bottom: int, left: int, right: int, margin: int) -> Tensor:
    """The part of the map (B, H, W, C) with `margin` more pixels on each side, zeros beyond the border."""
    H, W = m.shape[1:3]
    y, x = max(top - margin, 0), max(left - margin, 0)
    part = m[:, y : bottom + margin, x : right + margin]
    above, before = y - (top - margin), x - (left - margin)
    below, after = max(bottom + margin - H, 0), max(right + margin - W, 0)
    return F.pad(part, (0, 0, before, after, above, below))
