"""TiledSR: HAT through tiles, then a small residual network that erases what tiling left behind near the seams."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srlib.networks.arguments import check_whole
from srlib.networks.gains import checked_gains, unit_of
from srlib.networks.hat import HAT
from srlib.networks.strips import SeamStrips
from srlib.networks.wrappers import unwrapped
from srlib.tiling.canvas import Out, checked, filtered, sink_of
from srlib.tiling.exact import Chunks
from srlib.tiling.plan import TilePlan, plan_tiles
from srlib.tiling.seam_map import CHANNELS, near, seam_map
from srlib.tiling.tiled import WALKED, Execution, Report, auto_plan, tiled_apply

SEES = ("seams", "lr")


class TiledSR(nn.Module):
    """hat_model -> stitch -> residual_block -> out_conv, differentiable from end to end.

    use_tiling: cut the LR batch into tiles of `tile_size` with `tile_pad` pixels of context (LR pixels,
    multiples of HAT's window; by default 64 and 32, or the next such multiples); False sends the picture through
    whole. In training mode the tile grid is shifted at random, so that the eraser cannot learn one grid. tile_batch:
    tiles per call of HAT (None: all at once, as training needs; a number bounds the memory of a large picture).
    tile_choices: tile sizes of which one is drawn for every batch in training, instead of tile_size.

    The eraser, residual_block and out_conv, works at LR resolution: it sees the stitched picture, folded by
    pixel_unshuffle, and by `sees` the map of the seams (srlib.tiling.seam_map) and the LR picture, and adds its output
    to the stitched picture within `radius` LR pixels of a seam. Everything else stays HAT's to the bit, and so does
    what was not tiled. channels, blocks: its width and its number of residual pairs of convolutions.
    gains: (halo, unit) pairs: in what unit its output counts for tiles of that context, the error that tiling makes
    near seams; between two halos the logarithm is interpolated, above the largest it is 0. Stage 3 measures them;
    without any, or with a unit of 0, nothing is erased. It starts as the identity (out_conv is zero).
    radius 0 is the eraser of older checkpoints: at output resolution, blind to where seams are, so that it is applied
    to everything, whole pictures too; `sees` and `gains` have no effect on it.

    Raises ValueError, naming the argument and what is allowed, for arguments that it cannot run with.
    """

    eraser_facts: Tensor  # of a radius above 0: see gains
    measured = ("eraser_facts",)  # not learned: a resumed training takes what its data says now

    def __init__(
        self,
        hat_model: HAT,
        *,
        use_tiling: bool = False,
        tile_size: int | None = None,
        tile_pad: int | None = None,
        tile_batch: int | None = None,
        channels: int = 64,
        blocks: int = 6,
        radius: int = 8,
        sees: Sequence[str] = SEES,
        gains: Sequence[Sequence[float]] = (),
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
        check_whole("radius", radius, least=0)
        if not isinstance(sees, list | tuple) or not set(sees) <= set(SEES):
            raise ValueError(f"sees {sees!r} must be a list of {', '.join(SEES)}, or of none of them")
        self.radius, self.sees = radius, tuple(name for name in SEES if name in sees)
        planes = colours * (self._hat.scale**2 if radius else 1)  # of the stitched picture, folded
        extra = {"seams": CHANNELS, "lr": colours} if radius else {}
        self.residual_block = ResidualBlock(planes + sum(extra.get(n, 0) for n in self.sees), channels, blocks)
        self.out_conv = nn.Conv2d(channels, planes, 3, padding=1)
        for parameter in self.out_conv.parameters():
            nn.init.zeros_(parameter)
        self.gains = gains
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
        eraser = {**self._sizes, "radius": self.radius, "sees": list(self.sees), "gains": self.gains}
        kind = type(self._hat).__name__
        named = {} if kind == "HAT" else {"network": kind}
        return {"hat": self._hat.config, **named, **tiling, **eraser, "tile_choices": list(self.tile_choices)}

    @property
    def gains(self) -> list[list[float]]:
        """[[halo, unit], ...] by halo, in fp32; of radius 0 none."""
        return self.eraser_facts[1:].tolist() if self.radius else []

    @gains.setter
    def gains(self, gains: Sequence[Sequence[float]]) -> None:
        pairs = checked_gains(gains)
        if self.radius:  # weights alone say what they are for: row 0 the radius and what it sees, then the gains
            code = float(sum(2 ** SEES.index(name) for name in self.sees))
            facts = torch.tensor([[float(self.radius), code], *pairs], device=self.out_conv.weight.device)
            self.register_buffer("eraser_facts", facts)

    def start(self) -> dict[str, Tensor]:
        """What a training begins from: the weights without the gains, which it measures."""
        return {name: value[:1] if name in self.measured else value for name, value in self.state_dict().items()}

    def _load_from_state_dict(self, state: Mapping, prefix: str, *others: Any) -> None:
        """As nn.Module's, but the weights may have any number of gains."""
        facts = state.get(f"{prefix}eraser_facts")
        if self.radius and facts is not None:
            self.eraser_facts = torch.empty_like(facts, device=self.eraser_facts.device)
        super()._load_from_state_dict(state, prefix, *others)

    @property
    def scale(self) -> int:
        """Output pixels per LR pixel, along each axis."""
        return self._hat.scale

    @property
    def window(self) -> int:
        """LR pixels: the side of HAT's windows; tiles and their context are multiples of it."""
        return self._hat.window

    @property
    def own_padding(self) -> bool:
        """Whether the network pads pictures off its window grid in its own way; HAT mirrors them, as tiles do."""
        return getattr(self._hat, "own_padding", False)

    @property
    def _hat(self) -> HAT:
        """HAT itself, where hat_model is a compiled or parallel one."""
        return cast(HAT, unwrapped(self.hat_model))

    def _walking(self, exact: bool) -> HAT:
        """What tiles go through; exact tiling takes HAT itself, whose steps a parallel one hides."""
        return self._hat if exact else self.hat_model

    @property
    def reach(self) -> int:
        """LR pixels (radius 0: output pixels) around it that the eraser looks at for one pixel."""
        return 2 + 2 * self._sizes["blocks"]

    def unit(self, halo: int) -> float:
        """In what unit the eraser's output counts for tiles with `halo` LR pixels of context: see gains."""
        return unit_of(self.gains, halo)

    def forward(
        self, x: Tensor, stitched: Tensor | None = None, seams: Tensor | None = None, unit: Tensor | float = 1.0
    ) -> Tensor:
        """x: (B, C, H, W) in [0, 1] -> (B, C, H*scale, W*scale), not clamped. stitched, seams, unit: as of erase; then
        HAT does not run, whose stitched answer is known.

        Raises ValueError when tile_size or tile_pad is not a multiple of HAT's window.
        """
        if stitched is not None:
            return self.erase(stitched, x, seams, unit)
        if not self.use_tiling:
            return self.erase(self.hat_model(x))
        window, tile, offset = self.window, self.tile_size, (0, 0)
        if self.training and self.tile_choices:
            tile = self.tile_choices[torch.randint(len(self.tile_choices), ())]
        if self.training and tile > window:
            draw = torch.randint(0, tile // window, (2,)).tolist()
            offset = (draw[0] * window, draw[1] * window)
        grid: dict[str, Any] = {"window": window, "offset": offset, "own_padding": self.own_padding}
        plan = plan_tiles(*x.shape[-2:], tile=tile, halo=self.tile_pad, **grid)
        stitched, _ = tiled_apply(self.hat_model, x, plan, scale=self.scale, batch=self.tile_batch)
        assert stitched is not None  # no `out` was given
        return self.erase(stitched, x, self.seen(plan, x.device), self.unit(plan.halo))

    def seen(self, plan: TilePlan, device: torch.device | str | None = None) -> Tensor | None:
        """The map of a plan's seams that the eraser gets, (1, 4, H, W); None of radius 0."""
        if not self.radius:
            return None
        places = (range(plan.y.size), range(plan.x.size))
        return seam_map(plan.seams(1), *places, radius=self.radius, context=plan.halo, device=device)

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
        grid: dict[str, Any] = {"window": window, "own_padding": self.own_padding}
        if tile == "auto":
            return auto_plan(self._walking(exact), x, halo=halo, batch=batch, exact=exact, how=how, **grid)
        if not isinstance(tile, int):
            raise ValueError(f'tile {tile!r} is neither a number of LR pixels nor "auto"')
        return plan_tiles(*x.shape[-2:], tile=tile, halo=0 if exact else halo, **grid)

    @torch.no_grad()
    def tiled(
        self,
        x: Tensor,
        *,
        out: Out | None = None,
        chunk: int = 512,
        statistics: str = "local",
        span: int = 0,
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
        span, blend, out, how: as of tiled_apply; a function as `out` gets its bands on the CPU, and nothing but finite
        ones: FloatingPointError is raised before NaN or infinity would go to any `out`.
        The eraser sees across the seams: it is applied to the stitched picture as that comes, in strips near seams, in
        squares of `chunk` output pixels with the `reach` around them that it looks at. So the answer is the eraser's
        to the whole stitched picture; with statistics "exact" or "window" there are no seams, and it is the network's.
        Without gradients; training goes through forward.
        """
        B, C, H, W = x.shape
        size = (H * self.scale, W * self.scale)
        picture = None
        if out is None:
            picture = x.new_empty(B, C, *size)
            sink = sink_of(picture, B, *size)
        else:
            sink = checked(sink_of(out, B, *size), how.dtype or x.dtype)
        batch = self.tile_batch or 1 if batch is None else batch
        exact = statistics in WALKED
        plan = self.plan(x, tile=tile, halo=halo, window=window, batch=batch, exact=exact, how=how)
        device, started = self.out_conv.weight.device, None
        if not self.radius:
            sink = filtered(self._blind(Chunks(chunk, device=device, features="host")), self.reach, size[0], sink)
        elif not exact:
            distances = {"radius": self.radius, "reach": self.reach, "chunk": chunk}
            sink = SeamStrips(self.erase, x, scale=self.scale, unit=self.unit, **distances, device=device, sink=sink)
            started = sink.start
        _, report = tiled_apply(
            self._walking(exact),
            x,
            plan,
            scale=self.scale,
            blend=blend,
            statistics=statistics,
            span=span,
            batch=batch,
            out=sink,
            how=how,
            started=started,
        )
        known = [known for known, unit in self.gains if unit]
        if known and not exact and any(plan.seams(1)) and not self.unit(report.plan.halo):
            report.notes.append(
                f"the eraser does nothing: it was taught for at most {max(known):.0f} pixels of context"
            )
        if not self.radius and self.out_conv.weight.any():
            report.notes.append("the eraser is of the older kind, blind to where seams are: it changes everything")
        return picture, report

    @torch.no_grad()
    def whole(self, x: Tensor, limit: float = 0.25) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the whole picture at output size, not tiled. Above `limit` LR megapixels by exact
        tiling: the same to rounding, in a fraction of the memory; a network without a walk takes it at once.
        """
        if x.shape[-2] * x.shape[-1] <= limit * 1e6 or not hasattr(self._hat, "walk"):
            return self.erase(self.hat_model(x))
        tile = max(8, 64 // self.window) * self.window  # many foreign networks have a window of one pixel
        return self.tiled(x, statistics="exact", tile=tile, how=Execution(on_oom="shrink"))[0]

    def erase(
        self, stitched: Tensor, lr: Tensor | None = None, seams: Tensor | None = None, unit: Tensor | float = 1.0
    ) -> Tensor:
        """The eraser alone: (B, C, H*scale, W*scale) -> the same.

        lr: (B, C, H, W), the LR picture; seams: (B or 1, 4, H, W), as `seen` makes it; unit: a number or (B, 1, 1, 1),
        as `unit` gives it for the tiles' halo. Without seams there is nothing to erase.
        """
        if not self.radius:
            return stitched + self.out_conv(self.residual_block(stitched))
        if seams is None or (isinstance(unit, float) and not unit):
            return stitched
        assert lr is not None  # comes with the seams
        s = self.scale
        shown = {"lr": lr, "seams": seams.expand(len(stitched), -1, -1, -1).to(stitched.dtype)}
        features = torch.cat([F.pixel_unshuffle(stitched, s), *(shown[name] for name in self.sees)], 1)
        features = features.contiguous(memory_format=torch.channels_last)  # a tenth less time on a processor
        residual = F.pixel_shuffle(self.out_conv(self.residual_block(features)), s)  # (B, C, H*s, W*s)
        counts = near(seams).repeat_interleave(s, -2).repeat_interleave(s, -1)
        return torch.where(counts, stitched + unit * residual, stitched)

    def _blind(self, chunks: Chunks) -> Any:
        """The eraser of radius 0 as `filtered` takes it."""

        def rows(held: Tensor, first: int, top: int, bottom: int) -> Tensor:
            erased = chunks(self._erase_map, held.permute(0, 2, 3, 1), reach=self.reach)
            assert erased is not None  # no `out` was given
            return erased.permute(0, 3, 1, 2)[:, :, top - first : bottom - first]

        return rows

    def _erase_map(self, stitched: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return self.erase(stitched.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def used_parameters(self) -> int:
        """How many there are, without those of an eraser that erases nothing."""
        erasing = self.out_conv.weight.any() and (not self.radius or any(unit for _, unit in self.gains))
        return sum(p.numel() for p in (self if erasing else self.hat_model).parameters())

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


def eraser_config(state: Mapping[str, Tensor]) -> dict:
    """The eraser's arguments, out of a TiledSR's weights."""
    blocks = {name.split(".")[2] for name in state if name.startswith("residual_block.body.")}
    sizes: dict[str, Any] = {"channels": state["out_conv.weight"].shape[1], "blocks": len(blocks)}
    if "eraser_facts" not in state:
        return {**sizes, "radius": 0}
    (radius, code), *gains = state["eraser_facts"].tolist()
    sees = [name for bit, name in enumerate(SEES) if int(code) >> bit & 1]
    return {**sizes, "radius": int(radius), "sees": sees, "gains": gains}


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
