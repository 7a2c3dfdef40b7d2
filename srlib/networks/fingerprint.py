"""A checksum of a network's weights: whether two networks are one."""

import hashlib
from collections.abc import Collection

import torch
from torch import nn


def fingerprint(model: nn.Module, but: Collection[str] = ()) -> str:
    """SHA-256, in hexadecimal, of the names and values in a model's state_dict `but` for these names; of any type and
    on any device.
    """
    checksum = hashlib.sha256()
    for name, value in model.state_dict().items():
        if name in but:
            continue
        checksum.update(name.encode())
        checksum.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
