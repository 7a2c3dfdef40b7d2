"""ESRGAN (Wang et al., ECCV workshops 2018): residual in residual dense blocks, with BSRGAN's and Real-ESRGAN's kinds.

spandrel renames newer key layouts to the older ones, so that all of them are one class. Kinds for x2 and x1 first fold
pixels into channels.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import planes, reach_of


def adapt(net: Any) -> Adapted | None:
    """RRDBNet with a walk; None for instance norms, which are of each map and of no use here."""
    if any(isinstance(layer, nn.InstanceNorm2d) for layer in net.modules()):
        return None
    fold = net.shuffle_factor or 1
    channels = net.model[0].in_channels // fold**2
    return Adapted(net, _steps, scale=net.scale // fold, channels=channels, window=fold, minimum=fold)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    fold = net.shuffle_factor or 1
    head = nn.Sequential(nn.PixelUnshuffle(fold), net.model[0])
    first = x = run(planes(head), padded(x, fold), reach=reach_of(head))
    blocks = [layer for layer in net.model[1].sub if hasattr(layer, "RDB1")]
    body = nn.Sequential(*list(net.model[1].sub)[len(blocks) :])
    for block in blocks:
        x = _block(block, x, run)
    tail = nn.Sequential(*list(net.model)[2:])

    def close(x: Tensor, first: Tensor) -> Tensor:
        return tail(body(x) + first)

    return run(planes(close), x, first, reach=reach_of(body, tail), out=out)


def _block(block: Any, x: Tensor, run: Run) -> Tensor:
    """Three dense blocks, each of them one step: five convolutions, which look at five pixels."""
    a = run(planes(block.RDB1), x, reach=5)
    b = run(planes(block.RDB2), a, reach=5)
    return run(planes(partial(_third, block.RDB3)), b, x, reach=5, out=a)


def _third(dense: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    return dense(y) * 0.2 + x
