"""Weights of DiffIR by other programs: what they are, and the configuration their shapes show."""

from collections.abc import Mapping

from torch import Tensor

from srlib.networks.restormer_files import restormer_weights

_ENCODERS = {1: "E.", 2: "condition."}


def is_diffir(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights are a DiffIR's, by their names."""
    return "G.patch_embed.proj.weight" in state and any(f"{e}mlp.0.weight" in state for e in _ENCODERS.values())


def diffir_weights(state: Mapping[str, Tensor], path: object = "the checkpoint") -> tuple[dict[str, Tensor], dict]:
    """(weights under this project's names, arguments of DiffIR) of published weights.

    Stage 2's files have condition and denoiser a second time, below `diffusion`: left out. The number of steps, which
    no weight shows, is taken as published, 4. Raises ValueError, naming the file, for shapes that are no DiffIR's, and
    for the variants with an upscaler behind the network.
    """
    stage = 1 if "E.mlp.0.weight" in state else 2
    encoder = _ENCODERS[stage]
    state = {name: value for name, value in state.items() if not name.startswith("diffusion.")}
    network, config = restormer_weights(_below("G.", state), f"{path}: its network G")
    if config["answers"] != "residual":
        raise ValueError(f"{path} is a DiffIR for another task: only those that add the picture are read")
    try:
        blocks = {name.split(".")[2] for name in state if name.startswith(f"{encoder}E.") and ".body." in name}
        layers = {name.split(".")[2] for name in state if name.startswith("denoise.resmlp.") and ".resmlp." in name[8:]}
        shown = {
            "stage": stage,
            "prior": state[f"{encoder}mlp.0.weight"].shape[0],
            "encoder_blocks": len(blocks),
            "denoiser_blocks": sum(f"denoise.resmlp.{n}.resmlp.0.weight" in state for n in layers) if stage == 2 else 1,
        }
    except (LookupError, ValueError):
        raise ValueError(f"{path} is not a DiffIR: it has one's names, but weights of other shapes") from None
    taken = ("in_chans", "dim", "blocks", "heads", "refinement", "ffn", "bias", "norm")
    return state, {**{name: config[name] for name in taken}, **shown}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
