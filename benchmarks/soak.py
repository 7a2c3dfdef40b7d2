"""A training that is killed again and again ends with the weights of one that never was.

    python benchmarks/soak.py [--kills 20] [--iterations 150] [--stage 02_stage1]

Trains the demo's network on the embedded pictures by the command line (python -m srlib train) once undisturbed, then
once more with a SIGTERM or SIGKILL after a random time, started again after each, until it has been hit `kills` times
and is finished. Compares weights, averaged weights, optimizer, learned loss weights and the log, bit for bit.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from srlib.training.states import newest_state

ROOT = Path(__file__).parent.parent
SMALL = {
    "02_stage1": {"validate_every": 50, "save_every": 10},
    "03_tiling": {"validate_every": 50, "save_every": 5},
    "04_artifact_ft": {
        "validate_every": 50,
        "save_every": 5,
        "detector_iterations": 40,
        "detector_bar": 0.0,
        "learnable": "normalised",
        "adversarial": 0.1,
    },
}
FOLDERS = {"02_stage1": "stage1", "03_tiling": "tiling", "04_artifact_ft": "artifact_ft"}


def project(folder: Path) -> Path:
    """A copy of the repository's notebooks with 01_data executed on the embedded pictures."""
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name)
    notebook = folder / "notebooks/01_data.ipynb"
    line = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR", str(notebook), "out.ipynb"]
    subprocess.run(line, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return folder


def command(folder: Path, stage: str, iterations: int) -> list[str]:
    parameters = {"run": "demo", "iterations": iterations, **SMALL[stage]}
    file = folder / f"params/{stage}.yaml"
    file.write_text(yaml.safe_dump(parameters))
    return [sys.executable, "-m", "srlib", "train", str(file)]


def disturbed(line: list[str], folder: Path, out: Path, kills: int, rng: random.Random, patience: float) -> list[str]:
    """Run `line` to its end, hit `kills` times on the way; what hit it, when (seconds) and at which kept step."""
    hits = []
    while True:
        process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if len(hits) < kills:
            wait, number = rng.uniform(1, patience), rng.choice([signal.SIGTERM, signal.SIGKILL])
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                process.communicate()
                state = newest_state(out)
                hits.append(f"{number.name} {wait:.1f} s, step {state['step'] if state else 0}")
                print(f"{len(hits):3} {hits[-1]}", flush=True)
                continue
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"it did not end well:\n{errors}")
        return hits


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--stage", choices=SMALL, default="02_stage1")
    parser.add_argument("--patience", type=float, help="seconds between hits at most; a tenth of the training and 8")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = project(Path(temporary))
        stages = list(SMALL)[: list(SMALL).index(arguments.stage) + 1]
        for stage in stages[:-1]:  # what it starts from
            subprocess.run(command(folder, stage, 20), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        stage = stages[-1]
        line, out = command(folder, stage, arguments.iterations), folder / "outputs/demo" / FOLDERS[stage]
        began = time.perf_counter()
        subprocess.run(line, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        whole = newest_state(out)
        shutil.rmtree(out)
        print(
            f"{stage}, {arguments.iterations} iterations, undisturbed {seconds:.0f} s; now hit {arguments.kills} times"
        )
        hits = disturbed(line, folder, out, arguments.kills, rng, arguments.patience or 8 + seconds / 10)
        state = newest_state(out)
        compared = ("parts", "optimizers", "drawn", "best", "rows")
        verdicts = {name: same(whole[name], state[name]) for name in compared}
        for name, verdict in verdicts.items():
            print(f"{name:12} {'bit for bit the same' if verdict else 'DIFFERENT'}")
        if len(hits) < arguments.kills:
            sys.exit(f"it was finished after {len(hits)} hits: raise --iterations")
        print(f"{len(hits)} hits survived" if all(verdicts.values()) else "NOT the same")
        sys.exit(not all(verdicts.values()))


if __name__ == "__main__":
    main()
