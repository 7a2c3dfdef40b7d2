"""Upscale one picture with a trained model; 8 or 16 bits, grey, alpha and colour profile stay as they are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srlib.data.pictures import Picture, to_float, to_integers
from srlib.inference.alpha import fill_hidden, upscale_alpha
from srlib.inference.auto_halo import with_context
from srlib.inference.ensemble import averaged
from srlib.networks.eraser import TiledSR
from srlib.networks.wrappers import unwrapped
from srlib.tiling.tiled import Execution, Report

# A model trained here or published moves the mean by 0.01, of black by 0.1 after 150 steps, and leaves 0.2 % outside;
# one told the wrong img_range moves it by 0.1 to 2, or leaves 4 to 97 % outside [-0.1, 1.1].
_FAR, _MANY = 0.125, 0.05


def upscale(model: TiledSR, picture: Picture, *, tta: bool = False, **options: Any) -> tuple[Picture, Report]:
    """The picture upscaled by model.scale, of the same kind: 8 or 16 bits, grey, alpha, colour profile.

    The colours go through the model; alpha is upscaled by a fixed kernel, see srlib.inference.alpha. Where all that is
    fully transparent has one colour, the model sees the nearest visible one there, so that no halo of it comes out.
    tta: the mean of the network's answers to the picture's eight flips and rotations.
    options: those of TiledSR.tiled, such as statistics, tile, halo, batch, how; halo may also be "auto" or an AutoHalo:
    then a note of the report says what was chosen, and by what it is known. A grey picture through a colour model:
    the mean of its three output channels; a colour picture through a grey model: channel by channel.
    Returns the picture and the report, with a note that begins with "hint" when a HAT's output has a mean far from the
    input's, or many values outside [0, 1]. Raises FloatingPointError for weights or an output that are not finite,
    ValueError for a precision that the network does not support.
    """
    if not isinstance(picture, Picture):
        raise TypeError(f"picture is a {type(picture).__name__}: read the file first, srlib.read_picture(path)")
    check_precision(model, options.get("how", Execution()))
    _check_weights(model)
    tiled = partial(averaged, model) if tta else model.tiled
    if picture.alpha is None:
        colours, report = _colours(model, tiled, picture.rgb, picture.grey, options)
        return replace(picture, rgb=colours), report
    alpha, filled = upscale_alpha(picture.alpha, model.scale), fill_hidden(picture.rgb, picture.alpha)
    colours, report = _colours(model, tiled, picture.rgb if filled is None else filled, picture.grey, options)
    if filled is not None:
        colours[alpha == 0] = picture.rgb[picture.alpha == 0][0]  # what it was, under what does not show
    return replace(picture, rgb=colours, alpha=alpha), report


def check_precision(model: TiledSR, how: Execution) -> None:
    """Raise ValueError, with the remedy, where the network is known not to work in how.dtype."""
    network: Any = unwrapped(model.hat_model)
    half, bfloat = (getattr(network, f"{kind}_precision", True) for kind in ("half", "bfloat"))
    if (how.dtype == torch.float16 and not half) or (how.dtype == torch.bfloat16 and not bfloat):
        given, remedy = ("fp16", "bf16" if bfloat else "fp32") if how.dtype == torch.float16 else ("bf16", "fp32")
        raise ValueError(f"{network.name} is not known to work in {given}: use {remedy}")


def _check_weights(model: TiledSR) -> None:
    """Before the work, as no precision helps then."""
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise FloatingPointError(
                f"the model's weights hold NaN or infinity ({name}), so no precision helps, fp32 neither: use another "
                "checkpoint"
            )


def _colours(
    model: TiledSR, tiled: Callable[..., Any], rgb: np.ndarray, grey: bool, options: dict
) -> tuple[np.ndarray, Report]:
    """(H, W, 3) -> (H*scale, W*scale, 3) of the same integer type; only bands of it are ever floats."""
    height, width = (side * model.scale for side in rgb.shape[:2])
    out = np.empty((height, width, 3), rgb.dtype)
    lr = to_float(rgb)
    single = model.hat_model.config["in_chans"] == 1
    x = (lr[:1] if grey else lr)[:, None] if single else lr[None]  # (1, 3, H, W), or (1 or 3, 1, H, W)
    seen = np.zeros((2, height))  # of each row: the mean, the share outside

    def take(band: Tensor, top: int) -> None:
        band = band.float().cpu()
        band = band.transpose(0, 1)[0] if single else band[0]  # (channels, rows, W)
        rows = slice(top, top + band.shape[1])
        seen[:, rows] = band.mean((0, 2)), (band - 0.5).abs().gt(0.6).float().mean((0, 2))
        out[rows] = to_integers(band.mean(0, keepdim=True) if grey else band, rgb.dtype)

    options, notes = with_context(model, x, options)
    _, report = tiled(x, out=take, **options)
    report.notes[:0] = notes
    before, (after, outside) = lr.mean().item(), seen.mean(1)
    scaled = "img_range" in model.hat_model.config  # other networks may well make a dark picture bright
    if scaled and (abs(after - before) > _FAR or outside > _MANY):
        report.notes.append(
            f"hint: the mean goes from {255 * before:.0f} to {255 * after:.0f} of 255, {outside:.0%} of the values lie "
            "outside; if the picture looks wrong, the model was trained with another --img-range (try 255) or "
            "--conv-scale"
        )
    return out, report
