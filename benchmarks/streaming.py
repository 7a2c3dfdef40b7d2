"""A picture larger than one would like to hold: python benchmarks/streaming.py, some minutes on two cores.

6000x4000 LR through a tiny HAT, in tiles and exactly, into memory maps of 12000x8000 uint8. Prints the peak of the
process's resident set, everything in it: the interpreter, PyTorch, the LR picture, what of the maps is resident.
Also checks a square of each against the network run on that square and its surroundings.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from srlib.networks.hat import HAT
from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import Execution, tiled_apply

HALO = 64


def picture(height: int, width: int) -> torch.Tensor:
    """(1, 3, height, width): waves and noise, made row by row."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(1, 3, height, width)
    columns = torch.arange(width)
    for row in range(height):
        noise = torch.rand(3, width, generator=generator)
        x[0, :, row] = 0.5 + 0.3 * torch.sin(columns * 0.05 + row * 0.03) + 0.1 * noise
    return x


@torch.no_grad()
def run(mode: str, height: int, width: int, folder: Path) -> None:
    """One run in this process."""
    torch.manual_seed(0)
    model = HAT(embed_dim=8, depths=(1,), num_heads=(2,), window_size=8, squeeze_factor=4, num_feat=16).eval()
    x = picture(height, width)
    out = np.memmap(folder / "picture", np.uint8, "w+", shape=(1, 3, 2 * height, 2 * width))
    plan = plan_tiles(height, width, tile=256, halo=16, window=8)
    options = {"statistics": "exact", "how": Execution(features=str(folder))} if mode == "exact" else {}
    start = time.perf_counter()
    _, report = tiled_apply(model, x, plan, scale=2, batch=1, out=out, **options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    y, c = (n // 3 // 8 * 8 for n in (height, width))  # a square away from the border and across tiles
    side = min(256, height // 3)
    around = x[..., y - HALO : y + side + HALO, c - HALO : c + side + HALO]
    expected = model(around)[..., 2 * HALO : -2 * HALO, 2 * HALO : -2 * HALO].clamp(0, 1) * 255
    found = out[..., 2 * y : 2 * (y + side), 2 * c : 2 * (c + side)].astype(np.float32)
    wrong = (torch.from_numpy(found) - expected).abs().max()
    print(f"{mode}: peak RSS {peak:.0f} MiB, {seconds:.0f} s, {height * width / seconds / 1e6:.2f} LR megapixels/s")
    print(f"   {report}".replace(str(folder), "memory-mapped"))
    print(f"   largest difference from the network on a square and its surroundings: {wrong:.2f} levels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", choices=["tiled", "exact", []], help="default both")
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--folder", type=Path, help="run here, in this process")
    arguments = parser.parse_args()
    size = ["--height", str(arguments.height), "--width", str(arguments.width)]
    for mode in arguments.modes or ["tiled", "exact"]:
        if arguments.folder:
            run(mode, arguments.height, arguments.width, arguments.folder)
            continue
        with tempfile.TemporaryDirectory(dir=".") as folder:  # on the disk: /tmp may be memory
            subprocess.run([sys.executable, __file__, mode, *size, "--folder", folder], check=True)


if __name__ == "__main__":
    main()
