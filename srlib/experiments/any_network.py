"""What 09_any_network measures: how far networks look, whether they are tiled exactly, and what tiling costs one with
trained weights.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from srlib.adapters import adapter_for
from srlib.data.pictures import to_integers
from srlib.evaluation.metrics import psnr_y
from srlib.experiments.other_tilers import TILERS
from srlib.inference.auto_halo import AutoHalo, with_context
from srlib.networks.eraser import TiledSR
from srlib.tiling.memory import peak_of
from srlib.tiling.plan import plan_tiles
from srlib.tiling.reach import Reach, find_reach
from srlib.tiling.seams import consistency
from srlib.tiling.tiled import Report, tiled_apply

_SWIN = {"img_size": 32, "embed_dim": 12, "num_heads": [2] * 4, "window_size": 8, "mlp_ratio": 2}
# spandrel's classes at their published depth, which is what the reach depends on, and narrow.
NARROW: dict[str, tuple[str, dict[str, Any]]] = {
    "Compact": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_feat": 8, "num_conv": 32}),
    "SPAN": ("SPAN.__arch.span.SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 12}),
    "ESRGAN": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 4}),
    "SwinIR-light": (
        "SwinIR.__arch.SwinIR.SwinIR",
        _SWIN | {"depths": [6] * 4, "upscale": 2, "upsampler": "pixelshuffledirect"},
    ),
    "PLKSR": ("PLKSR.__arch.PLKSR.PLKSR", {"dim": 8}),
    "MoSR": ("MoSR.__arch.mosr_arch.MoSR", {"dim": 8}),
    "DRCT": (
        "DRCT.__arch.drct_arch.DRCT",
        {"embed_dim": 12, "depths": [6] * 6, "num_heads": [2] * 6, "gc": 4, "upscale": 2, "upsampler": "pixelshuffle"},
    ),
    "SCUNet": ("SCUNet.__arch.SCUNet.SCUNet", {"config": [4] * 7}),
    "RealPLKSR": ("PLKSR.__arch.RealPLKSR.RealPLKSR", {"dim": 8}),
    "RCAN": ("RCAN.__arch.rcan_arch.RCAN", {"n_feats": 8, "reduction": 4}),
    "NAFNet": (
        "NAFNet.__arch.NAFNet_arch.NAFNet",
        {"width": 8, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1] * 4},
    ),
    "DAT-light": (
        "DAT.__arch.DAT.DAT",
        {"img_size": 64, "embed_dim": 32, "num_heads": [2], "split_size": [8, 32], "expansion_factor": 2}
        | {"depth": [18], "upsampler": "pixelshuffledirect"},
    ),
}


def narrow(name: str, seed: int = 0) -> nn.Module:
    """The network of NARROW with random weights, by spandrel's class, ready for exact tiling.

    Raises ValueError for an unknown name, ImportError where spandrel is not installed.
    """
    if name not in NARROW:
        raise ValueError(f"architecture {name!r} is none of {', '.join(NARROW)}")
    path, arguments = NARROW[name]
    home, _, kind = path.rpartition(".")
    torch.manual_seed(seed)
    module = getattr(import_module(f"spandrel.architectures.{home}"), kind)(**arguments).eval()
    adapted = adapter_for(module)
    assert adapted is not None
    return adapted


@torch.no_grad()
def looked_at(name: str, x: Tensor, seconds: float = 60.0) -> tuple[Reach, dict[str, Any]]:
    """The reach of that network, and how near exact tiling comes to its whole answer to x (1, 3, H, W)."""
    model: Any = narrow(name)
    reach = find_reach(model, window=model.window, seconds=seconds)
    whole = model(x)
    tile = -(-48 // model.window) * model.window
    plan = plan_tiles(*x.shape[-2:], tile=tile, halo=0, window=model.window)
    picture, _ = tiled_apply(model, x, plan, scale=model.scale, statistics="exact")
    span = (whole.max() - whole.min()).item()
    assert picture is not None
    return reach, {"exact, difference / range": (picture - whole).abs().max().item() / span}


def ways_of(model: TiledSR, tile: int, reach: Reach, decibels: float) -> dict[str, Callable[[Tensor], Any]]:
    """What other tools do by default and what this project does: {way: picture -> (upscaled, report or None)}."""
    network: Any = model.hat_model

    def other(tiler: Callable[..., Tensor]) -> Callable[[Tensor], tuple[Tensor, Report | None]]:
        return lambda x: (tiler(network, x, tile, model.scale), None)

    def chosen(x: Tensor) -> tuple[Tensor, Report]:
        options, notes = with_context(model, x, {"tile": tile, "halo": AutoHalo(reach, decibels)})
        picture, report = model.tiled(x, **options)
        report.notes[:0] = notes
        return picture, report

    ways: dict[str, Callable[[Tensor], Any]] = {name: other(tiler) for name, tiler in TILERS.items()}
    ways["tiles, no context"] = lambda x: model.tiled(x, tile=tile, halo=0)
    ways[f"tiles, --halo auto ({decibels:g} dB)"] = chosen
    if hasattr(network, "walk"):
        ways["exact"] = lambda x: model.tiled(x, tile=tile, statistics="exact")
    return ways


@torch.no_grad()
def compared(
    model: TiledSR, ways: Mapping[str, Callable[[Tensor], Any]], pairs: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[pd.DataFrame, dict[tuple[str, str], Tensor]]:
    """One row a picture and way, the whole picture first, and the pictures (C, H, W) by the same keys.

    pairs: {name: (LR, HR)}, each (1, C, H, W) in [0, 1]. Columns: PSNR-Y against HR (border of the scale), what of it
    tiling takes, TC and the largest difference against the whole picture, the share of 8-bit values that differ,
    seconds, MiB at the peak (of the first picture, run once more), and the context that was chosen.
    """
    rows, pictures, best = [], {}, 0.0
    for number, (name, (x, truth)) in enumerate(pairs.items()):
        whole: Tensor | None = None
        for way, run in {"whole picture": lambda x: (model.hat_model(x), None), **ways}.items():
            start = time.perf_counter()
            y, report = run(x)
            seconds = time.perf_counter() - start
            whole = y if whole is None else whole
            pictures[name, way] = y[0].clamp(0, 1)
            quality = psnr_y(y.clamp(0, 1), truth, model.scale).item()
            row: dict[str, Any] = {"picture": name, "way": way, "TC, dB": float("nan"), "PSNR-Y, dB": quality}
            if y is not whole:
                row["of it lost, dB"] = best - quality
                bits = [to_integers(picture[0]) for picture in (y, whole)]
                row |= {
                    "TC, dB": consistency(y, whole),
                    "largest difference": (y - whole).abs().max().item(),
                    "8-bit values that differ, %": 100 * float((bits[0] != bits[1]).mean()),
                }
            else:
                best = quality
            row["seconds"] = seconds
            if not number:
                row["MiB"] = peak_of(partial(run, x), torch.device("cpu"))[1] / 2**20
            row["context"] = report.plan.halo if report is not None and way != "exact" else float("nan")
            rows.append(row)
    return pd.DataFrame(rows), pictures
