"""What all tests share. Every process that computes, of the tests or begun by them, does so with one thread."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when torch is imported

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import NAMES, ROOT, TINY, execute

from srlib.drawings import draw
from srlib.pictures import write_png


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, alone or in the whole run."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global state


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A project with four pictures."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    shutil.copytree(ROOT / "params", folder / "params")
    for seed in range(4):
        write_png(folder / "pictures" / f"{seed}.png", draw(seed, 128, 144))
    return folder


@pytest.fixture(scope="session")
def executed(folder):
    """All notebooks, run in outputs/demo of `folder`."""
    return {name: execute(folder, name, **TINY[name]) for name in NAMES}
