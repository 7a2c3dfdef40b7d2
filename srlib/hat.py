"""HAT, the hybrid attention transformer for super-resolution (Chen et al., CVPR 2023), whole, in one file.

Every block adds window self-attention and a convolution with channel attention; every group ends in an
overlapping cross-attention, whose keys come from windows larger than its queries'. Parameter names are
those of the published checkpoints, so that these load unchanged.

Shapes in comments: B batch, H W height and width in LR pixels, C embed_dim, w window, N = w*w pixels of a
window, nW windows of a picture, h heads, d = C/h.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Keyword arguments of HAT, by name. HAT-S, HAT and HAT-L are the published sizes (x4, x4, x2 there);
# vram24, vram12, vram8 are what trains on a card of that many GB; demo is for two CPU cores.
_FULL = {
    "embed_dim": 180,
    "depths": (6,) * 6,
    "num_heads": (6,) * 6,
    "window_size": 16,
    "compress_ratio": 3,
    "squeeze_factor": 30,
    "drop_path_rate": 0.1,
}
CONFIGS: dict[str, dict] = {
    "HAT-S": {**_FULL, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24},
    "HAT": _FULL,
    "HAT-L": {**_FULL, "depths": (6,) * 12, "num_heads": (6,) * 12},
    "vram24": _FULL,
    "vram12": {**_FULL, "embed_dim": 120, "depths": (6,) * 4, "num_heads": (6,) * 4},
    "vram8": {**_FULL, "embed_dim": 60, "depths": (4,) * 3, "num_heads": (6,) * 3, "window_size": 8},
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

    upscale: 2, 3, 4 or another power of two. depths, num_heads: one entry a group; heads divide embed_dim.
    overlap_ratio: how much larger than the window the keys' window of the cross-attention is.
    start: "interpolation" makes the untrained network a bilinear enlarger (only initial weights differ),
    "random" is the paper's. checkpointing: recompute each block in the backward pass, to save memory.
    `config` holds these arguments; HAT(**model.config) is the same architecture.
    Raises ValueError for a configuration that cannot be built.
    """

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
        start: str = "interpolation",
        checkpointing: bool = False,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config |= {"depths": list(depths), "num_heads": list(num_heads)}
        if len(depths) != len(num_heads):
            raise ValueError(f"depths {depths} and num_heads {num_heads} must have one entry a group each")
        if any(embed_dim % h for h in num_heads):
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        if window_size % 2:
            raise ValueError(f"window_size {window_size} must be even: blocks are shifted by half a window")
        if start not in ("interpolation", "random"):
            raise ValueError(f'start is "interpolation" or "random", not {start!r}')

        self.window_size = window_size
        self.upscale = upscale
        self.img_range = img_range
        self.checkpointing = checkpointing
        mean = (0.4488, 0.4371, 0.4040) if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        key_window = int(window_size * overlap_ratio) + window_size
        self.register_buffer("relative_position_index_SA", _relative_index(window_size, window_size))
        self.register_buffer("relative_position_index_OCA", _relative_index(window_size, key_window))

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        total = max(sum(depths) - 1, 1)
        drops = [drop_path_rate * i / total for i in range(sum(depths))]  # deeper blocks drop more often
        self.layers = nn.ModuleList(
            Group(
                embed_dim,
                heads,
                window_size,
                key_window,
                compress_ratio=compress_ratio,
                squeeze_factor=squeeze_factor,
                conv_scale=conv_scale,
                mlp_ratio=mlp_ratio,
                drops=[drops.pop(0) for _ in range(depth)],
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, num_feat, 3, padding=1), nn.LeakyReLU())
        self.upsample = _upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, in_chans, 3, padding=1)

        self.apply(_init_weights)
        if start == "interpolation":
            self._start_as_interpolation()

    def forward(self, x: Tensor) -> Tensor:
        B, channels, H, W = x.shape
        if channels != self.mean.shape[1]:
            raise ValueError(f"this HAT takes {self.mean.shape[1]} channels, the picture has {channels}")
        x = pad_to_multiple(x, self.window_size)
        x = (x - self.mean) * self.img_range
        x = self.conv_first(x)
        x = self.conv_after_body(self.forward_features(x)) + x
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        x = x / self.img_range + self.mean
        return x[:, :, : H * self.upscale, : W * self.upscale]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, H and W multiples of the window. Between blocks channels come last."""
        x = self.patch_embed["norm"](x.permute(0, 2, 3, 1))  # (B, H, W, C)
        mask = shift_mask(x.shape[1], x.shape[2], self.window_size, x.device, x.dtype)
        for group in self.layers:
            x = group(
                x,
                self.relative_position_index_SA,
                self.relative_position_index_OCA,
                mask,
                checkpointing=self.checkpointing and self.training,
            )
        return self.norm(x).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _start_as_interpolation(self) -> None:
        """Carry the picture through channels of its own, so that untrained output = bilinear enlargement.

        A plus and a minus copy of each colour pass the LeakyReLU, whose difference is linear in the colour.
        """
        colours = self.conv_first.in_channels
        slope = self.conv_before_upsample[1].negative_slope
        _clear(self.conv_first, range(colours))
        _clear(self.conv_after_body, range(colours))
        _clear(self.conv_before_upsample[0], range(2 * colours))
        _clear(self.conv_last, range(colours))
        for c in range(colours):
            self.conv_first.weight[c, c, 1, 1] = 1
            self.conv_before_upsample[0].weight[c, c, 1, 1] = 1
            self.conv_before_upsample[0].weight[colours + c, c, 1, 1] = -1
            self.conv_last.weight[c, c, 1, 1] = 1
        convs = [m for m in self.upsample if isinstance(m, nn.Conv2d)]
        for i, conv in enumerate(convs):
            r = round((conv.out_channels / conv.in_channels) ** 0.5)
            _clear(conv, range(colours * r * r))
            for c in range(colours):
                for sub in range(r * r):
                    kernel = torch.outer(_linear_taps(sub // r, r), _linear_taps(sub % r, r))
                    if i == 0:
                        conv.weight[c * r * r + sub, c] = kernel / (1 + slope)
                        conv.weight[c * r * r + sub, colours + c] = -kernel / (1 + slope)
                    else:
                        conv.weight[c * r * r + sub, c] = kernel


class Group(nn.Module):
    """Residual hybrid attention group: blocks, one overlapping cross-attention, a convolution, a skip."""

    def __init__(self, dim, heads, window, key_window, *, drops, conv_scale, mlp_ratio, **ratios):
        super().__init__()
        self.residual_group = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(
                    Block(
                        dim,
                        heads,
                        window,
                        shift=0 if i % 2 == 0 else window // 2,
                        drop=drop,
                        conv_scale=conv_scale,
                        mlp_ratio=mlp_ratio,
                        **ratios,
                    )
                    for i, drop in enumerate(drops)
                ),
                "overlap_attn": OverlapAttention(dim, heads, window, key_window, mlp_ratio),
            }
        )
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, index_sa: Tensor, index_oca: Tensor, mask: Tensor, checkpointing=False) -> Tensor:
        """x: (B, H, W, C) -> the same."""
        shortcut = x
        for block in self.residual_group["blocks"]:
            args = (x, index_sa, mask if block.shift else None)
            x = checkpoint(block, *args, use_reentrant=False) if checkpointing else block(*args)
        overlap = self.residual_group["overlap_attn"]
        x = checkpoint(overlap, x, index_oca, use_reentrant=False) if checkpointing else overlap(x, index_oca)
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + shortcut


class Block(nn.Module):
    """Hybrid attention block: x + attention(norm x) + conv_scale * conv(norm x), then x + mlp(norm x)."""

    def __init__(self, dim, heads, window, *, shift, drop, conv_scale, mlp_ratio, compress_ratio, squeeze_factor):
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
        self.drop_path = DropPath(drop) if drop > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, H, W, C) -> the same; mask: (nW, N, N) for a shifted block."""
        normed = self.norm1(x)
        conv = self.conv_block["cab"](normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if self.shift:
            normed = normed.roll((-self.shift, -self.shift), (1, 2))
        attention = self.attn(normed, index, mask)
        if self.shift:
            attention = attention.roll((self.shift, self.shift), (1, 2))
        x = x + self.drop_path(attention) + conv * self.conv_scale
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowAttention(nn.Module):
    """Self-attention inside each window with a learned bias by relative position."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, H, W, C) -> the same; index: (N, N) into the bias table; mask: (nW, N, N) or None."""
        B, H, W, C = x.shape
        qkv = to_windows(self.qkv(x), self.window)  # (B*nW, N, 3C)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B*nW, h, N, d)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None].to(q.dtype)  # (1, h, N, N)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(B, 1, 1, 1)  # (B*nW, h, N, N)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = self.proj(out.transpose(1, 2).flatten(2))  # (B*nW, N, C)
        return from_windows(out, self.window, H, W)


class OverlapAttention(nn.Module):
    """Cross-attention from each window to a larger one around it; outside the picture keys are zero."""

    def __init__(self, dim: int, heads: int, window: int, key_window: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.window = window
        self.key_window = key_window
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window + key_window - 1) ** 2, heads))
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """x: (B, H, W, C) -> the same; index: (N, M) into the bias table, M = key_window**2."""
        B, H, W, C = x.shape
        q, kv = self.qkv(self.norm1(x)).split([C, 2 * C], dim=3)
        q = to_windows(q, self.window).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B*nW, h, N, d)
        margin = (self.key_window - self.window) // 2
        kv = F.pad(kv, (0, 0, margin, margin, margin, margin))
        kv = kv.unfold(1, self.key_window, self.window).unfold(2, self.key_window, self.window)
        # (B, H/w, W/w, 2C, kw, kw) -> (2, B*nW, h, M, d)
        kv = kv.flatten(4).flatten(0, 2).unflatten(1, (2, self.heads, -1)).permute(1, 0, 2, 4, 3)
        k, v = kv.unbind(0)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None].to(q.dtype)  # (1, h, N, M)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = from_windows(out.transpose(1, 2).flatten(2), self.window, H, W)
        x = x + self.proj(out)
        return x + self.mlp(self.norm2(x))


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the picture's mean: HAT's only global statistic."""

    def __init__(self, dim: int, squeeze_factor: int):
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // squeeze_factor, 1),
            nn.ReLU(),
            nn.Conv2d(dim // squeeze_factor, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom: mirrored, or the edge repeated where that is impossible."""
    H, W = x.shape[-2:]
    bottom, right = -H % multiple, -W % multiple
    if not bottom and not right:
        return x
    mode = "reflect" if bottom < H and right < W else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def to_windows(x: Tensor, w: int) -> Tensor:
    """(B, H, W, C) -> (B*nW, w*w, C)."""
    B, H, W, C = x.shape
    x = x.view(B, H // w, w, W // w, w, C).transpose(2, 3)  # (B, H/w, W/w, w, w, C)
    return x.reshape(-1, w * w, C)


def from_windows(x: Tensor, w: int, H: int, W: int) -> Tensor:
    """(B*nW, w*w, C) -> (B, H, W, C)."""
    x = x.view(-1, H // w, W // w, w, w, x.shape[-1]).transpose(2, 3)  # (B, H/w, w, W/w, w, C)
    return x.reshape(-1, H, W, x.shape[-1])


def shift_mask(H: int, W: int, window: int, device, dtype) -> Tensor:
    """(nW, N, N): 0 where two pixels of a shifted window were neighbours before the roll, else -100."""
    region = torch.zeros(1, H, W, 1, device=device)
    borders = (slice(0, -window), slice(-window, -(window // 2)), slice(-(window // 2), None))
    for i, rows in enumerate(borders):
        for j, columns in enumerate(borders):
            region[:, rows, columns] = 3 * i + j
    region = to_windows(region, window).squeeze(2)  # (nW, N)
    return (region[:, :, None] != region[:, None, :]).to(dtype) * -100.0


def _relative_index(window: int, key_window: int) -> Tensor:
    """(window**2, key_window**2) row of the bias table for each pair of query and key pixel.

    For the larger key window some rows come out negative and so count from the table's end: that is how
    the published weights were trained.
    """
    queries = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # (N, 2): y, x
    keys = torch.cartesian_prod(torch.arange(key_window), torch.arange(key_window))
    relative = keys[None] - queries[:, None]
    if window == key_window:
        relative = -relative
        start = window - 1
    else:
        start = window - key_window + 1
    relative = relative + start
    return relative[..., 0] * (window + key_window - 1) + relative[..., 1]


def _upsampler(scale: int, features: int) -> nn.Sequential:
    if scale == 3:
        factors = [3]
    elif scale >= 2 and scale & (scale - 1) == 0:
        factors = [2] * (scale.bit_length() - 1)
    else:
        raise ValueError(f"upscale {scale} is not 3 or a power of two")
    layers: list[nn.Module] = []
    for r in factors:
        layers += [nn.Conv2d(features, features * r * r, 3, padding=1), nn.PixelShuffle(r)]
    return nn.Sequential(*layers)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _clear(conv: nn.Conv2d, rows: range) -> None:
    """Zero these output channels of a convolution."""
    conv.weight[list(rows)] = 0
    conv.bias[list(rows)] = 0


def _linear_taps(phase: int, r: int) -> Tensor:
    """Weights of the left, same and right LR pixel for sub-pixel `phase` of an r-fold linear enlargement."""
    offset = (phase + 0.5) / r - 0.5
    return torch.tensor([max(-offset, 0.0), 1 - abs(offset), max(offset, 0.0)])
