"""DiffIR (Xia et al., ICCV 2023): a Restormer that is told some hundred numbers about the picture, its *prior*.

Stage 1 reads the prior from the input and the ground truth, so that it can be trained and measured but not used: its
scores are an oracle's. Stage 2 guesses that prior from the input alone by a diffusion of four deterministic steps
(prior.py). Both have the same network behind, `G`. Parameter names are those of published checkpoints.

As restormer.py it is a list of steps over maps (B, H, W, C); the prior's mean over the picture is one of its sums.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from srlib.networks.arguments import check_whole
from srlib.networks.prior import Denoiser, PriorEncoder
from srlib.networks.restormer import Restormer
from srlib.networks.walk import pad_to_multiple, whole

_LITE: dict[str, Any] = {
    "dim": 12,
    "blocks": (1, 1, 1, 2),
    "refinement": 1,
    "bias": True,
    "prior": 64,
    "encoder_blocks": 1,
}
# Keyword arguments of DiffIR, by name; the lite one is for two CPU cores. Without biases, as published, features grow
# with brightness and the norms take that away: a network has to learn constants first to see how bright a pixel is.
CONFIGS: dict[str, dict[str, Any]] = {"DiffIR": {}, "DiffIR, lite": _LITE}


class DiffIR(nn.Module):
    """Restores (B, in_chans, H, W) to the same, not clamped; H, W >= 1, padded inside as Restormer's.

    stage: 1, whose forward takes the ground truth, too, or 2. prior: its numbers, a multiple of 4. encoder_blocks,
    denoiser_blocks: residual pairs of the prior's encoder, layers of the denoiser; steps: of the diffusion. light:
    whether it takes and gives light, log-mapped, as 08_hdr trains it, and not pictures; kept in its file. The others
    are Restormer's.
    `config` holds these arguments. `answer`, of stage 2, says what forward returns: "picture", "prior" (B, prior), or
    "both", as training wants them. Raises ValueError, naming the argument, for what cannot be built.
    """

    scale = 1

    def __init__(
        self,
        *,
        stage: int = 2,
        in_chans: int = 3,
        dim: int = 48,
        blocks: Sequence[int] = (3, 5, 6, 6),
        heads: Sequence[int] = (1, 2, 4, 8),
        refinement: int = 4,
        ffn: float = 2.0,
        bias: bool = False,
        norm: str = "WithBias",
        prior: int = 256,
        encoder_blocks: int = 5,
        denoiser_blocks: int = 1,
        steps: int = 4,
        light: bool = False,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config |= {"blocks": list(blocks), "heads": list(heads)}
        if stage not in (1, 2):
            raise ValueError(f"stage {stage!r} is neither 1 (told the ground truth) nor 2")
        check_whole("prior", prior, least=4)
        if prior % 4:
            raise ValueError(f"prior {prior} is not a multiple of 4, as its encoder's widths are quarters of it")
        for name, value, least in (
            ("encoder_blocks", encoder_blocks, 0),
            ("denoiser_blocks", denoiser_blocks, 0),
            ("steps", steps, 1),
        ):
            check_whole(name, value, least=least, most=1000)
        self.stage, self.answer = stage, "picture"
        self.G = Restormer(
            in_chans=in_chans,
            out_chans=in_chans,
            dim=dim,
            blocks=blocks,
            heads=heads,
            refinement=refinement,
            ffn=ffn,
            bias=bias,
            norm=norm,
            prior=prior,
            checkpointing=checkpointing,
        )
        for parameter in self.G.output.parameters():  # it begins with the picture as it is
            nn.init.zeros_(parameter)
        self.window = max(self.G.window, 4)  # the encoder works at a quarter of the size
        if stage == 1:
            self.E = PriorEncoder(2 * in_chans, prior, encoder_blocks)
        else:
            self.condition = PriorEncoder(in_chans, prior, encoder_blocks)
            self.denoise = Denoiser(prior, denoiser_blocks, steps)

    def forward(self, x: Tensor, truth: Tensor | None = None) -> Any:
        """x: (B, in_chans, H, W); truth, of stage 1: the same, the ground truth. Returns what `answer` says."""
        prior = self.prior(x, whole, truth)
        if self.answer == "prior":
            return prior
        picture = self.G(x, prior)
        return (picture, prior) if self.answer == "both" else picture

    def walk(self, x: Tensor, run: Callable[..., Any], out: Any = None) -> Tensor:
        """The second stage, each step of it executed by `run`: see Restormer.walk."""
        if getattr(run, "spans", 0):
            raise ValueError("DiffIR's prior is that of the whole picture: statistics over windows are for Restormer")
        return self.G.walk(x, run, out, self.prior(x, run))

    def prior(self, x: Tensor, run: Callable[..., Any] = whole, truth: Tensor | None = None) -> Tensor:
        """(B, prior): stage 1's from x and its truth, stage 2's guess from x alone."""
        if self.stage == 1:
            if truth is None:
                raise ValueError(
                    "this is DiffIR's first stage, which reads the ground truth: to restore, load the second"
                )
            x = torch.cat([x, truth], 1)
        picture = pad_to_multiple(x, self.window).permute(0, 2, 3, 1)
        if self.stage == 1:
            return self.E(picture, run)
        condition = self.condition(picture, run)
        return self.denoise(condition, self.denoise.noise(condition))


def second_stage(first: DiffIR) -> DiffIR:
    """The stage 2 of a trained stage 1: its G, and a condition and a denoiser that are yet to be trained."""
    second = DiffIR(**{**first.config, "stage": 2})
    second.G.load_state_dict(first.G.state_dict())
    return second
