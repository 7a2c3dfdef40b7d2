"""Exact tiling: a network evaluated step by step over the whole picture, each step in chunks of bounded memory.

A network takes part by a method `walk(x, run, out)` that hands its steps to `run` one after the other, as
srlib's HAT does; srlib/networks/walk.py's `whole` is the plain `run`, `Chunks` the one with bounded memory.
"""

import os
import tempfile
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srlib.tiling.spans import Axis, Cells, Total, parts


class Chunks:
    """Runs the steps of a `walk` in squares of `size` pixels: the same numbers as running whole maps, to rounding.

    A step is run chunk by chunk, with as much around each chunk as it looks at, into a map of the whole picture;
    then the next step. What needs the whole picture is a sum over pixels, added up chunk by chunk, or taken from a
    finished map. So nothing is approximated and no context is guessed, however deep the network is.

    Memory: the maps that a network keeps between steps, of HAT four of B*H*W*C*b bytes (H, W the padded picture in
    LR pixels, C embed_dim, b 4 in fp32: input, shortcut, and two that a step reads and writes; that of keys and values
    has 2*C channels), and what one step takes for one chunk, for HAT of the order of
    B * size**2 * b * max(20*C, 2*num_feat*scale**2). Only the maps grow with the picture, and `features` says where
    they lie. The answer goes out chunk by chunk.
    Time: the network's own, what convolutions repeat around chunks, less than (1 + 8/size)**2 of their own time,
    and the traffic between maps and chunks; benchmarks/tiling.py measures both.

    size: a multiple of the network's window; chunks have it at every level of a network that halves its maps. device:
    where steps run. features: where maps are kept, "device", "host", or a folder in which each is a temporary memory
    map, for pictures whose maps do not fit in memory. before_each: called before each step of each chunk.
    spans: sums are not taken over the whole picture but over overlapping windows of so many of its pixels, and each
    pixel is given the mean of the windows that it lies in (after Chu et al., TLC, ECCV 2022); 0: the whole picture.
    """

    def __init__(
        self,
        size: int,
        *,
        device: torch.device,
        features: str = "device",
        before_each: Callable[[], None] = lambda: None,
        spans: int = 0,
    ):
        self.size, self.device, self.features, self.before_each, self.spans = size, device, features, before_each, spans
        self.picture = 0  # rows of the first step's maps

    def __call__(
        self,
        step: Callable[..., Tensor],
        *maps: Tensor,
        reach: int = 0,
        margin: int = 0,
        shift: int | tuple[int, int] = 0,
        multiple: int = 1,
        sums: Callable[[Tensor], Tensor] | None = None,
        then: Callable[[Tensor, int], Tensor] | None = None,
        given: Any = None,
        out: Tensor | Callable[[Tensor, int, int], None] | None = None,
    ) -> Any:
        """As srlib.networks.walk.whole. out: a map to overwrite, or a function called with (piece (B, rows, columns,
        C), first row, first column) for each chunk, from the top left; then None is returned.
        """
        height, width = maps[0].shape[1:3]
        H, W = height + -height % multiple, width + -width % multiple
        down, across = (shift, shift) if isinstance(shift, int) else shift
        self.picture = self.picture or H
        cells = given if isinstance(given, Cells) else None
        axes = (cells.y, cells.x) if cells else None
        if sums and self.spans:
            span = max(self.spans * H // self.picture, 1)
            axes = Axis(H, span), Axis(W, span)
        total = Total(axes)
        for top, bottom, i in parts(H, self.size, axes and axes[0]):
            for left, right, j in parts(W, self.size, axes and axes[1]):
                rows, columns = [slice(top, bottom)], [slice(left, right)]
                y, x = max(top - reach, 0), max(left - reach, 0)
                self.before_each()
                if shift:
                    rows, columns = _wrapped(top + down, bottom + down, H), _wrapped(left + across, right + across, W)
                if shift or multiple > 1:
                    chunks = [
                        torch.cat([torch.cat([_part(m, r, c) for c in columns], 2) for r in rows], 1) for m in maps
                    ]
                else:
                    chunks = [m[:, y : bottom + reach, x : right + reach] for m in maps]
                if margin:
                    chunks[-1] = _with_margin(maps[-1], top, bottom, left, right, margin)
                chunks = [_moved(chunk, self.device) for chunk in chunks]
                more = {} if given is None else {"given": cells.values[i][j] if cells else given}
                result = step(*chunks, (bottom == H, right == W), **more) if shift else step(*chunks, **more)
                scale = Fraction(result.shape[1], chunks[0].shape[1])
                (ya, yb), (xa, xb) = (
                    [int(edge * scale) for edge in edges] for edges in ((top - y, bottom - y), (left - x, right - x))
                )
                result = result[:, ya:yb, xa:xb]
                if sums:
                    total.add(i, j, sums(result), result.shape[1] * result.shape[2])
                    continue
                if callable(out):
                    out(result, int(top * scale), int(left * scale))
                    continue
                if out is None:
                    out = self._new(
                        (len(result), int(height * scale), int(width * scale), result.shape[3]), result.dtype
                    )
                if scale != 1:
                    rows, columns = (
                        [slice(int(s.start * scale), int(s.stop * scale)) for s in ss] for ss in (rows, columns)
                    )
                result = _moved(result, out.device)
                for r, part in zip(rows, result.split([r.stop - r.start for r in rows], 1), strict=True):
                    for c, square in zip(columns, part.split([c.stop - c.start for c in columns], 2), strict=True):
                        place = out[:, r, c]  # smaller where the map was extended
                        place.copy_(square[:, : place.shape[1], : place.shape[2]])
        if sums:
            assert then is not None
            return total.result(then)
        return None if callable(out) else out

    def _new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        place = self.device if self.features == "device" else torch.device("cpu")
        if place.type == "cpu":
            dtype = torch.promote_types(
                dtype, torch.float32
            )  # a mean over a half-precision map would make a float copy of all of it there
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
        """How many chunks the model's walk has for x, found on a picture of one pixel. ValueError where `spans` would
        change nothing.
        """
        noting = _Noting(self.size, device=self.device, spans=self.spans)
        model.walk(x[:1, :, :1, :1].to(self.device), noting, lambda *_: None)
        seen = noting.seen
        if self.spans and not any(windowed for _, windowed in seen):
            raise ValueError(f"the walk of {type(model).__name__} takes no sums: 'window' would be 'exact'")
        least = seen[0][0]  # rows and columns that one pixel is padded to: of the window, or more
        window = min(getattr(model, "window", least), least)
        chunks = 0
        for rows, windowed in seen:
            sides = [-(-side // window) * window * rows // least for side in x.shape[2:]]
            span = max(self.spans * rows // least, 1)
            counts = [len(list(parts(side, self.size, Axis(side, span) if windowed else None))) for side in sides]
            chunks += counts[0] * counts[1]
        return chunks


class _Noting(Chunks):
    """Chunks that note of each step its maps' rows, and whether it is run window by window."""

    def __init__(self, size: int, **how: Any):
        super().__init__(size, **how)
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, step: Callable[..., Tensor], *maps: Tensor, **how: Any) -> Any:
        windowed = bool(self.spans and how.get("sums")) or isinstance(how.get("given"), Cells)
        self.seen.append((maps[0].shape[1], windowed))
        return super().__call__(step, *maps, **how)


def _moved(part: Tensor, device: torch.device) -> Tensor:
    """The part on the device. Between a GPU and the host through pinned memory, which PyTorch keeps for the next one:
    fresh memory and unpinned copies of a map's parts took a hundred times as long as the network.
    """
    if part.device.type == device.type or "cuda" not in (part.device.type, device.type):
        return part.to(device)
    staged = torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part)
    return staged.to(device, non_blocking=True)


def _wrapped(start: int, stop: int, size: int) -> list[slice]:
    """[start, stop) with positions from `size` on meaning those from 0 on; start < size."""
    return [slice(start, stop)] if stop <= size else [slice(start, size), slice(0, stop - size)]


def _part(m: Tensor, rows: slice, columns: slice) -> Tensor:
    """These rows and columns of the map (B, H, W, C), zeros where they lie beyond its bottom and right."""
    part = m[:, rows, columns]
    below, after = rows.stop - rows.start - part.shape[1], columns.stop - columns.start - part.shape[2]
    return F.pad(part, (0, 0, 0, after, 0, below)) if below or after else part


def _with_margin(m: Tensor, top: int, bottom: int, left: int, right: int, margin: int) -> Tensor:
    """The part of the map (B, H, W, C) with `margin` more pixels on each side, zeros beyond the border."""
    H, W = m.shape[1:3]
    y, x = max(top - margin, 0), max(left - margin, 0)
    part = m[:, y : bottom + margin, x : right + margin]
    above, before = y - (top - margin), x - (left - margin)
    below, after = max(bottom + margin - H, 0), max(right + margin - W, 0)
    return F.pad(part, (0, 0, before, after, above, below))
