"""HAT's speed and memory beside spandrel's, the reference implementation: benchmarks/hat.py [forward] [step] [batch]

Same weights, same input, in turn in one process; medians over the rounds, of seconds and of each round's ratio.
forward: a 64x64 picture, x4. step: forward, backward and Adam of vram8, batch 4 of 48x48, x2. batch, on CUDA only: the
largest that fits. --compiled adds torch.compile, which takes minutes on two CPU cores. Memory is counted by tensors on
a CPU, by the allocator on CUDA. --profile shows where our time goes.
"""

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable

import pandas as pd
import torch
from spandrel import ModelLoader
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srlib.networks.hat import CONFIGS, HAT
from srlib.networks.initial import start_far_reaching
from srlib.tiling.memory import peak_of

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}  # fp16 on CUDA alone: main


def pair(name: str, scale: int, device: torch.device) -> tuple[HAT, nn.Module]:
    """(ours, the peer) with the same weights, in which every part counts; nothing is dropped at random."""
    torch.manual_seed(0)
    ours = start_far_reaching(HAT(**{**CONFIGS[name], "drop_path_rate": 0.0}, upscale=scale))
    peer = ModelLoader().load_from_state_dict(ours.state_dict()).model
    for module in peer.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return ours.to(device), peer.to(device)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each run in each round, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            elapsed = seconds(run, device)
            if number:
                times[name].append(elapsed)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def under(precision: str, device: torch.device) -> torch.autocast:
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def variants(ours: nn.Module, peer: nn.Module, compiled: bool) -> dict[str, nn.Module]:
    models = {"ours": ours, "spandrel": peer}
    return models | {f"{name} compiled": torch.compile(model) for name, model in models.items()} if compiled else models


def forward(name: str, rounds: int, device: torch.device, compiled: bool, profile: bool, side: int) -> None:
    print(f"\nforward: {name}, one {side}x{side} picture, x4\n")
    ours, peer = pair(name, 4, device)
    ours.eval(), peer.eval()
    x = torch.rand(1, 3, side, side, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = ours(x)
    with torch.no_grad():
        difference, rms = (y - peer(x)).abs().max(), y.square().mean().sqrt()
    print(
        f"largest difference {difference:.1e} of values of rms {rms:.2f}; {counter.get_total_flops() / 1e9:.0f} GFLOP\n"
    )

    def under_inference(model: nn.Module, precision: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.inference_mode(), under(precision, device):
                return model(x)

        return run

    models = variants(ours, peer, compiled)
    runs = {f"{kind} {p}": under_inference(model, p) for p in PRECISIONS for kind, model in models.items()}
    report(runs, rounds, device, counter.get_total_flops())
    if profile:
        show_profile(runs["ours fp32"], device)


def report(runs: dict[str, Callable], rounds: int, device: torch.device, work: int | None = None) -> None:
    """The table: runs are named "ours fp32", "spandrel fp32", ...; work: what one run of ours computes, in FLOP."""
    times = in_turn(runs, rounds, device)
    peaks = {kind: peak_of(run, device)[1] / 2**20 for kind, run in runs.items() if "compiled" not in kind}
    rows = []
    for kind, values in times.items():
        precision = kind.split()[-1]
        row = {
            "run": kind,
            "seconds": statistics.median(values),
            "speed / spandrel": ratio(times, f"spandrel {precision}", kind),
        }
        if kind.replace(precision, "fp32") in times:
            row["speed / own fp32"] = ratio(times, kind.replace(precision, "fp32"), kind)
        if kind in peaks:
            row |= {"MiB": peaks[kind], "memory / spandrel": peaks[kind] / peaks[f"spandrel {precision}"]}
        if work and kind.startswith("ours"):
            row["TFLOP/s"] = work / statistics.median(values) / 1e12
        rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep=""))


def stepper(model: nn.Module, x: Tensor, y: Tensor, precision: str) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def run() -> None:
        with under(precision, x.device):
            loss = (model(x) - y).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def step(name: str, batch: int, side: int, rounds: int, device: torch.device, compiled: bool, profile: bool) -> None:
    print(f"\nstep: {name}, batch {batch} of {side}x{side}, x2, forward, backward, Adam\n")
    ours, peer = pair(name, 2, device)
    x, y = torch.rand(batch, 3, side, side, device=device), torch.rand(batch, 3, 2 * side, 2 * side, device=device)
    ours.train(), peer.train().requires_grad_(True)
    runs = {
        f"{kind} {precision}": stepper(model, x, y, precision)
        for precision in PRECISIONS
        for kind, model in variants(ours, peer, compiled).items()
    }
    saving = HAT(**{**ours.config, "checkpointing": True}).to(device).train()
    runs["ours checkpointing fp32"] = stepper(saving, x, y, "fp32")
    report(runs, rounds, device)
    if profile:
        show_profile(runs["ours fp32"], device)


def largest_batch(name: str, device: torch.device) -> None:
    print(f"\nbatch: the largest of 64x64 patches, x2, bf16, that {name} trains with\n")
    for kind, model in zip(("ours", "spandrel"), pair(name, 2, device), strict=True):
        model.train().requires_grad_(True)
        fits, fails = 0, None
        while fails is None or fails - fits > max(fits // 16, 1):
            batch = max(2 * fits, 1) if fails is None else (fits + fails) // 2
            try:
                x, y = torch.rand(batch, 3, 64, 64, device=device), torch.rand(batch, 3, 128, 128, device=device)
                stepper(model, x, y, "bf16")()
                fits = batch
            except torch.cuda.OutOfMemoryError:
                fails = batch
            model.zero_grad()
            x = y = None
            gc.collect()
            torch.cuda.empty_cache()
        print(f"{kind}: {fits} (not {fails})")


def show_profile(run: Callable[[], object], device: torch.device) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(3):
            run()
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="default: forward step")
    parser.add_argument("--models", nargs="+", default=["HAT", "HAT-S"], help="for forward: names of CONFIGS")
    parser.add_argument("--trained", default="vram8", help="for step and batch: a name of CONFIGS")
    parser.add_argument("--side", type=int, default=64, help="of the picture for forward")
    parser.add_argument("--patch", type=int, default=48, help="of the patches for step")
    parser.add_argument("--size", type=int, default=4, help="of the batch for step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--profile", action="store_true")
    o = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    device = torch.device(o.device)
    if device.type == "cuda":
        PRECISIONS["fp16"] = torch.float16
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"torch {torch.__version__}, {where}, {o.rounds} rounds")
    parts = o.parts or ["forward", "step"]
    if unknown := set(parts) - {"forward", "step", "batch"}:
        parser.error(f"unknown part {unknown.pop()}: choose from forward, step, batch")
    if "forward" in parts:
        for name in o.models:
            forward(name, o.rounds, device, o.compiled, o.profile, o.side)
    if "step" in parts:
        step(o.trained, o.size, o.patch, o.rounds, device, o.compiled, o.profile)
    if "batch" in parts:
        if device.type != "cuda":
            raise SystemExit("batch is measured on CUDA only: a CPU swaps or is killed before it says that it is full")
        largest_batch(o.trained, device)


if __name__ == "__main__":
    main()
