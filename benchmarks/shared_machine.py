"""The same work on an idle machine and beside two busy processes, for several ways in which OpenMP's threads wait.

    python benchmarks/shared_machine.py                      250x250 LR, five rounds
    python benchmarks/shared_machine.py --side 96 --rounds 1

PyTorch's threads (libgomp) meet at a barrier after every operation and spin there, by default 300000 times. When
another process has a core, every barrier waits for the scheduler. srlib sets GOMP_SPINCOUNT (srlib/__init__.py).
Each row is a process of its own, with a random HAT "demo"; median and maximum of the rounds, in seconds.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from statistics import median

WAYS = {
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "never spins": {"GOMP_SPINCOUNT": "0"},
    "srlib's": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = [sys.executable, "-c", "while True: pass"]


def case(side: int, rounds: int) -> None:
    """In a process of its own: exact tiling, the whole picture, tiles without context, a training step."""
    import srlib  # before torch: it sets how threads wait

    model = srlib.TiledSR(srlib.HAT(**srlib.CONFIGS["demo"], upscale=2))
    import torch

    x, patches = torch.rand(1, 3, side, side), torch.rand(4, 3, 32, 32)
    model.eval()
    exact = _times(lambda: model.tiled(x, tile=64, statistics="exact"), rounds)
    whole = _times(lambda: model.whole(x), rounds)
    tiles = _times(lambda: model.tiled(x[..., :96, :96], tile=32, halo=0, batch=16), rounds)
    model.train()
    step = _times(lambda: model(patches).mean().backward(), rounds)
    print("".join(f"{median(times):10.2f} {max(times):7.2f}" for times in (exact, whole, tiles, step)))


def _times(work: Callable[[], object], rounds: int) -> list[float]:
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


@contextmanager
def busy(count: int):
    """Within the block so many other processes want a core each."""
    others = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=250, help="LR pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return case(options.side, options.rounds)
    columns = (f"exact, {options.side}", f"whole, {options.side}", "tiles, 96", "training step")
    print(f"{'median, max, s':<26}" + "".join(f"{name:>18}" for name in columns))
    line = [sys.executable, __file__, "--case", "--side", str(options.side), "--rounds", str(options.rounds)]
    bare = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    for load in (0, 2):
        with busy(load):
            for name, setting in WAYS.items():
                done = subprocess.run(line, env=bare | setting, capture_output=True, text=True, check=True)
                print(f"{'loaded' if load else 'idle'}, {name:<18}{done.stdout.rstrip()}", flush=True)


if __name__ == "__main__":
    main()
