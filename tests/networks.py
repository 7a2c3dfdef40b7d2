"""Networks for tests."""

import torch

from srlib.hat import HAT


def strong(**arguments) -> HAT:
    """A HAT whose every part matters: weights far larger than at the start of a training."""
    torch.manual_seed(0)
    model = HAT(**{"squeeze_factor": 4, "compress_ratio": 4, "conv_scale": 0.3, **arguments}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias_table" in name:
                parameter.normal_(0, 0.5)
            elif parameter.ndim > 1:
                parameter.mul_(2)
            elif "norm" not in name:
                parameter.normal_(0, 0.05)
    return model
