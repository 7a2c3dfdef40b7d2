"""A checksum of a network's weights: whether two networks are one."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the names and values in a state_dict, or a model's; of any type and on any device."""
    checksum = hashlib.sha256()
    for name, value in (model.state_dict() if isinstance(model, nn.Module) else model).items():
        checksum.update(name.encode())
        checksum.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
