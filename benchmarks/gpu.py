"""What this project does on a GPU, in at most ten minutes: make gpu; it writes outputs/gpu/report.md

The tests that compare a device with the CPU; HAT beside spandrel's; exact tiling beside the whole picture and tiles;
the memory that the presets need; a training that is stopped and resumed. --small runs all of it on a CPU, tiny.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
import yaml
from skimage import data
from torch import Tensor
from torch.utils.data import Dataset

from srlib.data.resize import downscale
from srlib.files import atomic
from srlib.losses.total import TotalLoss
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import CONFIGS, HAT
from srlib.networks.initial import start_as_interpolation, start_far_reaching
from srlib.tiling.memory import peak_of
from srlib.tiling.seams import consistency
from srlib.tiling.tiled import Execution
from srlib.training.settings import Settings
from srlib.training.train import train

ROOT = Path(__file__).parents[1]


def child(*arguments: str) -> str:
    """What a Python command prints, its errors included; it is given four minutes."""
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240
        )
    except subprocess.TimeoutExpired as stopped:
        return f"{(stopped.stdout or b'').decode(errors='replace')}\nstopped after four minutes"
    return done.stdout.strip()


def machine(device: torch.device, small: bool) -> str:
    rows = {"torch": torch.__version__, "Python": platform.python_version()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        rows = {"card": f"{card.name}, {card.total_memory / 2**30:.0f} GiB", "CUDA": torch.version.cuda, **rows}
    else:
        rows = {"processor": f"{torch.get_num_threads()} threads", **rows}
    return "\n".join(f"{name:10} {value}" for name, value in rows.items())


def device_tests(device: torch.device, small: bool) -> str:
    """tests/test_devices.py, which runs on CUDA where there is one: tiling, losses, trainings, scores."""
    only = "tiling and not notebook" if small else "not notebook"
    printed = child("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "tests/test_devices.py", "-k", only)
    return "\n".join(printed.splitlines()[-25:])


def hat(device: torch.device, small: bool) -> str:
    """benchmarks/hat.py: forward and step beside spandrel's, and the largest batch."""
    tiny = ("--models", "demo", "--trained", "demo", "--side", "16", "--patch", "16", "--size", "1", "--rounds", "1")
    chosen = tiny if small else ("forward", "step", "batch", "--models", "HAT", "--rounds", "5")
    return child("benchmarks/hat.py", *chosen, "--device", device.type)


def compiled(device: torch.device, small: bool) -> str:
    """The forward again, by torch.compile, which takes a minute or two for a network and precision."""
    if small:
        return "left out with --small"
    return child("benchmarks/hat.py", "forward", "--models", "vram8", "--rounds", "5", "--compiled")


def exactly(device: torch.device, small: bool) -> str:
    """HAT x4 on one photograph: the whole picture, exactly in chunks, and in tiles."""
    name, side, tile, halo = ("demo", 64, 16, 8) if small else ("HAT", 1024, 256, 32)
    model = start_far_reaching(HAT(**{**CONFIGS[name], "drop_path_rate": 0.0}, upscale=4)).eval().to(device)
    x = photograph(side).to(device)
    tiled = TiledSR(model).eval().to(device)
    lines, reference = [f"{name}, x4, {side}x{side} LR pixels\n"], None
    kinds = {"fp32": None, "bf16": torch.bfloat16}
    if device.type == "cuda":
        kinds["fp32, convolutions in TF32"] = None  # what PyTorch does by itself
    before = torch.backends.cudnn.allow_tf32
    for precision, dtype in kinds.items():
        torch.backends.cudnn.allow_tf32 = "TF32" in precision

        def under(run: Callable[[], Tensor], dtype: torch.dtype | None = dtype) -> Callable[[], Tensor]:
            def inside() -> Tensor:
                with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
                    return run()

            return inside

        ways = {
            "whole": lambda: model(x),
            "exact": lambda: tiled.tiled(x, statistics="exact", tile=tile)[0],
            "exact, features on the host": lambda: tiled.tiled(
                x, statistics="exact", tile=tile, how=Execution(features="host")
            )[0],
            f"tiles of {tile} + 2 x {halo}": lambda: tiled.tiled(x, tile=tile, halo=halo)[0],
            f"tiles of {tile}": lambda: tiled.tiled(x, tile=tile, halo=0)[0],
        }
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            model(x[..., :64, :64])  # the first run is slower
        rows, whole = [], None
        for way, run in ways.items():
            try:
                seconds, gib, y = measured(under(run), device)
                y = y.float().cpu()
            except torch.OutOfMemoryError:
                rows.append({"way": way, "seconds": float("nan"), "GiB": float("nan")})
                continue
            whole = y if way == "whole" else whole
            reference = y if reference is None and way == "whole" else reference
            row = {"way": way, "seconds": seconds, "GiB": gib}
            if whole is not None and way != "whole":
                row |= {"TC, dB": consistency(y, whole), "largest difference": (y - whole).abs().max().item()}
            if reference is not None and y is not reference:
                row["TC against whole fp32"] = consistency(y, reference)
            rows.append(row)
            print(precision, row, flush=True)
            del y
        lines.append(
            f"{precision}\n{pd.DataFrame(rows).to_string(index=False, float_format='{:.3g}'.format, na_rep='')}\n"
        )
    torch.backends.cudnn.allow_tf32 = before
    return "\n".join(lines)


