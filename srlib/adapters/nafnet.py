"""NAFNet (Chen et al., ECCV 2022): a U-net of gates, one of them in each block from the whole map's mean."""

from functools import partial
from typing import Any

from torch import Tensor

from srlib.adapters.adapted import Adapted, Run, padded
from srlib.adapters.layers import added, planes, pooled


def adapt(net: Any) -> Adapted:
    """NAFNet with a walk."""
    return Adapted(net, _steps, scale=1, channels=net.intro.in_channels, window=net.padder_size)


def _steps(net: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    picture = padded(x, net.padder_size, mode="constant")
    x = run(planes(net.intro), picture, reach=1)
    skips = []
    for blocks, down in zip(net.encoders, net.downs, strict=True):
        x = _blocks(blocks, x, run)
        skips.append(x)
        x = run(planes(down), x)
    x = _blocks(net.middle_blks, x, run)
    for blocks, up in zip(net.decoders, net.ups, strict=True):
        x = run(planes(up), x)
        x = _blocks(blocks, run(added, x, skips.pop(), out=x), run)
    return run(planes(lambda x, picture: net.ending(x) + picture), x, picture, reach=1, out=out)


def _blocks(blocks: Any, x: Tensor, run: Run) -> Tensor:
    """(B, H, W, C) -> the same, written over x."""
    for block in blocks:
        local = run(planes(partial(_local, block)), x, reach=1)
        gate = pooled(local, block.sca[1], run)
        x = run(planes(partial(_joined, block)), x, local, given=gate, out=x)
    return x


def _local(block: Any, x: Tensor) -> Tensor:
    return block.sg(block.conv2(block.conv1(block.norm1(x))))


def _joined(block: Any, x: Tensor, local: Tensor, given: Tensor) -> Tensor:
    y = x + block.conv3(local * given.to(local)) * block.beta
    return y + block.conv5(block.sg(block.conv4(block.norm2(y)))) * block.gamma
