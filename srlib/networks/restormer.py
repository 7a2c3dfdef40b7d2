"""Restormer (Zamir et al., CVPR 2022) and Phaseformer (Khan et al., 2024): a U-net of transposed attention.

Attention is between channels: a C x C matrix, computed from the whole picture, mixes the channels of every pixel. At
each level down the picture's sides are halved and its channels doubled. Phaseformer's queries and keys keep only the
phases of their spectra, its skips pass gates, and it answers twice: at the picture's size and at twice that.

As in hat.py the network is a list of *steps*, functions of maps (B, H, W, C) that look at a bounded neighbourhood.
What comes from the whole picture, the matrix of channels (transposed.py) and the gates' means, is a sum over pixels:
`run` returns it, and the next steps are given it. So Chunks can run all of it in bounded memory. Parameter names are
those of Restormer's published checkpoints; restormer_files.py reads these, and Phaseformer's.

Shapes in comments: B batch, H W height and width of the level, C its channels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srlib.networks.arguments import check_whole
from srlib.networks.transposed import Block, Gate
from srlib.networks.walk import pad_to_multiple, whole

_FULL = {"dim": 48, "blocks": (4, 6, 6, 8), "heads": (1, 2, 4, 8), "refinement": 4}
_PHASE: dict[str, Any] = {
    "dim": 16,
    "blocks": (2, 3, 3, 4),
    "heads": (1, 2, 4, 8),
    "refinement": 4,
    "norm": "WithBias",
    "attention": "phase",
    "gates": True,
    "answers": "two",
}
_LITE = {"dim": 12, "blocks": (1, 1, 1, 2), "heads": (1, 2, 4, 8), "refinement": 1}
# Keyword arguments of Restormer, by name; the lite ones are for two CPU cores.
CONFIGS: dict[str, dict[str, Any]] = {
    "Restormer": _FULL,
    "Restormer, bias-free norms": _FULL | {"norm": "BiasFree"},
    "Restormer, dual-pixel": _FULL | {"in_chans": 6, "answers": "skip"},
    "Restormer, lite": _LITE,
    "Phaseformer": _PHASE,
    "Phaseformer, channel attention": _PHASE | {"attention": "channel"},
    "Phaseformer, lite": _PHASE | _LITE,
    "Phaseformer, lite, channel attention": _PHASE | _LITE | {"attention": "channel"},
}
ANSWERS = ("residual", "plain", "skip", "two")


class Restormer(nn.Module):
    """Restores (B, in_chans, H, W) in [0, 1] to (B, out_chans, H, W), not clamped; with two answers to a pair of that
    and (B, out_chans, 2*H, 2*W).

    Any H, W >= 1: inside, the picture is padded at its right and bottom to a multiple of 2**(levels - 1), mirrored or
    its edge repeated, and the answer is cropped.

    dim: channels of the first level, doubled at each further one. blocks, heads: one entry a level; heads divide its
    channels. refinement: blocks after the decoder. ffn: hidden channels per channel. bias: of the convolutions.
    norm: "WithBias", a layer norm, or "BiasFree", which divides by the deviation without subtracting the mean.
    attention: "channel", or "phase". gates: the skips are weighted by channel (ECA). answers: "residual", the picture
    is added; "plain", it is not; "skip", features of the first level are (dual-pixel); "two", at two sizes.
    prior: how many numbers about the picture modulate every norm (diffir.py); 0 for none.
    checkpointing: recompute each block in the backward pass, to save memory.
    `config` holds these arguments. `answer`, of two answers, says which is wanted: "both", "low" (the picture's size)
    or "high"; whoever tiles needs one. Raises ValueError, naming the argument, for what cannot be built.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        out_chans: int = 3,
        dim: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        refinement: int = 4,
        ffn: float = 2.66,
        bias: bool = False,
        norm: str = "WithBias",
        attention: str = "channel",
        gates: bool = False,
        answers: str = "residual",
        prior: int = 0,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config |= {"blocks": list(blocks), "heads": list(heads)}
        _check(**self.config)
        self.levels, self.answers, self.answer = len(blocks), answers, "both"
        self.window = 2 ** (self.levels - 1)
        self.checkpointing = checkpointing
        width = [dim * 2**level for level in range(self.levels)]
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=bias)

        def stage(channels: int, level: int, count: int) -> nn.ModuleList:
            how: dict[str, Any] = {"ffn": ffn, "bias": bias, "norm": norm, "attention": attention, "prior": prior}
            return nn.ModuleList(Block(channels, heads[level], **how) for _ in range(count))

        self.patch_embed = nn.ModuleDict({"proj": conv(in_chans, dim)})
        for level in range(self.levels - 1):
            above, below = width[level], width[level + 1]
            self.add_module(f"encoder_level{level + 1}", stage(above, level, blocks[level]))
            self.add_module(f"down{level + 1}_{level + 2}", _within(conv(above, above // 2)))
            self.add_module(f"up{level + 2}_{level + 1}", _within(conv(below, 2 * below)))
            if level:
                self.add_module(f"reduce_chan_level{level + 1}", nn.Conv2d(2 * above, above, 1, bias=bias))
            if gates:
                self.add_module(f"gate_level{level + 1}", Gate(above))
            self.add_module(f"decoder_level{level + 1}", stage(above if level else 2 * dim, level, blocks[level]))
        self.latent = stage(width[-1], self.levels - 1, blocks[-1])
        self.refinement = stage(2 * dim, 0, refinement)
        if answers == "two":
            self.low, self.enlarge, self.high = conv(2 * dim, dim // 2), conv(2 * dim, 4 * dim), conv(dim, dim // 2)
        if answers == "skip":
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.output = conv(dim // 2 if answers == "two" else 2 * dim, out_chans)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, of the answer that is wanted."""
        return 2 if self.answer == "high" else 1

    def forward(self, x: Tensor, prior: Tensor | None = None) -> Any:
        """(B, in_chans, H, W), and where it takes one (B, prior) -> (B, out_chans, H, W); of two answers, both: the
        pair.
        """
        H, W = x.shape[-2:]
        if self.answers == "two" and self.answer == "both":
            features = self._features(x, whole, prior)
            return tuple(
                step(features).permute(0, 3, 1, 2)[:, :, : H * s, : W * s]
                for step, s in ((self._low, 1), (self._high, 2))
            )
        return self.walk(x, whole, prior=prior).permute(0, 3, 1, 2)[:, :, : H * self.scale, : W * self.scale]

    def walk(self, x: Tensor, run: Callable[..., Any], out: Any = None, prior: Tensor | None = None) -> Tensor:
        """The network, each step of it executed by `run`, of which srlib.networks.walk.whole is the plain one.

        Returns what the last run, with `out`, returns: (B, H', W', out_chans), the padded picture restored.
        """
        features = self._features(x, run, prior)
        if self.answers == "two":
            if self.answer == "both":
                raise ValueError("one picture is made at a time: set the network's `answer` to 'low' or 'high'")
            return run(self._high if self.answer == "high" else self._low, features, reach=2, out=out)
        picture = [] if self.answers == "plain" else [pad_to_multiple(x, self.window).permute(0, 2, 3, 1)]
        return run(self._one, features, *picture, reach=2, out=out)

    def _features(self, x: Tensor, run: Callable[..., Any], prior: Tensor | None) -> Tensor:
        """The refined map (B, H', W', 2*dim)."""
        channels = self.patch_embed["proj"].in_channels
        if x.shape[1] != channels:
            raise ValueError(f"this network takes {channels} channels, the picture has {x.shape[1]}")
        if (0 if prior is None else prior.shape[1]) != self.config["prior"]:
            raise ValueError(f"this network takes a prior of {self.config['prior']} numbers with each picture")
        x = run(self._embed, pad_to_multiple(x, self.window).permute(0, 2, 3, 1), reach=1)
        skips = []
        for level in range(1, self.levels):
            x = self._stage(f"encoder_level{level}", x, run, prior)
            skips.append(x)
            x = run(self._get(f"down{level}_{level + 1}", _down), x, reach=2)
        x = self._stage("latent", x, run, prior)
        for level in range(self.levels - 1, 0, -1):
            x = self._decode(level, x, skips.pop(), run, prior)
        return self._stage("refinement", x, run, prior)

    def _decode(self, level: int, x: Tensor, skip: Tensor, run: Callable[..., Any], prior: Tensor | None) -> Tensor:
        """(B, H/2, W/2, 2*C), (B, H, W, C) -> (B, H, W, C); at level 1 2*C."""
        gate = None
        if self.config["gates"]:
            module = getattr(self, f"gate_level{level}")
            gate = run(_same, skip, sums=_total, then=module)
        x = run(self._get(f"up{level + 1}_{level}", _up), x, reach=1)
        reduce = getattr(self, f"reduce_chan_level{level}", None)
        x = run(partial(_joined, reduce=reduce), x, skip, given=gate)
        return self._stage(f"decoder_level{level}", x, run, prior)

    def _get(self, name: str, step: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return partial(step, conv=getattr(self, name)["body"][0])

    def _stage(self, name: str, x: Tensor, run: Callable[..., Any], prior: Tensor | None) -> Tensor:
        for block in getattr(self, name):
            if self.checkpointing and self.training:
                x = checkpoint(block, x, run, prior, use_reentrant=False)
            else:
                x = block(x, run, prior)
        return x

    def _embed(self, picture: Tensor) -> Tensor:
        """(B, H, W, in_chans) -> (B, H, W, dim)."""
        return _convolved(self.patch_embed["proj"], picture)

    def _one(self, x: Tensor, picture: Tensor | None = None) -> Tensor:
        """(B, H, W, 2*dim), (B, H, W, in_chans) -> (B, H, W, out_chans)."""
        if self.answers == "skip":
            assert picture is not None
            x = x + _convolved(self.skip_conv, self._embed(picture))  # it is cheaper to repeat than to keep
        x = _convolved(self.output, x)
        return x if picture is None or self.answers == "skip" else x + picture

    def _low(self, x: Tensor) -> Tensor:
        """(B, H, W, 2*dim) -> (B, H, W, out_chans)."""
        return _convolved(self.output, _convolved(self.low, x))

    def _high(self, x: Tensor) -> Tensor:
        """(B, H, W, 2*dim) -> (B, 2*H, 2*W, out_chans); the last convolution is the other answer's, too."""
        return _convolved(self.output, _convolved(self.high, _up(x, conv=self.enlarge)))


def _within(conv: nn.Conv2d) -> nn.ModuleDict:
    """As the published names have it; what shuffles the pixels has no parameters."""
    return nn.ModuleDict({"body": nn.ModuleList([conv])})


def _convolved(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _down(x: Tensor, conv: nn.Module) -> Tensor:
    """(B, H, W, C) -> (B, H/2, W/2, 2*C)."""
    return F.pixel_unshuffle(conv(x.permute(0, 3, 1, 2)), 2).permute(0, 2, 3, 1)


def _up(x: Tensor, conv: nn.Module) -> Tensor:
    """(B, H, W, C) -> (B, 2*H, 2*W, C/2)."""
    return F.pixel_shuffle(conv(x.permute(0, 3, 1, 2)), 2).permute(0, 2, 3, 1)


def _joined(x: Tensor, skip: Tensor, reduce: nn.Conv2d | None, given: Tensor | None = None) -> Tensor:
    """Two maps (B, H, W, C) -> (B, H, W, 2*C), or C after `reduce`; given: the skip's gate (B, C)."""
    x = torch.cat([x, skip if given is None else skip * given[:, None, None].to(skip)], -1)
    return x if reduce is None else F.linear(x, reduce.weight[:, :, 0, 0], reduce.bias)


def _same(x: Tensor) -> Tensor:
    return x


def _total(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C), in fp32."""
    return x.sum((1, 2), dtype=torch.float32)


def _check(
    *,
    in_chans: int,
    out_chans: int,
    dim: int,
    blocks: list[int],
    heads: list[int],
    refinement: int,
    ffn: float,
    bias: bool,
    norm: str,
    attention: str,
    gates: bool,
    answers: str,
    prior: int,
    checkpointing: bool,
) -> None:
    """Refuse what cannot be built, or be built but not run."""
    for name, value, known in (
        ("norm", norm, ("WithBias", "BiasFree")),
        ("attention", attention, ("channel", "phase")),
        ("answers", answers, ANSWERS),
        *((name, value, (False, True)) for name, value in (("bias", bias), ("gates", gates))),
        ("checkpointing", checkpointing, (False, True)),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(map(str, known))}")
    for name, value in (("in_chans", in_chans), ("out_chans", out_chans), ("dim", dim)):
        check_whole(name, value, most=4096)
    check_whole("refinement", refinement, least=0)
    check_whole("prior", prior, least=0)
    if len(blocks) < 2 or len(heads) != len(blocks):
        raise ValueError(f"blocks {blocks} and heads {heads}: one entry each for two levels or more")
    for level in range(len(blocks)):
        check_whole(f"blocks[{level}]", blocks[level], least=0)
        check_whole(f"heads[{level}]", heads[level])
        if dim * 2**level % heads[level]:
            raise ValueError(f"heads[{level}] {heads[level]} does not divide the {dim * 2**level} channels there")
    if dim % 2:
        raise ValueError(f"dim {dim} is odd: each way down halves it before it is doubled twice")
    if not 0 < ffn <= 64 or int(dim * ffn) < 1:
        raise ValueError(f"ffn {ffn} gives {dim} channels no hidden one, or is above 64")
    if answers == "residual" and in_chans != out_chans:
        raise ValueError(f"answers 'residual' adds the picture: in_chans {in_chans} and out_chans {out_chans} differ")