def measured(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    """Seconds, GiB at the peak beyond what was there, and what it gives. The allocator costs CUDA no time."""
    start = time.perf_counter()
    y, peak = peak_of(run, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, peak / 2**30, y


def photograph(side: int) -> Tensor:
    """(1, 3, side, side) of a photograph, repeated mirrored where it is smaller."""
    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    while picture.shape[-1] < side:
        picture = torch.cat([picture, picture.flip(-1)], -1)
        picture = torch.cat([picture, picture.flip(-2)], -2)
    return picture[..., :side, :side].contiguous()


def presets(device: torch.device, small: bool) -> str:
    """A step of stages 1 and 2 as params/vram* set them, with activations recomputed and kept: time and memory."""
    rows = []
    for name in ("vram8",) if small else ("vram8", "vram12", "vram24"):
        for stage, notebook in {1: "02_stage1", 2: "03_tiling"}.items():
            p = yaml.safe_load((ROOT / "params" / name / f"{notebook}.yaml").read_text())
            batch, side = (1, 32) if small else (p["batch"], p["lr_patch"])
            tiles = {"use_tiling": True, "tile_size": p["tile_size"], "tile_pad": p["tile_pad"]} if stage == 2 else {}
            for again in (True, False):
                network = {**CONFIGS["demo" if small else name], "checkpointing": again}
                row = {"preset": name, "stage": stage, "batch": batch, "patch": side, "checkpointing": again}
                try:
                    rows.append(row | step_of(TiledSR(HAT(**network, upscale=2), **tiles), batch, side, device))
                except torch.OutOfMemoryError:
                    rows.append(row)
    return pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep="")


def step_of(model: TiledSR, batch: int, side: int, device: torch.device) -> dict[str, float]:
    """Seconds and memory of one training step in bf16, the second."""
    model = model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    x = torch.rand(batch, 3, side, side, device=device)
    y = torch.rand(batch, 3, 2 * side, 2 * side, device=device)

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = (model(x) - y).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step()
    seconds, gib, _ = measured(step, device)
    found = {"seconds a step": seconds, "GiB": gib}
    if device.type == "cuda":
        found["GiB reserved"] = torch.cuda.max_memory_reserved(device) / 2**30
    return found


class Patches(Dataset):
    """Patches of one photograph, indexed by the keys that a training draws."""

    key = "astronaut"

    def __init__(self, side: int):
        self.side, self.hr = 2 * side, photograph(512)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, key) -> dict:
        number, draw = (*key, 0)[:2] if isinstance(key, tuple) else (key, 0)
        place = torch.Generator().manual_seed(number * 1000 + draw % 1000)
        row, column = (int(torch.randint(512 - self.side, (), generator=place)) for _ in range(2))
        hr = self.hr[..., row : row + self.side, column : column + self.side]
        return {"lr": downscale(hr, 2, "bicubic")[0], "hr": hr[0], "name": str(number)}


def training(device: torch.device, small: bool) -> str:
    """A training that is stopped half way and resumed, beside one that is not."""
    steps, side = (6, 16) if small else (200, 48)
    lines, weights = [], {}
    for precision in ("no", "bf16", "fp16") if device.type == "cuda" else ("no",):
        known = {"batch": 8, "learning_rate": 5e-4, "validate_every": steps, "log_every": 1, "precision": precision}
        for kind in ("unbroken", "unbroken again", "stopped and resumed"):
            with tempfile.TemporaryDirectory() as folder:

                def run(stop: int = 0, folder: str = folder, known: dict = known) -> tuple[TiledSR, pd.DataFrame]:
                    torch.manual_seed(0)
                    model = TiledSR(start_as_interpolation(HAT(**CONFIGS["demo"], upscale=2)))
                    model.residual_block.requires_grad_(False)
                    model.out_conv.requires_grad_(False)

                    def callback(row: dict) -> None:
                        if row["step"] == stop:
                            raise KeyboardInterrupt

                    settings = Settings(iterations=steps, **known)
                    log = train(model, TotalLoss(), Patches(side), settings, folder=folder, callback=callback)
                    return model, log

                start = time.perf_counter()
                if kind == "stopped and resumed":
                    with suppress(KeyboardInterrupt):
                        run(stop=steps // 2)
                model, log = run()
                seconds = time.perf_counter() - start
                weights[kind] = torch.cat([p.detach().float().cpu().flatten() for p in model.parameters()])
                loss = log["loss"].dropna()
                apart = (weights[kind] - weights["unbroken"]).abs().max().item()
                lines.append(
                    {"precision": precision, "training": kind, "steps/s": steps / seconds, "first loss": loss.iloc[0]}
                    | {"last loss": loss.iloc[-1], "weights apart by at most": apart}
                )
    return pd.DataFrame(lines).to_string(index=False, float_format="{:.4g}".format)


PARTS = {
    "Machine": machine,
    "Exact, whole and tiled": exactly,
    "Memory of the presets": presets,
    "A training, stopped and resumed": training,
    "Tests that compare the device with a CPU": device_tests,
    "HAT beside spandrel's": hat,
    "The same, compiled": compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny, on a CPU as well")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/gpu/report.md")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART")
    o = parser.parse_args()
    if not (torch.cuda.is_available() or o.small):
        raise SystemExit("torch sees no CUDA device here: --small runs everything tiny on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sections = ["# What this project does on a GPU\n\nWritten by `make gpu` (benchmarks/gpu.py).\n"]
    o.out.parent.mkdir(parents=True, exist_ok=True)
    for title in o.only:
        start = time.perf_counter()
        try:
            text = PARTS[title](device, o.small)
        except Exception as error:  # the others are still told
            text = f"failed: {type(error).__name__}: {error}"
        what = (PARTS[title].__doc__ or "").split("\n")[0]
        sections.append(f"## {title}\n\n{what}\n\n```\n{text}\n```\n\n{time.perf_counter() - start:.0f} s\n")
        print(sections[-1], flush=True)
        with atomic(o.out) as temporary:  # what is known so far
            temporary.write_text("\n".join(sections))
    print(f"written to {o.out}")


if __name__ == "__main__":
    main()
