"""Compact (SRVGG; Wang et al., Real-ESRGAN, 2021): a chain of convolutions at the picture's size."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import chain, planes


def adapt(net: Any) -> Adapted:
    """SRVGGNetCompact with a walk."""
    return Adapted(net, _steps, scale=net.upscale, channels=net.num_in_ch)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, 1)
    *body, last = net.body

    def close(x: Tensor, picture: Tensor) -> Tensor:
        return net.upsampler(last(x)) + F.interpolate(picture, scale_factor=net.upscale, mode="nearest")

    return run(planes(close), chain(picture, _pairs(body), run), picture, reach=1, out=out)


def _pairs(body: list[nn.Module]) -> list[nn.Module]:
    """Each convolution with its activation, so that no activation begins a step, where it would write over a map."""
    return [nn.Sequential(*body[i : i + 2]) for i in range(0, len(body), 2)]
