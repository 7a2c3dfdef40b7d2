"""Upscale one picture with a trained model; 8 or 16 bits, grey, alpha and colour profile stay as they are."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from srlib.data.pictures import Picture, to_float, to_integers
from srlib.networks.eraser import TiledSR
from srlib.tiling.tiled import Report


def upscale(model: TiledSR, picture: Picture, **options: Any) -> tuple[Picture, Report]:
    """The picture upscaled by model.scale, of the same kind: 8 or 16 bits, grey, alpha, colour profile.

    Alpha goes through the model as a grey picture, beside the colours. options: those of TiledSR.tiled, such as
    statistics, tile, halo, batch, how. A grey picture through a colour model: the mean of its three output channels; a
    colour picture through a grey model: channel by channel. Returns the picture and the report of the colours' run.
    """
    colours, report = _planes(model, picture.rgb, picture.grey, options)
    alpha = None
    if picture.alpha is not None:
        alpha = _planes(model, np.repeat(picture.alpha[..., None], 3, 2), True, options)[0][..., 0]
    return replace(picture, rgb=colours, alpha=alpha), report


def _planes(model: TiledSR, planes: np.ndarray, grey: bool, options: dict) -> tuple[np.ndarray, Report]:
    """(H, W, 3) -> (H*scale, W*scale, 3) of the same integer type; only bands of it are ever floats."""
    height, width = (side * model.scale for side in planes.shape[:2])
    out = np.empty((height, width, 3), planes.dtype)
    lr = to_float(planes)
    single = model.hat_model.config["in_chans"] == 1
    x = (lr[:1] if grey else lr)[:, None] if single else lr[None]  # (1, 3, H, W), or (1 or 3, 1, H, W)

    def take(band: Tensor, top: int) -> None:
        band = band.float().cpu()
        band = band.transpose(0, 1)[0] if single else band[0]  # (channels, rows, W)
        out[top : top + band.shape[1]] = to_integers(band.mean(0, keepdim=True) if grey else band, planes.dtype)

    _, report = model.tiled(x, out=take, **options)
    return out, report
