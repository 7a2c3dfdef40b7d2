"""What docs/tiling.md says about tiling, measured: python benchmarks/tiling.py [exact] [peak] [halo] [faults]

Without arguments everything, about half an hour on two cores. Peers: spandrel's HAT (the reference implementation) for
the whole picture, MONAI's sliding-window inferer for averaged overlaps. Times are medians of runs that alternate in
one process; memory is the growth of the resident set, each run in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.inferers import sliding_window_inference
from skimage import data
from spandrel import ModelLoader
from torch import Tensor

from srlib.evaluation.evaluate import ways_to_tile
from srlib.files import atomic
from srlib.networks.checkpoints import load_hat
from srlib.networks.hat import HAT
from srlib.networks.initial import start_far_reaching
from srlib.tiling.memory import peak_of
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seams import consistency, seam_gradient_ratio
from srlib.tiling.tiled import Cancelled, Execution, tiled_apply

DEEP = {"depths": (6,) * 6, "num_heads": (3,) * 6}
CPU = torch.device("cpu")


def strong(conv_scale: float = 0.3, **arguments) -> HAT:
    """A random HAT in which every part counts."""
    return start_far_reaching(HAT(squeeze_factor=6, compress_ratio=4, conv_scale=conv_scale, **arguments)).eval()


def photo(height: int, width: int) -> Tensor:
    """(1, 3, height, width) of a photograph, repeated mirrored where it is smaller."""
    picture = data.astronaut()
    picture = np.pad(picture, [(0, max(n - 512, 0)) for n in (height, width)] + [(0, 0)], mode="symmetric")
    return torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255


def exact(quick: bool, trained: Path) -> None:
    """Equality with the whole-picture forward."""
    print("\nexact: largest |t - r| in fp32, sizes that are no multiple of the window\n")
    networks = {f"random, 36 blocks, window {w}": strong(embed_dim=24, window_size=w, **DEEP) for w in (8, 16)}
    if trained.is_file():
        networks["trained"] = load_hat(trained)
    rows = []
    for name, model in networks.items():
        window = model.window
        for height, width in [(77, 101), (45, 203)][: 1 if quick else None]:
            x = photo(height, width)
            whole = model(x)
            plan = plan_tiles(height, width, tile=32, halo=32, window=window)
            chunked, _ = tiled_apply(model, x, plan, scale=2, statistics="exact")
            local, _ = tiled_apply(model, x, plan, scale=2)
            rows.append(
                {"network": name, "LR": f"{width}x{height}", "output rms": whole.square().mean().sqrt().item()}
                | {"exact": (chunked - whole).abs().max().item(), "tile 32 halo 32": (local - whole).abs().max().item()}
            )
    print(pd.DataFrame(rows).to_string(index=False))


PEAK = {"embed_dim": 48, "depths": (6,) * 6, "num_heads": (6,) * 6, "window_size": 16}


def _peak_case(case: str, side: int, depth: int) -> dict:
    """One way to upscale side x side, in a process of its own: seconds, and MiB beyond what was there before."""
    arguments = {**PEAK, "depths": PEAK["depths"][:depth], "num_heads": PEAK["num_heads"][:depth]}
    model, x = strong(conv_scale=0.01, **arguments), photo(side, side)
    run = _ways(model)[case]
    run(photo(32, 32))
    status = Path("/proc/self/status").read_text
    before = _kib(status(), "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    start = time.perf_counter()
    run(x)
    return {"seconds": time.perf_counter() - start, "MiB": (_kib(status(), "VmHWM") - before) / 1024}


def _ways(model: HAT) -> dict:
    peer = ModelLoader().load_from_state_dict(model.state_dict()).model.eval()

    def exact(x: Tensor) -> Tensor:
        plan = plan_tiles(*x.shape[-2:], tile=64, halo=0, window=model.window)
        return tiled_apply(model, x, plan, scale=2, statistics="exact")[0]

    return {"spandrel, whole": peer, "srlib, whole": model, "srlib, exact": exact}


def _kib(status: str, name: str) -> int:
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def peak(quick: bool, trained: Path) -> None:
    """Memory and time of the whole picture, against the peer's and ours at once."""
    side, depth, rounds = (96, 1, 1) if quick else (384, 6, 3)
    size = f"{side}x{side} LR, embed 48, {6 * depth} blocks, window 16, x2, fp32"
    print(f"\npeak: {size}, {torch.get_num_threads()} threads\n")
    cases = ["spandrel, whole", "srlib, whole", "srlib, exact"]
    measured: dict[str, list[dict]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            command = [sys.executable, __file__, "--case", case, "--side", str(side), "--depth", str(depth)]
            measured[case].append(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    table = pd.DataFrame(
        {c: {k: statistics.median(m[k] for m in runs) for k in ("seconds", "MiB")} for c, runs in measured.items()}
    ).T
    for name, case in [("spandrel", cases[0]), ("ours whole", cases[1])]:
        for column, label in [("seconds", "time"), ("MiB", "memory")]:
            pairs = zip(*(measured[c] for c in cases), strict=True)
            ratios = [dict(zip(cases, p, strict=True)) for p in pairs]
            table[f"{label} / {name}"] = [
                statistics.median(p[c][column] / p[case][column] for p in ratios) for c in cases
            ]
    print(table.round(3).to_string())


def halo(quick: bool, trained: Path) -> None:
    """TC, SGR, time, memory by halo and way of tiling."""
    sizes = {"conv_scale": 0.01, "embed_dim": 24, "window_size": 8}  # the published conv_scale
    networks = {"shallow (4 blocks), random": strong(depths=(2, 2), num_heads=(3, 3), **sizes)}
    if not quick:
        networks["deep (36 blocks), random"] = strong(**sizes, **DEEP)
    if trained.is_file():
        networks[f"trained, {trained}"] = load_hat(trained)
    else:
        print(f"\n(no trained model at {trained}: run make demo for its table)")
    x = photo(128, 160) if quick else photo(256, 320)
    for name, model in networks.items():
        window = model.window
        model(x)  # the first run of a size is slower
        start = time.perf_counter()
        whole = model(x)
        seconds = time.perf_counter() - start
        print(f"\nhalo: {name}, tile 64, LR {x.shape[3]}x{x.shape[2]}; whole picture {seconds:.2f} s\n")
        rows = []
        for context in (8, 16) if quick else (8, 16, 32, 64):
            ways = ways_to_tile(64, context, window)
            ways["two_pass, misaligned"] = {**ways["crop, misaligned"], "statistics": "two_pass"}
            for way, options in ways.items():
                if (way == "exact" or options["halo"] == 0) and context > 8:
                    continue  # context does not change these
                grid = {"window": window, "halo": 0, **options}
                chosen = {name: grid.pop(name) for name in ("blend", "statistics") if name in grid}
                plan = plan_tiles(*x.shape[-2:], **grid)

                def run(plan=plan, model=model, chosen=chosen):
                    return tiled_apply(model, x, plan, scale=model.scale, batch=1, **chosen)

                start = time.perf_counter()
                picture, report = run()
                row = {"seconds": time.perf_counter() - start, "MiB": peak_of(run, CPU)[1] / 2**20}
                shown = {"exact": "-", "crop, no halo": 0}.get(way, plan.halo)
                rows.append({"halo": shown, "way": way, **_judged(picture, whole, report.seams), **row})
            read = 64 + 2 * context

            def monai(read=read, context=context, model=model):
                overlap = 2 * context / read
                return sliding_window_inference(x, (read, read), 1, model, overlap=overlap, mode="gaussian")

            start = time.perf_counter()
            picture = monai()
            row = {"seconds": time.perf_counter() - start, "MiB": peak_of(monai, CPU)[1] / 2**20}
            seams = report.plan.seams(model.scale)
            rows.append({"halo": context, "way": "MONAI, gaussian", **_judged(picture, whole, seams), **row})
        table = pd.DataFrame(rows)
        print(table.round({"TC": 1, "SGR": 4, "seconds": 2, "MiB": 1}).to_string(index=False))
        _verdict(table)


def _judged(picture: Tensor, whole: Tensor, seams) -> dict:
    return {"TC": consistency(picture, whole), "SGR": seam_gradient_ratio(picture, whole, seams)}


def _verdict(table: pd.DataFrame) -> None:
    """Whether aligned beats misaligned, and two_pass local, at the same halo (misaligned has half a window more)."""
    tc = {way: rows["TC"].tolist() for way, rows in table.groupby("way")}
    for i, context in enumerate(table[table["way"] == "crop"]["halo"]):
        local, shared = (tc[way][i] - tc[f"{way}, misaligned"][i] for way in ("crop", "two_pass"))
        print(
            f"halo {context}: aligned - misaligned {local:+.1f} dB (with two_pass {shared:+.1f} dB), "
            f"two_pass - local {tc['two_pass'][i] - tc['crop'][i]:+.1f} dB"
        )


def faults(quick: bool, trained: Path) -> None:
    """Out of memory in the middle, and cancelling."""
    model, x = strong(embed_dim=12, depths=(2,), num_heads=(3,), window_size=8), photo(128, 160)
    calls = []

    def limited(tile: Tensor) -> Tensor:
        calls.append(tile.shape)
        if len(calls) == 3 and tile.shape[0] * tile.shape[2] * tile.shape[3] > 80 * 80:
            raise torch.OutOfMemoryError("simulated: CUDA out of memory")
        return model(tile)

    plan = plan_tiles(128, 160, tile=64, halo=8, window=8)
    picture, report = tiled_apply(limited, x, plan, scale=2, batch=2, how=Execution(on_oom="shrink"))
    plain, _ = tiled_apply(model, x, report.plan, scale=2, batch=report.batch)
    print("\nfaults: out of memory at the third call\n  " + str(report).replace("\n", "\n  "))
    print(f"  equal to a run with that plan from the start: {torch.equal(picture, plain)}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with atomic(Path(folder) / "picture.npy") as path:
                out = np.lib.format.open_memmap(path, "w+", np.uint8, (1, 3, 256, 320))
                how = Execution(cancel=lambda: bool(out[0, 0, 0, 0]))
                tiled_apply(model, x, plan.halved(), scale=2, batch=1, out=out, how=how)
        except Cancelled as error:
            print(f"  cancelled half way: {error}; files left: {[p.name for p in Path(folder).iterdir()]}")


@torch.no_grad()
def main() -> None:
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # the peer's
    parts = {part.__name__: part for part in (exact, peak, halo, faults)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--model", type=Path, default=Path("outputs/demo/tiling/best.safetensors"), help="trained")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    for hidden in ("--side", "--depth"):
        parser.add_argument(hidden, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(_peak_case(arguments.case, arguments.side, arguments.depth)))
    else:
        for part in arguments.parts or parts:
            parts[part](arguments.quick, arguments.model)


if __name__ == "__main__":
    main()
