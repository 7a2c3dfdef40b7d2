"""What all tests share. Every process that computes, of the tests or begun by them, does so with one thread."""

import os

# The first two are read when torch is imported; the third by accelerate, where there is a GPU (second_device.py).
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from filelock import FileLock
from projects import NAMES, begin


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, alone or in the whole run."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global state
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A project with four pictures where `make demo` has run, one for all of pytest's processes; it stays as it is, so
    tests may come in any order.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    with FileLock(f"{folder}.lock"):
        if not (folder / "outputs/demo/eval/report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            cold = {name: value for name, value in os.environ.items() if name != "JUPYTER_PATH"}  # see warm.py
            done = subprocess.run(["make", "demo"], cwd=begin(folder), env=cold, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    """A copy of it, for the tests of one file."""
    return shutil.copytree(made, tmp_path_factory.mktemp("project") / "copy", symlinks=True)


@pytest.fixture(scope="module")
def executed(folder) -> dict[str, nbformat.NotebookNode]:
    """The notebooks that make has run there."""
    return {name: nbformat.read(folder / f"outputs/demo/{name}.ipynb", 4) for name in NAMES}
