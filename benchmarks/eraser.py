"""What the eraser costs: python benchmarks/eraser.py [counts] [steps] [inference] [--networks demo lite] [--rounds 5]

A training step out of HAT's cached answers beside one through HAT (the same batch, in one process, alternating); the
time that the eraser adds to tiled inference, by tile; its share of HAT's parameters and multiply-adds, by count.
networks: of srlib.networks.hat.CONFIGS, for steps and inference. Medians of the rounds; on a GPU if there is one.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from srlib.networks.eraser import TiledSR
from srlib.networks.hat import CONFIGS, HAT
from srlib.tiling.plan import plan_tiles

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(*works: Callable[[], object], rounds: int) -> list[float]:
    """Median seconds of each, taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):  # the first warms up
        for work, own in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def model_of(name: str, **arguments) -> TiledSR:
    model = TiledSR(HAT(**CONFIGS[name], upscale=2), use_tiling=True, tile_pad=0, gains=[[0, 0.01]], **arguments)
    return model.freeze_hat().to(DEVICE)


def steps(names: Sequence[str], rounds: int) -> None:
    """Forward and backward of a batch of 4 patches of 64x64 LR."""
    print(f"\na step of stage 3 on {DEVICE.type}, 4 patches of 64x64 LR, tiles of 32 (windows of 16: 32), ms\n")
    rows = {}
    for name in names:
        model = model_of(name, tile_size=32).train()
        lr, stitched = torch.rand(4, 3, 64, 64, device=DEVICE), torch.rand(4, 3, 128, 128, device=DEVICE)
        seen = model.seen(plan_tiles(64, 64, tile=32, halo=0, window=model.window), DEVICE)
        through, cached = timed(
            lambda model=model, lr=lr: model(lr).square().mean().backward(),
            lambda model=model, lr=lr, s=stitched, m=seen: model(lr, s, m, 0.01).square().mean().backward(),
            rounds=rounds,
        )
        rows[name] = {"through HAT": 1e3 * through, "cached": 1e3 * cached, "ratio": through / cached}
    print(pd.DataFrame.from_dict(rows, orient="index").round(1).to_string())


@torch.no_grad()
def inference(names: Sequence[str], rounds: int) -> None:
    """A picture of 256x256 LR in tiles, with the eraser and without."""
    print(f"\na picture of 256x256 LR in tiles on {DEVICE.type}, seconds\n")
    rows = {}
    for name in names:
        model, x = model_of(name).eval(), torch.rand(1, 3, 256, 256)
        plain = model_of(name).eval()
        plain.gains = []
        for tile in (32, 64, 128):
            with_it, without = timed(
                lambda m=model, x=x, tile=tile: m.tiled(x, tile=tile, halo=0, batch=4),
                lambda m=plain, x=x, tile=tile: m.tiled(x, tile=tile, halo=0, batch=4),
                rounds=rounds,
            )
            rows[name, tile] = {"without": without, "with": with_it, "added, %": 100 * (with_it / without - 1)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "tile"])
    print(table.round(2).to_string())


@torch.no_grad()
def counts() -> None:
    """Parameters and multiply-adds per LR pixel of a picture of 512x512: of the eraser with all that it looks at around
    seams, by tile, and of networks.
    """
    model = model_of("demo").cpu().eval()
    model.hat_model.forward = lambda x: x.repeat_interleave(2, -2).repeat_interleave(2, -1)  # its own are not counted
    x, rows, adds = torch.rand(1, 3, 512, 512), {}, {}
    for tile in (32, 64, 128, 256):
        with FlopCounterMode(display=False) as counted:
            model.tiled(x, tile=tile, halo=0, batch=16)
        adds[tile] = counted.get_total_flops() / 2 / 512**2
    eraser = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("hat_model"))
    told = ", ".join(f"{own / 1e6:.2f} M with tiles of {tile}" for tile, own in adds.items())
    print(f"\nthe eraser: {eraser / 1e6:.2f} M parameters; multiply-adds per LR pixel, x2, without context: {told}\n")
    for name in ("demo", "small", "lite", "vram8", "vram12", "HAT-S", "HAT", "HAT-L"):
        with torch.device("meta"), FlopCounterMode(display=False) as counted:
            network = HAT(**CONFIGS[name], upscale=2)
            network(torch.empty(1, 3, 64, 64))
        parameters, own = sum(p.numel() for p in network.parameters()), counted.get_total_flops() / 2 / 64**2
        rows[name] = {
            "parameters, M": parameters / 1e6,
            "eraser's, %": 100 * eraser / parameters,
            "multiply-adds per LR pixel, M": own / 1e6,
            **{f"eraser's, tile {tile}, %": 100 * adds[tile] / own for tile in adds},
        }
    print(pd.DataFrame.from_dict(rows, orient="index").round(2).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=list(CONFIGS), default=["demo", "lite", "vram8"])
    parts = {"counts": lambda *_: counts(), "steps": steps, "inference": inference}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="none: all")
    told = parser.parse_args()
    for name in told.parts or parts:
        parts[name](told.networks, told.rounds)
