"""Networks for tests."""

from srlib.networks.hat import HAT
from srlib.networks.initial import start_far_reaching


def strong(**arguments) -> HAT:
    """A HAT whose every part matters."""
    return start_far_reaching(HAT(**{"squeeze_factor": 4, "compress_ratio": 4, "conv_scale": 0.3, **arguments})).eval()
