"""DySample (Liu et al., ICCV 2023), an upsampler that reads each output pixel where the features there tell it to.

How far that is from the pixel has no bound, so a chunk is given its positions in the picture, and fetches from the
whole map the rows and columns that its own pixels ask for; mostly these are a pixel or two more than its own.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srlib.adapters.adapted import Run


def sampled(layer: Any, x: Tensor, run: Run, out: Any) -> Tensor:
    """(B, H, W, C) -> (B, H*scale, W*scale, channels), the network's last step."""
    B, H, W = x.shape[:3]
    at: dict[str, Any] = {"dtype": torch.promote_types(x.dtype, torch.float32), "device": x.device}
    rows = torch.arange(H, **at).view(1, H, 1, 1).expand(B, H, W, 1)
    columns = torch.arange(W, **at).view(1, 1, W, 1).expand(B, H, W, 1)
    return run(partial(_fetched, layer, x), x, rows, columns, out=out)


def _fetched(layer: Any, everything: Tensor, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """everything: the whole map (B, H', W', C); x, rows, columns: the chunk (B, H, W, C) and its pixels' positions."""
    B, H, W = x.shape[:3]
    scale, groups, planes = layer.scale, layer.groups, x.permute(0, 3, 1, 2)
    offset = layer.offset(planes) * layer.scope(planes).sigmoid() * 0.5 + layer.init_pos
    x_offset, y_offset = offset.view(B, 2, -1, H, W).unbind(1)  # each (B, groups*scale**2, H, W)
    wanted = []
    for part, position, side in ((x_offset, columns, everything.shape[2]), (y_offset, rows, everything.shape[1])):
        wanted.append(F.pixel_shuffle(part + position.permute(0, 3, 1, 2), scale).clamp(0, side - 1))
    (left, right), (top, bottom) = ((int(w.min().floor()), int(w.max().ceil()) + 1) for w in wanted)
    source = everything[:, top:bottom, left:right].permute(0, 3, 1, 2).to(x)
    sides = [(wanted[0] - left + 0.5) / (right - left), (wanted[1] - top + 0.5) / (bottom - top)]
    grid = torch.stack([2 * side - 1 for side in sides], -1).flatten(0, 1)  # (B*groups, H*scale, W*scale, 2)
    found = F.grid_sample(
        source.reshape(B * groups, -1, *source.shape[2:]), grid.to(source), padding_mode="border", align_corners=False
    )
    found = found.view(B, -1, H * scale, W * scale)
    return (layer.end_conv(found) if layer.end_convolution else found).permute(0, 2, 3, 1)
