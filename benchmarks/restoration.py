"""What exact tiling of transposed attention costs: python benchmarks/restoration.py [--side 1024] [--network Restormer]

The whole forward, the same picture in chunks of bounded memory (exact), with statistics over windows, and in tiles with
context, beside the forward of spandrel-extra-arches' Restormer with the same weights, one after the other in one
process: seconds, the most memory that tensors held, and the largest difference from the whole forward. On a GPU if
there is one. A Phaseformer has no peer there; "exact" is then compared with its own whole forward.
"""

import argparse
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from srlib.networks.restormer import CONFIGS, Restormer
from srlib.tiling.memory import peak_of
from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import tiled_apply

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lively(name: str) -> Restormer:
    """With random weights, large enough that the answer depends on all of them."""
    torch.manual_seed(0)
    model = Restormer(**CONFIGS[name]).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.1 if p.ndim == 1 else p * 1.5)
    if model.answers == "two":
        model.answer = "high"
    return model.to(DEVICE)


def peer(model: Restormer) -> torch.nn.Module:
    """spandrel-extra-arches' Restormer with the same weights."""
    from spandrel_extra_arches.architectures.Restormer import Restormer as Theirs

    theirs = Theirs(LayerNorm_type=model.config["norm"], **_named(model.config)).eval()
    theirs.load_state_dict(model.state_dict())
    return theirs.to(DEVICE)


def _named(config: dict) -> dict:
    names = {"dim": "dim", "blocks": "num_blocks", "heads": "heads", "refinement": "num_refinement_blocks"}
    return {theirs: config[ours] for ours, theirs in names.items()} | {"ffn_expansion_factor": config["ffn"]}


def measured(run: Callable[[], Tensor], whole: Tensor | None, rounds: int) -> tuple[dict, Tensor]:
    """Best seconds of the rounds, peak memory, difference from the whole forward. Memory is counted in each round,
    which costs some microseconds an operation: nothing for pictures of this size.
    """
    times, peak, picture = [], 0, None
    for _ in range(rounds):
        start = time.perf_counter()
        picture, peak = peak_of(run, DEVICE)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    assert isinstance(picture, Tensor)
    difference = 0.0 if whole is None else (picture - whole).abs().max().item()
    return {"seconds": min(times), "MiB": peak / 2**20, "difference": difference}, picture


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="of the picture, pixels")
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--span", type=int, default=256, help="of windows and tiles")
    parser.add_argument("--network", choices=list(CONFIGS), default="Restormer")
    parser.add_argument("--rounds", type=int, default=1)
    told = parser.parse_args()
    model, x = lively(told.network), torch.rand(1, 3, told.side, told.side, device=DEVICE)

    def tiled(tile: int, halo: int = 0, **options) -> Tensor:
        plan = plan_tiles(told.side, told.side, tile=tile, halo=halo, window=model.window)
        picture, _ = tiled_apply(model, x, plan, scale=model.scale, batch=1, **options)
        assert picture is not None
        return picture

    runs: dict[str, Callable[[], Tensor]] = {"whole": lambda: model(x)}
    if model.answers == "residual":
        theirs = peer(model)
        runs = {"spandrel-extra-arches": lambda: theirs(x), **runs}
    runs["exact"] = lambda: tiled(told.chunk, statistics="exact")
    if model.config["attention"] == "channel":
        runs["window"] = lambda: tiled(told.chunk, statistics="window", span=told.span)
    runs["tiles"] = lambda: tiled(told.span, 32)
    rows: dict[str, dict] = {}
    whole: Tensor | None = None
    for name, run in runs.items():
        rows[name], picture = measured(run, whole, told.rounds)
        whole = picture if whole is None else whole
        print(name, {k: float(f"{v:.3g}") for k, v in rows[name].items()}, flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index")
    base = table.loc["whole"]
    table.insert(1, "times whole", table["seconds"] / base["seconds"])
    table.insert(3, "of whole's memory", table["MiB"] / base["MiB"])
    print(
        f"\n{told.network}, {told.side}x{told.side} on {DEVICE.type}, chunks of {told.chunk}, windows of {told.span}\n"
    )
    print(table.to_string(float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
