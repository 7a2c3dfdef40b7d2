"""README's first table: python benchmarks/front_page.py [--run demo] [--rounds 3], after make demo.

Six ways to upscale the run's held-out test pictures with its network: how near each is to the network's own whole
picture (TC, SGR), how near to the ground truth, how long it takes and how much memory. MONAI's sliding-window inferer
averages overlapping tiles with a Gaussian, as many tools do. Medians over the rounds, taken in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from srlib.data.datasets import PicturePairs
from srlib.evaluation.metrics import psnr_y
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.tiling.memory import peak_of
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seams import consistency, seam_gradient_ratio

ROOT = Path(__file__).parents[1]
TILE = 32


def ways(model: TiledSR) -> dict[str, Callable[[Tensor], Tensor]]:
    network, window = model.hat_model, model.window
    bare = TiledSR(network).eval()
    read = TILE + 2 * window
    return {
        "tiles, no context": lambda x: bare.tiled(x, tile=TILE, halo=0)[0],
        "tiles averaged by a Gaussian (MONAI)": lambda x: sliding_window_inference(
            x, (read, read), 1, network, overlap=2 * window / read, mode="gaussian"
        ),
        "tiles with one window of context": lambda x: bare.tiled(x, tile=TILE, halo=window)[0],
        "tiles, no context, eraser behind them": lambda x: model.tiled(x, tile=TILE, halo=0)[0],
        "exact, in chunks": lambda x: bare.tiled(x, tile=TILE, statistics="exact")[0],
        "whole picture at once": network,
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    out = ROOT / "outputs" / o.run
    if not (out / "artifact_ft/best.safetensors").is_file():
        raise SystemExit(f"{out} has no trained stage 3: make RUN={o.run} first")
    model = load(out / "artifact_ft/best.safetensors").eval()
    pairs = PicturePairs(out / "data", "test", scale=model.scale)
    items = [(item["lr"][None], item["hr"][None]) for item in pairs]
    sizes = sorted({f"{x.shape[3]}x{x.shape[2]}" for x, _ in items})
    print(f"{len(items)} test pictures of {', '.join(sizes)} LR pixels, x{model.scale}, tiles of {TILE}, on")
    print(f"{torch.get_num_threads()} CPU threads; seconds for all of them, MiB at the peak of the largest\n")
    network, runs, rows = model.hat_model, ways(model), {}
    wholes = [network(x) for x, _ in items]
    for way, run in runs.items():
        scores = []
        for (x, truth), whole in zip(items, wholes, strict=True):
            y = run(x)
            seams = plan_tiles(*x.shape[2:], tile=TILE, halo=0, window=model.window).seams(model.scale)
            scores.append(
                {
                    "TC, dB": float("nan") if run is network else consistency(y, whole),
                    "SGR": seam_gradient_ratio(y, whole, seams),
                    "PSNR-Y, dB": psnr_y(y.clamp(0, 1), truth, model.scale).item(),
                }
            )
        largest = max((x for x, _ in items), key=Tensor.numel)
        rows[way] = {
            **pd.DataFrame(scores).mean(),
            "MiB": peak_of(lambda run=run, x=largest: run(x), torch.device("cpu"))[1] / 2**20,
        }
    times: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(o.rounds):
        for way, run in runs.items():
            start = time.perf_counter()
            for x, _ in items:
                run(x)
            times[way].append(time.perf_counter() - start)
    for way, values in times.items():
        rows[way]["seconds"] = statistics.median(values)
    table = pd.DataFrame.from_dict(rows, orient="index")
    digits = {"TC, dB": 1, "SGR": 3, "PSNR-Y, dB": 2, "MiB": 1, "seconds": 2}
    print(table.round(digits)[list(digits)].to_string(na_rep=""))


if __name__ == "__main__":
    main()
