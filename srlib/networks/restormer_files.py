"""Weights of Restormer and Phaseformer by other programs: what they are, and the configuration their shapes show."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

_STEM, _PHASEFORMER = "patch_embed.proj.weight", "embed_conv_rgb.weight"
_KERNEL = "encoder_level1.0.attn.kernel.0.weight"  # of DiffIR's, which are told a prior


def is_restormer(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights are a Restormer's or a Phaseformer's, by their names."""
    return (_STEM in state and "encoder_level1.0.attn.temperature" in state) or _PHASEFORMER in state


def restormer_weights(state: Mapping[str, Tensor], path: object = "the checkpoint") -> tuple[dict[str, Tensor], dict]:
    """(weights under this project's names, arguments of Restormer) of published weights.

    What weights do not show is taken as published: a Restormer adds the picture, Phaseformer's attention is "phase".
    Raises ValueError, naming the file, for names without the shapes that belong to them.
    """
    phase = _PHASEFORMER in state
    try:
        state = _from_phaseformer(state) if phase else dict(state)
        return state, {**_from_shapes(state), "attention": "phase" if phase else "channel"}
    except (LookupError, ValueError):
        raise ValueError(f"{path} is not a Restormer: it has one's names, but weights of other shapes") from None


def _from_shapes(state: Mapping[str, Tensor]) -> dict:
    levels = 1 + len({k.split(".")[0] for k in state if k.startswith("encoder_level")})
    stages = [*(f"encoder_level{n}" for n in range(1, levels)), "latent"]
    dim, in_chans = state[_STEM].shape[:2]
    answers = "skip" if "skip_conv.weight" in state else "two" if "low.weight" in state else "residual"
    out_chans = state["output.weight"].shape[0]
    return {
        "in_chans": in_chans,
        "out_chans": out_chans,
        "dim": dim,
        "blocks": [_count(state, stage) for stage in stages],
        "heads": [state[f"{stage}.0.attn.temperature"].shape[0] for stage in stages],
        "refinement": _count(state, "refinement"),
        "ffn": _ratio([(dim * 2**n, _hidden(state, stage)) for n, stage in enumerate(stages)]),
        "bias": "output.bias" in state,
        "norm": "WithBias" if "encoder_level1.0.norm1.body.bias" in state else "BiasFree",
        "gates": any(k.startswith("gate_level") for k in state),
        "answers": answers if answers != "residual" or in_chans == out_chans else "plain",
        "prior": state[_KERNEL].shape[1] if _KERNEL in state else 0,
    }


def _count(state: Mapping[str, Tensor], stage: str) -> int:
    return len({k.split(".")[1] for k in state if k.startswith(f"{stage}.")})


def _hidden(state: Mapping[str, Tensor], stage: str) -> int:
    return state[f"{stage}.0.ffn.project_in.weight"].shape[0] // 2


def _ratio(widths: list[tuple[int, int]]) -> float:
    """The shortest number that gives each of so many channels its hidden ones, rounded down."""
    low = max(hidden / channels for channels, hidden in widths)
    for digits in range(1, 12):
        ratio = math.ceil(low * 10**digits) / 10**digits
        if all(int(channels * ratio) == hidden for channels, hidden in widths):
            return ratio
    raise ValueError(f"no ratio gives {widths}")


def _from_phaseformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Phaseformer's published parameter names in this file's; its two parts that nothing uses are left out."""
    renamed = {}
    bottom = max(int(k.split(".")[1]) for k in state if k.startswith("encoders."))
    for name, value in state.items():
        if name.startswith(("attention.3.", "ups2.")):
            continue
        for pattern, here in (
            (r"^embed_conv_rgb\.", "patch_embed.proj."),
            (rf"^encoders\.{bottom}\.", "latent."),
            (r"^encoders\.(\d)\.", lambda m: f"encoder_level{int(m[1]) + 1}."),
            (r"^downs\.(\d)\.", lambda m: f"down{int(m[1]) + 1}_{int(m[1]) + 2}."),
            (r"^ups\.(\d)\.", lambda m: f"up{bottom + 1 - int(m[1])}_{bottom - int(m[1])}."),
            (r"^reduces\.(\d)\.", lambda m: f"reduce_chan_level{bottom - int(m[1])}."),
            (r"^decoders\.(\d)\.", lambda m: f"decoder_level{bottom - int(m[1])}."),
            (r"^attention\.(\d)\.", lambda m: f"gate_level{bottom - int(m[1])}."),
            (r"^outputl\.", "low."),
            (r"^ups1\.body\.0\.", "enlarge."),
            (r"^output1\.", "high."),
            (r"\.qkv_conv\.", ".qkv_dwconv."),
            (r"\.ffn\.conv\.", ".ffn.dwconv."),
            (r"\.norm([12])\.", r".norm\1.body."),
        ):
            name = re.sub(pattern, here, name)
        renamed[name] = value[0] if name.endswith("temperature") else value
    return renamed
