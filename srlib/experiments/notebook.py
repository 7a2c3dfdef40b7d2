"""For the first and the last cells of a notebook: find the project and the inputs, write the results."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srlib.files import atomic


def project_root() -> Path:
    """The repository: the nearest folder above the current one that holds notebooks/ and params/."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    raise FileNotFoundError(f"no notebooks/ and params/ in or above {here}: start from inside the repository")


def need(path: Path | str, maker: str) -> Path:
    """`path` if it is there, else FileNotFoundError saying which notebook makes it."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run notebooks/{maker}.ipynb first, with the same `run`")
    return path


def named_paths(entries: Sequence[str], root: Path) -> dict[str, Path]:
    """["name=path", "path"] -> {name: path}, relative ones below `root`; a path without a name is its own.

    Raises FileNotFoundError or ValueError naming the entry.
    """
    paths: dict[str, Path] = {}
    for entry in entries:
        name, _, path = entry.rpartition("=")
        name = name or path
        if name in paths:
            raise ValueError(f"two of {list(entries)} are called {name!r}: write name=path")
        paths[name] = root / Path(path).expanduser()
        if not paths[name].is_file():
            raise FileNotFoundError(f"{paths[name]} (of {entry!r}) does not exist")
    return paths


def write_json(path: Path | str, content: dict) -> Path:
    """Write metrics.json or the like, atomically; NaN and infinity, which JSON does not have, as null."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")
    return Path(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
