"""Erasing band by band: a sink that passes the stitched picture on, computed anew only in strips near seams."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srlib.tiling.canvas import Sink, filtered
from srlib.tiling.plan import TilePlan
from srlib.tiling.seam_map import seam_map, strips

Erase = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # (stitched, lr, map of the seams, unit) -> stitched


class SeamStrips:
    """What TiledSR.tiled sends the stitched picture through: bands in, erased bands out to `sink`.

    erase: TiledSR.erase. x: (B, C, H, W), the LR picture, of which parts go to `device`. unit: of a plan's halo, as
    TiledSR.unit. radius, reach: LR pixels around a seam that are erased, and that the network looks at around each.
    chunk: side of the squares that go through it at once, in output pixels; so many rows wait for each other, too.
    Before the first band `start` is told the plan.
    """

    def __init__(
        self,
        erase: Erase,
        x: Tensor,
        *,
        scale: int,
        unit: Callable[[int], float],
        radius: int,
        reach: int,
        chunk: int,
        device: torch.device,
        sink: Sink,
    ):
        self.erase, self.x, self.scale, self.unit = erase, x, scale, unit
        self.radius, self.reach, self.device, self.direct = radius, reach, device, sink
        self.side = max(chunk // scale, 1)  # LR pixels
        height = x.shape[-2] * scale
        self.take = filtered(self._erased, reach * scale, height, sink, step=scale, least=max(chunk // 2, scale))

    def start(self, plan: TilePlan) -> None:
        """The plan that the next bands, from row 0 on, were stitched by."""
        self.plan, self.seams, self.gain = plan, plan.seams(1), self.unit(plan.halo)

    def __call__(self, band: Tensor, top: int) -> None:
        if self.gain and any(self.seams):
            self.take(band, top)
        else:
            self.direct(band, top)

    def _erased(self, held: Tensor, first: int, top: int, bottom: int) -> Tensor:
        """held: (B, C, rows, W*scale) from row `first` on -> its rows top to bottom (B, C, bottom - top, W*scale)."""
        s, width = self.scale, self.x.shape[-1]
        out = held[:, :, top - first : bottom - first].clone()
        rows = range(top // s, bottom // s)
        for tall, wide in strips(self.seams, rows, range(width), radius=self.radius, gap=2 * self.reach):
            for y in range(*tall, self.side):
                for x in range(*wide, self.side):
                    y1, x1 = min(y + self.side, tall[1]), min(x + self.side, wide[1])
                    piece = self._piece(held, first, (y, y1), (x, x1))
                    out[:, :, y * s - top : y1 * s - top, x * s : x1 * s] = piece
        return out

    def _piece(self, held: Tensor, first: int, tall: tuple[int, int], wide: tuple[int, int]) -> Tensor:
        """One square, computed with `reach` around it -> (B, C, (y1 - y)*scale, (x1 - x)*scale), on held's device."""
        s, (height, width) = self.scale, self.x.shape[-2:]
        rows = range(max(tall[0] - self.reach, 0), min(tall[1] + self.reach, height))
        columns = range(max(wide[0] - self.reach, 0), min(wide[1] + self.reach, width))
        stitched = held[:, :, rows.start * s - first : rows.stop * s - first, columns.start * s : columns.stop * s]
        lr = self.x[:, :, rows.start : rows.stop, columns.start : columns.stop]
        stitched, lr = stitched.to(self.device), lr.to(self.device)
        places: dict[str, Any] = {"radius": self.radius, "context": self.plan.halo, "device": self.device}
        erased = self.erase(stitched, lr, seam_map(self.seams, rows, columns, **places), self.gain)
        y, x = (tall[0] - rows.start) * s, (wide[0] - columns.start) * s
        return erased[:, :, y : y + (tall[1] - tall[0]) * s, x : x + (wide[1] - wide[0]) * s].to(held)
