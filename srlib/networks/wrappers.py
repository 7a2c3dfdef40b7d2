"""What torch.compile, parallel training and averaging put around a network, taken off again: modules and names."""

from collections.abc import Mapping

from torch import Tensor, nn

# between the dots of a name: by torch.compile; DataParallel, DDP and AveragedModel; FSDP; activation checkpointing
_ADDED = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, out of any number of wrappers: torch.compile, DataParallel, DDP, FSDP, AveragedModel."""
    for name in _ADDED:
        if isinstance(inner := getattr(model, name, None), nn.Module):
            return unwrapped(inner)
    return model


def bare_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names that they have without wrappers, wherever in the network these are; AveragedModel's
    counter n_averaged is left out. Raises ValueError when two names become one.
    """
    found: dict[str, str] = {}
    for name in state:
        parts = name.split(".")
        bare = ".".join(part for part in parts if part not in _ADDED)
        if parts[-1] == "n_averaged":
            continue
        if bare in found:
            raise ValueError(f"{found[bare]} and {name} are both the network's {bare}: keep one of the two")
        found[bare] = name
    return {bare: state[name] for bare, name in found.items()}
