"""What the command `srlib train` trains: all that a notebook does, from its parameter file.

accelerate launch -m srlib train params/<run>/02_stage1.yaml [-p iterations 1000 ...]
    on all devices of all machines what the notebook trains on one; then the notebook, with the same parameters, takes
    the finished training and shows it. Likewise the other notebooks that train.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from srlib.experiments import ldr_to_hdr, restoration, stages
from srlib.experiments.notebook import project_root
from srlib.experiments.parameters import read_parameter_file
from srlib.training.train import several_cpu_processes

NOTEBOOKS: dict[str, Callable[[Path, Mapping], object]] = {
    "02_stage1": lambda root, p: stages.stage1(root, p).run(),
    "03_tiling": lambda root, p: stages.tiling(root, p).run(),
    "04_artifact_ft": stages.artifact_ft,
    "07_restoration": lambda root, p: restoration.restoration(root, p).run(),
    "08_hdr": ldr_to_hdr.hdr,
}


def train_notebook(file: Path, over: Mapping) -> None:
    """Train what the notebook of this parameter file trains, with `over` in place of the file's values.

    Raises ValueError for a file of no such notebook, and what reading the parameters and the training raise.
    """
    several_cpu_processes()
    if file.stem not in NOTEBOOKS:
        raise ValueError(f"{file} is no notebook's that trains: {', '.join(NOTEBOOKS)}")
    root = project_root()
    NOTEBOOKS[file.stem](root, read_parameter_file(root / "notebooks" / f"{file.stem}.ipynb", file, dict(over)))
