"""A network as a list of steps: what its `walk` hands them to, here the plain way, whole maps at a time.

A step is a map (its answer at a pixel depends on a bounded neighbourhood) or ends in a sum over the picture, from
which something is computed that later steps are given. srlib.tiling.exact.Chunks runs the same steps in bounded memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def whole(
    step: Callable[..., Tensor],
    *maps: Tensor,
    reach: int = 0,
    margin: int = 0,
    shift: int | tuple[int, int] = 0,
    multiple: int = 1,
    sums: Callable[[Tensor], Tensor] | None = None,
    then: Callable[[Tensor, int], Tensor] | None = None,
    given: Any = None,
    out: Any = None,
) -> Tensor:
    """Run a step over whole maps (B, H, W, C): the plain way, and what another way must be equal to.

    reach: pixels around it that an output pixel depends on (convolutions, which pad with zeros at the picture's
    border only). margin: the last map is given with that many pixels more on each side, zeros beyond the border.
    shift: maps are rolled up and left by it (or by two different numbers), the answer back; the step is then also told
    (True, True), that the last rows and the last columns wrapped around. multiple: maps are first extended at the
    bottom and right with zeros to a multiple of it, the answer is cropped again; the step does not change the size.
    out: a map that the answer may overwrite; not used here.
    sums: the step's answer is not wanted itself, only sums(answer), which adds up over pixels; what is returned is
    then(the sum, the number of pixels). given: such a result; the step gets it by this name.
    A step that halves the size has an even reach.
    """
    if given is not None:
        step = partial(step, given=given)
    if margin:
        maps = (*maps[:-1], F.pad(maps[-1], (0, 0, margin, margin, margin, margin)))
    H, W = maps[0].shape[1:3]
    if multiple > 1:
        maps = tuple(F.pad(m, (0, 0, 0, -W % multiple, 0, -H % multiple)) for m in maps)
    if shift:
        y, x = (shift, shift) if isinstance(shift, int) else shift
        rolled = [m.roll((-y, -x), (1, 2)) for m in maps]
        answer = step(*rolled, (True, True)).roll((y, x), (1, 2))
    else:
        answer = step(*maps)
    if multiple > 1:
        answer = answer[:, :H, :W]
    if sums is None:
        return answer
    assert then is not None
    return then(sums(answer), answer.shape[1] * answer.shape[2])


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom: mirrored, or the edge repeated where that is impossible."""
    H, W = x.shape[-2:]
    bottom, right = ((size + multiple - 1) // multiple * multiple - size for size in (H, W))  # in a form export proves
    if not torch.compiler.is_compiling() and not bottom and not right:
        return x
    mode = "reflect" if bottom < H and right < W else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)
