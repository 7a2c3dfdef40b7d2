"""Tiny runs of the notebooks for tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import papermill
import yaml
from warm import warm

from srlib.data.drawings import draw
from srlib.data.pictures import write_png

ROOT = Path(__file__).parent.parent
NAMES = ["01_data", "02_stage1", "03_tiling", "04_artifact_ft", "05_eval"]
TINY = {
    "01_data": {"input": "pictures", "patch_sizes": [64], "methods": ["bicubic"], "jobs": 1, "fraction": 0.25},
    "02_stage1": {"lr_patch": 16, "iterations": 4, "batch": 1, "validate_every": 2},
    "03_tiling": {
        "tile_size": 16,
        "compare_pad": 8,
        "lr_patch": 32,
        "iterations": 2,
        "batch": 1,
        "validate_every": 2,
    },
    "04_artifact_ft": {
        "tile_size": 16,
        "channels": 8,
        "blocks": 1,
        "grids": 1,
        "lr_patch": 32,
        "detector_iterations": 3,
        "detector_batch": 2,
        "detector_patch": 48,
        "detector_bar": 0.0,
        "iterations": 2,
        "batch": 1,
        "validate_every": 2,
        "compare_learnable": 2,
    },
    "05_eval": {"tile_size": 16, "tile_pads": [0, 8]},
    "viewer": {"pictures": ["pictures/0.png"], "crop": 48},
    "06_ablation": {
        "recipe": "tiny",
        "arms": [
            "1, sharpened",
            "1+3",
            "1, longer+3",
            "1+2+3, blind",
            "1+2+3",
            "1+2+3, any tile",
            "1+2+3, ground truth and detector",
        ],
    },
    "07_restoration": {
        "model": "Restormer, lite",
        "lr_patch": 32,
        "span": 32,
        "batch": 1,
        "iterations": 20,
        "validate_every": 10,
        "show": 1,
    },
    "08_hdr": {
        "lr_patch": 32,
        "batch": 1,
        "iterations": 20,
        "prior_iterations": 20,
        "joint_iterations": 20,
        "validate_every": 10,
        "pictures": 1,
    },
    "09_any_network": {"architectures": ["Compact", "SPAN"], "pictures": 1, "side": 40, "tile": 16, "exact_side": 50},
}


def begin(folder: Path) -> Path:
    """A project in `folder` as a clone is after set-up, but with TINY in params/demo and tiny, and four pictures."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    shutil.copytree(ROOT / "params", folder / "params")
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "srlib", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for part in set(Path(sys.prefix).iterdir()) - {Path(sys.prefix) / "ready"}:
        (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".venv/ready").touch()
    tiny_parameters(folder, "demo")
    tiny_parameters(folder, "tiny")
    for seed in range(4):
        write_png(folder / "pictures" / f"{seed}.png", draw(seed, 96, 112))
    return folder


def tiny_parameters(folder: Path, run: str, **more: dict) -> None:
    """TINY as params/<run>/. more: by a notebook's number, as `_02`, what else stands in its file."""
    (folder / "params" / run).mkdir(exist_ok=True)
    for name in NAMES:
        content = {"run": run, **TINY[name], **more.get(f"_{name[:2]}", {})}
        (folder / f"params/{run}/{name}.yaml").write_text(yaml.safe_dump(content))


def execute(folder, name, **parameters):
    warm()
    source, target = folder / "notebooks" / f"{name}.ipynb", folder / f"{name}.out.ipynb"
    return papermill.execute_notebook(source, target, parameters, cwd=folder, progress_bar=False)


def trained_by_command(folder: Path, name: str, *, processes: int = 1, **parameters) -> str:
    """`srlib train` of params/<run>/<name>.yaml, written with TINY and these parameters; what it prints."""
    file = folder / "params" / parameters["run"] / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**TINY[name], **parameters}))
    line = [warm() / "bin/srlib"]
    if processes > 1:
        line = [warm() / "bin/torchrun", "--standalone", "--nproc-per-node", str(processes), "--no-python", *line]
    done = subprocess.run([*line, "train", file], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
