"""TiledSR: HAT through tiles, then a small residual network that erases what tiling left behind."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from srlib.networks.hat import HAT, check_whole
from srlib.networks.wrappers import unwrapped
from srlib.tiling.canvas import Out, checked, filtered, sink_of
from srlib.tiling.exact import Chunks
from srlib.tiling.plan import TilePlan, plan_tiles
from srlib.tiling.tiled import Execution, Report, auto_plan, tiled_apply


class TiledSR(nn.Module):
    """hat_model -> stitch -> residual_block -> out_conv, differentiable from end to end.

    use_tiling: cut the LR batch into tiles of `tile_size` with `tile_pad` pixels of context (LR pixels,
    multiples of HAT's window; by default 64 and 32, or the next such multiples); False sends the picture through
    whole. In training mode the tile grid is shifted at random, so that the eraser cannot learn one grid. tile_batch:
    tiles per call of HAT (None: all at once, as training needs; a number bounds the memory of a large picture).
    channels, blocks: the eraser's width and its number of residual pairs of convolutions.
    tile_choices: tile sizes of which one is drawn for every batch in training, instead of tile_size.

    The eraser adds its output to the stitched picture and starts as the identity (out_conv is zero).
    Raises ValueError, naming the argument and what is allowed, for arguments that it cannot run with.
    """

    def __init__(
        self,
        hat_model: HAT,
        *,
        use_tiling: bool = False,
        tile_size: int | None = None,
        tile_pad: int | None = None,
        tile_batch: int | None = None,
        channels: int = 32,
        blocks: int = 2,
        tile_choices: Sequence[int] = (),
    ):
        super().__init__()
        self.hat_model = hat_model
        window, colours = self.window, self._hat.config["in_chans"]
        tile_size = 64 + -64 % window if tile_size is None else tile_size
        tile_pad = 32 + -32 % window if tile_pad is None else tile_pad
        if not isinstance(use_tiling, bool):
            raise ValueError(f"use_tiling {use_tiling!r} must be True or False")
        _check_grid("tile_size", tile_size, window, least=window)
        _check_grid("tile_pad", tile_pad, window, least=0)
        if not isinstance(tile_choices, list | tuple):
            raise ValueError(f"tile_choices {tile_choices!r} must be a list of tile sizes")
        for choice in tile_choices:
            _check_grid("tile_choices: tile_size", choice, window, least=window)
        if tile_batch is not None:
            check_whole("tile_batch", tile_batch)
        check_whole("channels", channels)
        check_whole("blocks", blocks, least=0)
        self.residual_block = ResidualBlock(colours, channels, blocks)
        self.out_conv = nn.Conv2d(channels, colours, 3, padding=1)
        for parameter in self.out_conv.parameters():
            nn.init.zeros_(parameter)
        self.use_tiling = use_tiling
        self.tile_size = tile_size
        self.tile_pad = tile_pad
        self.tile_batch = tile_batch
        self.tile_choices = tuple(tile_choices)
        self.hat_frozen = False
        self._sizes = {"channels": channels, "blocks": blocks}

    @property
    def config(self) -> dict:
        """What a checkpoint carries: HAT's arguments under "hat", and this class's."""
        tiling = {name: getattr(self, name) for name in ("use_tiling", "tile_size", "tile_pad")}
        return {"hat": self._hat.config, **tiling, **self._sizes, "tile_choices": list(self.tile_choices)}

    @property
    def scale(self) -> int:
        """Output pixels per LR pixel, along each axis."""
        return self._hat.scale

    @property
    def window(self) -> int:
        """LR pixels: the side of HAT's windows; tiles and their context are multiples of it."""
        return self._hat.window

    @property
    def _hat(self) -> HAT:
        """HAT itself, where hat_model is a compiled or parallel one."""
        return cast(HAT, unwrapped(self.hat_model))

    def _walking(self, exact: bool) -> HAT:
        """What tiles go through; exact tiling takes HAT itself, whose steps a parallel one hides."""
        return self._hat if exact else self.hat_model

    @property
    def reach(self) -> int:
        """Output pixels around it that the eraser looks at for one pixel."""
        return 2 + 2 * self._sizes["blocks"]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1] -> (B, C, H*scale, W*scale), not clamped.

        Raises ValueError when tile_size or tile_pad is not a multiple of HAT's window.
        """
        if not self.use_tiling:
            return self.erase(self.hat_model(x))
        window, tile, offset = self.window, self.tile_size, (0, 0)
        if self.training and self.tile_choices:
            tile = self.tile_choices[torch.randint(len(self.tile_choices), ())]
        if self.training and tile > window:
            draw = torch.randint(0, tile // window, (2,)).tolist()
            offset = (draw[0] * window, draw[1] * window)
        plan = plan_tiles(*x.shape[-2:], tile=tile, halo=self.tile_pad, window=window, offset=offset)
        stitched, _ = tiled_apply(self.hat_model, x, plan, scale=self.scale, batch=self.tile_batch)
        assert stitched is not None  # no `out` was given
        return self.erase(stitched)

    def plan(
        self,
        x: Tensor,
        *,
        tile: int | str | None = None,
        halo: int | None = None,
        window: int | None = None,
        batch: int = 1,
        exact: bool = False,
        how: Execution = Execution(),
    ) -> TilePlan:
        """Tiles for x (B, C, H, W): tile_size and tile_pad on HAT's windows, unless told otherwise. tile: LR pixels,
        or "auto": as large as auto_plan finds for `batch` tiles at once (exact: for exact tiling). Raises ValueError
        off the window grid.
        """
        halo = self.tile_pad if halo is None else halo
        window = self.window if window is None else window
        tile = self.tile_size if tile is None else tile
        if tile == "auto":
            return auto_plan(self._walking(exact), x, halo=halo, window=window, batch=batch, exact=exact, how=how)
        if not isinstance(tile, int):
            raise ValueError(f'tile {tile!r} is neither a number of LR pixels nor "auto"')
        return plan_tiles(*x.shape[-2:], tile=tile, halo=0 if exact else halo, window=window)

    @torch.no_grad()
    def tiled(
        self,
        x: Tensor,
        *,
        out: Out | None = None,
        chunk: int = 512,
        statistics: str = "local",
        blend: str = "crop",
        batch: int | None = None,
        tile: int | str | None = None,
        halo: int | None = None,
        window: int | None = None,
        how: Execution = Execution(),
    ) -> tuple[Any, Report]:
        """Upscale x (B, C, H, W) as tiled_apply does, eraser included; returns (picture, report), the picture being
        (B, C, H*scale, W*scale), or None where `out` takes it.

        tile, halo, window: as `plan` takes them. batch: tiles at once, by default tile_batch or else 1. statistics,
        blend, out, how: as of tiled_apply; a function as `out` gets its bands on the CPU, and nothing but finite ones:
        FloatingPointError is raised before NaN or infinity would go to any `out`.
        The eraser sees across the seams: it is applied to the stitched picture, band by band, each with the
        `reach` rows around it that it looks at, in squares of `chunk` output pixels. So the answer is the eraser's
        to the whole stitched picture, and with statistics="exact" that of the whole network. Without gradients;
        training goes through forward.
        """
        B, C, H, W = x.shape
        size = (H * self.scale, W * self.scale)
        picture = None
        if out is None:
            picture = x.new_empty(B, C, *size)
            sink = sink_of(picture, B, *size)
        else:
            sink = checked(sink_of(out, B, *size), how.dtype or x.dtype)
        step = Chunks(chunk, device=self.out_conv.weight.device, features="host")

        def erase(band: Tensor) -> Tensor:
            erased = step(self._erase_map, band.permute(0, 2, 3, 1), reach=self.reach)
            assert erased is not None  # no `out` was given
            return erased.permute(0, 3, 1, 2)

        batch = self.tile_batch or 1 if batch is None else batch
        exact = statistics == "exact"
        plan = self.plan(x, tile=tile, halo=halo, window=window, batch=batch, exact=exact, how=how)
        _, report = tiled_apply(
            self._walking(exact),
            x,
            plan,
            scale=self.scale,
            blend=blend,
            statistics=statistics,
            batch=batch,
            out=filtered(erase, self.reach, size[0], sink),
            how=how,
        )
        return picture, report

    @torch.no_grad()
    def whole(self, x: Tensor, limit: float = 0.25) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the whole picture at output size, not tiled. Above `limit` LR megapixels by exact
        tiling: the same to rounding, in a fraction of the memory.
        """
        if x.shape[-2] * x.shape[-1] <= limit * 1e6:
            return self.erase(self.hat_model(x))
        return self.tiled(x, statistics="exact", tile=8 * self.window, how=Execution(on_oom="shrink"))[0]

    def erase(self, stitched: Tensor) -> Tensor:
        """The eraser alone: (B, C, H, W) at output size -> the same."""
        return stitched + self.out_conv(self.residual_block(stitched))

    def _erase_map(self, stitched: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return self.erase(stitched.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def freeze_hat(self) -> "TiledSR":
        """Stage 3: HAT gets no gradient and stays in eval mode, whatever train() is told."""
        self.hat_frozen = True
        self.hat_model.requires_grad_(False).eval()
        return self

    def train(self, mode: bool = True) -> "TiledSR":
        """As nn.Module's, but a frozen HAT stays in eval mode."""
        super().train(mode)
        if self.hat_frozen:
            self.hat_model.eval()
        return self


def _check_grid(name: str, value: object, window: int, least: int) -> None:
    check_whole(name, value, least)
    if cast(int, value) % window:
        down = cast(int, value) // window * window
        raise ValueError(
            f"{name} {value} is not a multiple of the window {window}: off the window grid tiles cannot match the "
            f"whole picture; try {max(down, least)} or {down + window}"
        )


class ResidualBlock(nn.Module):
    """Features of the picture: one convolution, then `blocks` times x + conv(lrelu(conv(x)))."""

    def __init__(self, in_chans: int, channels: int, blocks: int):
        super().__init__()
        self.conv_in = nn.Conv2d(in_chans, channels, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, channels, H, W)."""
        x = self.conv_in(x)
        for block in self.body:
            x = x + block(x)
        return x
