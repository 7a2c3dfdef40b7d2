"""What the result of a training depends on besides its settings and its starting weights, as a state keeps it."""

import hashlib
from typing import Any

from torch import nn

from srlib.networks.fingerprint import fingerprint


def facts(model: nn.Module, loss: Any, discriminator: nn.Module | None, data: Any, sharpen: Any) -> dict:
    """Of the arguments of srlib.training.train.train; texts, numbers and lists."""
    networks = [n for n in getattr(loss, "networks", ()) if n is not None and n is not discriminator]
    config = dict(getattr(model, "config", {}))
    inner = {f"hat.{k}": v for k, v in config.pop("hat", {}).items() if k != "checkpointing"}
    config.pop("gains", None)  # what the data says, up to rounding, and that has its key
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return {
        "data": [len(data), getattr(data, "key", "")],
        "sharpen": getattr(sharpen, "__name__", str(sharpen)),
        "trained parameters": hashlib.sha256(str(trained).encode()).hexdigest(),
        "the loss's networks": [fingerprint(network) for network in networks],
        **{f"loss's {name}": value for name, value in getattr(loss, "config", {}).items()},
        **{f"model's {name}": str(value) for name, value in (config | inner).items()},
    }
