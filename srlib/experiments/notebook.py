"""For the first and the last cells of a notebook: find the project and the inputs, write the results."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srlib.experiments.there import unknown_run, what_there_is
from srlib.files import atomic

if TYPE_CHECKING:  # make asks this file for the project's folder, pandas takes long to import
    import pandas as pd


def project_root() -> Path:
    """The repository: the nearest folder above the current one that holds notebooks/ and params/."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    raise FileNotFoundError(f"no notebooks/ and params/ in or above {here}: start from inside the repository")


def need(path: Path | str, maker: str) -> Path:
    """`path` if it is there, else FileNotFoundError saying which notebook makes it, or which runs there are."""
    path = Path(path)
    if path.exists():
        return path
    if unknown := unknown_run(path):
        raise FileNotFoundError(f"{unknown} (a new run begins with notebooks/01_data.ipynb)")
    raise FileNotFoundError(
        f"{path} is missing: run notebooks/{maker}.ipynb first, with the same `run`; {what_there_is(path)}"
    )


def below(root: Path, path: Path | str) -> Path:
    """A path that a parameter names: relative ones lie below `root`, ~ is the home folder."""
    return root / Path(path).expanduser()


def existing_file(path: Path | str, root: Path) -> Path:
    """`below` of a file; FileNotFoundError saying what there is when it does not exist."""
    file = below(root, path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: give a file, {what_there_is(file / 'x')}")
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; {unknown_run(file) or what_there_is(file)}")
    return file


def named_paths(entries: Sequence[str], root: Path) -> dict[str, Path]:
    """["name=path", "path"] -> {name: path}, relative ones below `root`; a path without a name is its own.

    An entry that is an existing file is that file, whatever it is called; of the others the name ends at the first "=".
    Raises FileNotFoundError or ValueError naming the entry.
    """
    paths: dict[str, Path] = {}
    for entry in entries:
        there = below(root, entry).is_file()
        name, equals, path = ("", "", "") if there else entry.partition("=")
        path = path if equals else entry
        name = name if equals and name else path
        if name in paths:
            raise ValueError(f"two of {list(entries)} are called {name!r}: write name=path")
        try:
            paths[name] = existing_file(path, root)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"checkpoint {entry!r}: {error}") from None
    return paths


def write_json(path: Path | str, content: dict) -> Path:
    """Write metrics.json or the like, atomically; NaN and infinity, which JSON does not have, as null."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
    return Path(path)


def write_csv(path: Path | str, table: "pd.DataFrame", index: bool = True) -> Path:
    """Write a table, atomically; what is not finite is an empty cell, as TC where max_difference is 0."""
    with atomic(path) as temporary:
        table.replace([math.inf, -math.inf], math.nan).to_csv(temporary, index=index)
    return Path(path)


def finite(value: Any) -> Any:
    """A JSON value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
