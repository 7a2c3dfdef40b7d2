"""HAT, the hybrid attention transformer for super-resolution (Chen et al., CVPR 2023).

Every block adds window self-attention and a convolution with channel attention; every group ends in an
overlapping cross-attention, whose keys come from windows larger than its queries'. Parameter names are
those of the published checkpoints, so that these load unchanged.

The network is a list of *steps*, each a plain function of feature maps (B, H, W, C) whose answer at a pixel
depends on a bounded neighbourhood; only the channel attention's mean looks at everything, and it stands between
steps. Whoever calls `walk` decides how a step is run: `whole` over the whole maps, as `forward` does, or in
chunks, which gives the same picture in bounded memory.

Shapes in comments: B batch, H W height and width in LR pixels, C embed_dim, w window, N = w*w pixels of a
window, nW windows of a picture, h heads, d = C/h.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srlib.networks.arguments import check_whole
from srlib.networks.attention import Mlp, OverlapAttention, Tables, WindowAttention, relative_index
from srlib.networks.walk import pad_to_multiple, whole

# Keyword arguments of HAT, by name. HAT-S, HAT and HAT-L are the published sizes (x4, x4, x2 there); vram24, vram12,
# vram8 are what trains on a card of that many GB; ultra_lite, lite and standard are for fast tries (0.2, 0.7 and 4.2 M
# parameters); demo is for two CPU cores.
_FULL = {
    "embed_dim": 180,
    "depths": (6,) * 6,
    "num_heads": (6,) * 6,
    "window_size": 16,
    "compress_ratio": 3,
    "squeeze_factor": 30,
    "drop_path_rate": 0.1,
}
_SMALL = {**_FULL, "window_size": 8}
CONFIGS: dict[str, dict] = {
    "HAT-S": {**_FULL, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24},
    "HAT": _FULL,
    "HAT-L": {**_FULL, "depths": (6,) * 12, "num_heads": (6,) * 12},
    "vram24": _FULL,
    "vram12": {**_FULL, "embed_dim": 120, "depths": (6,) * 4, "num_heads": (6,) * 4},
    "vram8": {**_SMALL, "embed_dim": 60, "depths": (4,) * 3, "num_heads": (6,) * 3},
    "standard": {**_FULL, "embed_dim": 96, "depths": (6,) * 4, "num_heads": (6,) * 4, "squeeze_factor": 24},
    "lite": {**_SMALL, "embed_dim": 48, "depths": (4,) * 3, "num_heads": (4,) * 3, "squeeze_factor": 12},
    "ultra_lite": {**_SMALL, "embed_dim": 24, "depths": (2,) * 2, "num_heads": (3,) * 2, "squeeze_factor": 6},
    "small": {
        "embed_dim": 48,
        "depths": (2, 2, 2),
        "num_heads": (4, 4, 4),
        "window_size": 8,
        "compress_ratio": 3,
        "squeeze_factor": 8,
    },
    "demo": {
        "embed_dim": 32,
        "depths": (2, 2),
        "num_heads": (4, 4),
        "window_size": 8,
        "compress_ratio": 3,
        "squeeze_factor": 8,
    },
}


class HAT(nn.Module):
    """Upscales (B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale), not clamped.

    Any H, W >= 1: inside, the picture is padded at its right and bottom to a multiple of the window
    (mirrored, or its edge repeated where it is smaller than the padding), and the answer is cropped.

    upscale: 1 (a restoration at the same size), 2, 3, 4 or another power of two up to 64. depths, num_heads: one entry
    a group; heads divide embed_dim. compress_ratio, squeeze_factor: at most embed_dim, which is divided by them.
    overlap_ratio: how much larger than the window the keys' window of the cross-attention is.
    checkpointing: recompute each block in the backward pass, to save memory. Attention's scores and the MLPs'
    hidden maps, the largest, are not kept either way (scores are by torch.compile on a CPU).
    `config` holds these arguments; HAT(**model.config) is the same architecture.
    Raises ValueError, naming the argument and what is allowed, for a configuration that cannot be built or run.
    """

    mean: Tensor
    relative_position_index_SA: Tensor
    relative_position_index_OCA: Tensor

    def __init__(
        self,
        *,
        in_chans: int = 3,
        upscale: int = 2,
        embed_dim: int = 180,
        depths: tuple[int, ...] = (6,) * 6,
        num_heads: tuple[int, ...] = (6,) * 6,
        window_size: int = 16,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        img_range: float = 1.0,
        num_feat: int = 64,
        drop_path_rate: float = 0.0,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        for name in ("depths", "num_heads"):
            if not isinstance(self.config[name], Sequence) or isinstance(self.config[name], str):
                raise ValueError(f"{name} {self.config[name]!r} must be a list with one whole number a group")
            self.config[name] = list(self.config[name])
        _check(**self.config)
        key_window = int(window_size * overlap_ratio) + window_size

        self.window = window_size
        self.key_window = key_window
        self.scale = upscale
        self.img_range = img_range
        self.checkpointing = checkpointing
        mean = (0.4488, 0.4371, 0.4040) if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("relative_position_index_SA", relative_index(window_size, window_size))
        self.register_buffer("relative_position_index_OCA", relative_index(window_size, key_window))

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        total = max(sum(depths) - 1, 1)
        drops = [drop_path_rate * i / total for i in range(sum(depths))]  # deeper blocks drop more often
        block = {"compress_ratio": compress_ratio, "squeeze_factor": squeeze_factor, "conv_scale": conv_scale}
        self.layers = nn.ModuleList(
            Group(embed_dim, heads, window_size, key_window, mlp_ratio, [drops.pop(0) for _ in range(depth)], block)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, num_feat, 3, padding=1), nn.LeakyReLU())
        self.upsample = _upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, in_chans, 3, padding=1)

        self.apply(_init_weights)
        for module in self.modules():
            if isinstance(module, Mlp):
                module.recompute = not checkpointing  # a whole block's recomputation holds the MLP's

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) in [0, 1] -> (B, in_chans, H*upscale, W*upscale), not clamped."""
        H, W = x.shape[2] * self.scale, x.shape[3] * self.scale
        return self.walk(x, whole).permute(0, 3, 1, 2)[:, :, :H, :W]

    def walk(self, x: Tensor, run: Callable[..., Tensor], out: Any = None) -> Tensor:
        """The network, each step of it executed by `run(step, *maps, reach=, margin=, shift=, out=)`, of which
        `whole` is the plain one and says what the arguments mean.

        Returns what the last run, with `out`, returns: (B, H', W', in_chans), the padded picture upscaled.
        """
        channels = x.shape[1]
        if channels != self.mean.shape[1]:
            raise ValueError(f"this HAT takes {self.mean.shape[1]} channels, the picture has {channels}")
        picture = pad_to_multiple(x, self.window).permute(0, 2, 3, 1)  # (B, H, W, in_chans)
        rows = (self.window + self.key_window - 1) ** 2
        tables = Tables(self.relative_position_index_SA, self.relative_position_index_OCA % rows)  # none from the end
        x = run(self._head, picture, reach=1)
        for group in self.layers:
            x = group(x, run, tables, checkpointing=self.checkpointing and self.training)
        return run(self._tail, x, picture, reach=4, out=out)

    def _head(self, picture: Tensor) -> Tensor:
        """(B, H, W, in_chans) -> (B, H, W, C). Between steps channels come last."""
        return self.patch_embed["norm"](self._shallow(picture).permute(0, 2, 3, 1))

    def _shallow(self, picture: Tensor) -> Tensor:
        """(B, H, W, in_chans) -> (B, C, H, W); both ends need it, and it is cheaper to repeat than to keep."""
        return self.conv_first((picture.permute(0, 3, 1, 2) - self.mean) * self.img_range)

    def _tail(self, x: Tensor, picture: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H*upscale, W*upscale, in_chans)."""
        x = self.conv_after_body(self.norm(x).permute(0, 3, 1, 2)) + self._shallow(picture)
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        return (x / self.img_range + self.mean).permute(0, 2, 3, 1)


class Group(nn.Module):
    """Residual hybrid attention group: blocks, one overlapping cross-attention, a convolution, a skip."""

    def __init__(
        self, dim: int, heads: int, window: int, key_window: int, mlp_ratio: float, drops: list[float], block: dict
    ):
        super().__init__()
        shifts = [0 if i % 2 == 0 else window // 2 for i in range(len(drops))]
        self.residual_group = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(
                    Block(dim, heads, window, mlp_ratio, shift=shift, drop=drop, **block)
                    for shift, drop in zip(shifts, drops, strict=True)
                ),
                "overlap_attn": OverlapAttention(dim, heads, window, key_window, mlp_ratio),
            }
        )
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, run: Callable, tables: Tables, checkpointing: bool = False) -> Tensor:
        """x: (B, H, W, C) -> the same."""
        shortcut = x
        blocks = cast(nn.ModuleList, self.residual_group["blocks"])
        for layer in (*blocks, self.residual_group["overlap_attn"]):
            # the input is handed over, not kept: in chunks its memory is the next map's
            x = checkpoint(layer, x, run, tables, use_reentrant=False) if checkpointing else layer(x, run, tables)
        return run(self._close, x, shortcut, reach=1)

    def _close(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + shortcut


class Block(nn.Module):
    """Hybrid attention block: x + attention(norm x) + conv_scale * conv(norm x), then x + mlp(norm x)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        *,
        shift: int,
        drop: float,
        conv_scale: float,
        compress_ratio: int,
        squeeze_factor: int,
    ):
        super().__init__()
        self.shift = shift
        self.conv_scale = conv_scale
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.conv_block = nn.ModuleDict(
            {
                "cab": nn.Sequential(
                    nn.Conv2d(dim, dim // compress_ratio, 3, padding=1),
                    nn.GELU(),
                    nn.Conv2d(dim // compress_ratio, dim, 3, padding=1),
                    ChannelAttention(dim, squeeze_factor),
                )
            }
        )
        self.drop = drop
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, run: Callable, tables: Tables) -> Tensor:
        """x: (B, H, W, C) -> the same."""
        normed = run(self.norm1, x)
        local = run(self._local, normed, reach=2)
        cab = cast(nn.Sequential, self.conv_block["cab"])
        gate = cast(ChannelAttention, cab[3]).gate(local) * self.conv_scale
        attention = run(partial(self.attn, tables=tables), normed, shift=self.shift, out=normed)
        return run(partial(self._join, gate=gate), x, attention, local, out=attention)

    def _local(self, normed: Tensor) -> Tensor:
        first, gelu, second, _ = cast(nn.Sequential, self.conv_block["cab"])
        return second(gelu(first(normed.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)

    def _join(self, x: Tensor, attention: Tensor, local: Tensor, gate: Tensor) -> Tensor:
        x = x + self._dropped(attention) + local * gate
        return x + self._dropped(self.mlp(x, self.norm2))

    def _dropped(self, x: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., 2016): in training the branch is left out for some pictures."""
        if not self.training or not self.drop:
            return x
        from timm.layers import drop_path  # two seconds to import, for trainings only

        return drop_path(x, self.drop, training=True)


class ChannelAttention(nn.Module):
    """A gate for each channel, computed from the picture's mean: HAT's only global statistic."""

    def __init__(self, dim: int, squeeze_factor: int):
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // squeeze_factor, 1),
            nn.ReLU(),
            nn.Conv2d(dim // squeeze_factor, dim, 1),
            nn.Sigmoid(),
        )

    def gate(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 1, 1, C) in (0, 1). The map may lie on another device than the weights."""
        mean = self.attention[0](x.permute(0, 3, 1, 2)).to(self.attention[1].weight.device)
        return self.attention[1:](mean).permute(0, 2, 3, 1)


def _upsampler(scale: int, features: int) -> nn.Sequential:
    """For scale 1 it is empty."""
    layers: list[nn.Module] = []
    for r in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
        layers += [nn.Conv2d(features, features * r * r, 3, padding=1), nn.PixelShuffle(r)]
    return nn.Sequential(*layers)


def _check(
    *,
    in_chans: int,
    upscale: int,
    embed_dim: int,
    depths: list[int],
    num_heads: list[int],
    window_size: int,
    compress_ratio: int,
    squeeze_factor: int,
    conv_scale: float,
    overlap_ratio: float,
    mlp_ratio: float,
    img_range: float,
    num_feat: int,
    drop_path_rate: float,
    checkpointing: bool,
) -> None:
    """Refuse what HAT cannot be built with, and what it could be built with but not run."""
    for name, size in (("in_chans", in_chans), ("embed_dim", embed_dim), ("num_feat", num_feat)):
        check_whole(name, size, most=4096)
    for name, divisor in (("compress_ratio", compress_ratio), ("squeeze_factor", squeeze_factor)):
        check_whole(name, divisor, most=embed_dim, why=", embed_dim, of which it leaves no channel")
    check_whole("upscale", upscale)
    if upscale != 3 and upscale not in (1, 2, 4, 8, 16, 32, 64):
        raise ValueError(f"upscale {upscale} is not 1, 3 or a power of two up to 64")
    for name, entries in (("depths", depths), ("num_heads", num_heads)):
        for entry in entries:
            check_whole(f"{name} {entries}: an entry", entry, most=100)
    if not depths or len(depths) != len(num_heads):
        raise ValueError(f"depths {depths} and num_heads {num_heads} must have one entry a group each, and one group")
    if any(embed_dim % h for h in num_heads):
        raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
    check_whole("window_size", window_size, least=2, most=64)
    if window_size % 2:
        raise ValueError(f"window_size {window_size} must be even: blocks are shifted by half a window")
    for name, value, least, most in (
        ("img_range", img_range, 1e-6, 1e6),
        ("conv_scale", conv_scale, 1e-6, 1e6),
        ("overlap_ratio", overlap_ratio, 0, 2),
        ("mlp_ratio", mlp_ratio, 0, 64),
        ("drop_path_rate", drop_path_rate, 0, 1),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            positive = "positive " if least else ""
            raise ValueError(f"{name} {value!r} must be a {positive}number from {least:g} to {most:g}")
    if int(window_size * overlap_ratio) % 2:
        raise ValueError(
            f"overlap_ratio {overlap_ratio}: window_size times it, {window_size * overlap_ratio:g}, is odd"
        )
    if int(embed_dim * mlp_ratio) < 1:
        raise ValueError(
            f"mlp_ratio {mlp_ratio} leaves no channel: it must be at least 1 / embed_dim, {1 / embed_dim:g}"
        )
    if drop_path_rate == 1:
        raise ValueError("drop_path_rate 1 would leave out every branch of the last block: it must be below 1")
    if not isinstance(checkpointing, bool):
        raise ValueError(f"checkpointing {checkpointing!r} must be True or False")


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
