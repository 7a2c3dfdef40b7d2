"""Weights out of files: safetensors and what torch.save writes, under whatever key and names they lie there."""

import os
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from srlib.networks.file_kinds import weights_format
from srlib.networks.wrappers import bare_names


def read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(weights, metadata) of a model file, .safetensors or by torch.save; which, is seen by its content.

    Of several sets of weights in one file that of a HAT is taken, averaged (params_ema, ...) rather than not. Names are
    those without what wrappers add (srlib.networks.wrappers). Pickles are read as weights only: no code of theirs runs.
    Raises FileNotFoundError, or ValueError that says what the file is or which of its weights to keep.
    """
    path = Path(path)
    state: Mapping[str, Tensor]
    metadata: dict[str, str] = {}
    if weights_format(path) == "safetensors":
        try:
            with open(path, "rb") as opened:
                plain = str(path) == os.fsencode(path).decode("utf-8", "replace")
                # a name that is no UTF-8 is refused by safetensors, the open file's own is not
                with safe_open(path if plain else f"/dev/fd/{opened.fileno()}", "pt") as file:
                    state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
                    metadata = file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{path} is a damaged safetensors file ({error}): download or copy it again") from error
    else:
        state = _chosen(path, _loaded(path))
    if not state:
        raise ValueError(f"{path} holds no weights")
    try:
        return bare_names(state), metadata
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def hat_prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of each HAT among these weights: "" for a HAT alone, "hat_model." in a TiledSR."""
    first = [k.removesuffix("conv_first.weight") for k in state if f".{k}".endswith(".conv_first.weight")]
    return [p for p in first if any(k.startswith(p + "layers.0.residual_group.overlap_attn.") for k in state)]


def _loaded(path: Path) -> Any:
    """What torch.save wrote, unpickled as weights only."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # of a path torch looks at the suffix
            warnings.simplefilter("ignore")  # of a rare pickle protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises its own, of many kinds
        try:
            others = sorted(set(_globals(path)) - {"__builtin__.set", "builtins.set"})
        except Exception:  # as many kinds, of a damaged file
            others = None
        if others:
            raise ValueError(
                f"{path} holds more than weights ({', '.join(others[:3])}), and to read that would run code of the "
                'file: in the program that wrote it, save torch.save(model.state_dict(), "weights.pth") and give that'
            ) from None
        raise ValueError(f"{path}, a .pth, is cut short or damaged: download or copy it again") from error


def _globals(path: Path) -> Iterator[str]:
    """Names of what is neither a tensor's nor a dictionary's in the file's pickles, without running them.

    Raises ValueError or EOFError when a pickle is cut short.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
            found = list(pickletools.genops(archive.read(name)))
    else:
        with path.open("rb") as file:  # a number, the protocol, the system, the object
            found = [op for _ in range(4) for op in pickletools.genops(file)]
    texts: list[str] = []
    for code, argument, _ in found:
        name = ""
        if code.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            name = ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
        whole = name.startswith("torch.nn.modules.")  # a network, not its weights
        if name and (whole or not name.startswith(("torch.", "collections.", "_codecs."))):
            yield name


def _chosen(path: Path, content: Any) -> Mapping[str, Tensor]:
    """The one set of weights that is meant among those of the file."""
    sets = dict(_sets(content, ""))
    if not sets:
        raise ValueError(f"{path} holds no weights: neither at its top level nor under params_ema, params, state_dict")
    choice = sets
    for fits in (lambda key: bool(hat_prefixes(sets[key])), lambda key: "ema" in key.lower()):
        choice = {key: choice[key] for key in choice if fits(key)} or choice
    if len(choice) > 1:
        raise ValueError(f"{path} holds several networks, {', '.join(choice)}: save one of them alone")
    return next(iter(choice.values()))


def _sets(content: Any, key: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(where it lies, weights) of every mapping from names to tensors, apart from optimizers' and from what stands
    beside other mappings, unless it is a HAT.
    """
    if not isinstance(content, Mapping):
        return
    deeper: list[tuple[str, dict[str, Tensor]]] = []
    for name, value in content.items():
        if not any(word in str(name).lower() for word in ("optim", "sched", "scaler")):
            deeper += _sets(value, f"{key}.{name}" if key else str(name))
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor) and isinstance(k, str)}
    if tensors and (not deeper or hat_prefixes(tensors)):
        yield key or "its top level", tensors
    yield from deeper
