"""What a notebook does at its door and at its end: parameters checked, inputs found, results written."""

import ast
import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml

from srlib.files import atomic


def read_parameters(cells: list[str], values: dict) -> dict:
    """Names and values of the notebook's parameters, after refusing what papermill lets through.

    cells: IPython's `In`, the source of every cell run so far; values: the notebook's globals(). The
    declared names and kinds are those of the cell that begins with "# parameters"; papermill's own cell
    begins with "# Parameters" and may set no other name, and no value of another kind.
    Raises ValueError naming the parameter, with the nearest declared name.
    """
    own, injected = "", ""
    for cell in cells:
        if cell.startswith("# parameters"):
            own, injected = cell, ""
        elif cell.startswith("# Parameters"):
            injected = cell
    declared, given = _assignments(own, values), _assignments(injected, values)
    if not declared:
        raise ValueError('run the cell that begins with "# parameters" first')
    return _checked(declared, given, {name: values[name] for name in declared})


def read_parameter_file(notebook: Path, file: Path, over: dict) -> dict:
    """What the notebook would get from papermill with `-f file` and with `over` for its `-p`, checked likewise.

    Raises FileNotFoundError or ValueError naming the file or the parameter.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no parameter file {file}")
    cells = json.loads(notebook.read_text())["cells"]
    declared = next(
        _assignments("".join(c["source"]), {}) for c in cells if "parameters" in c["metadata"].get("tags", [])
    )
    written = yaml.safe_load(file.read_text()) or {}
    if not isinstance(written, dict):
        raise ValueError(f"{file} must hold lines like `iterations: 1000`, not a {type(written).__name__}")
    given = {**written, **over}
    return _checked(declared, given, {**declared, **given})


def _checked(declared: dict, given: dict, values: dict) -> dict:
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(declared)}"
            raise ValueError(f"unknown parameter {name!r}: {hint}")
    for name, default in declared.items():
        _check_kind(name, values[name], default)
    return values


def _assignments(cell: str, values: dict) -> dict:
    """Top-level `name = literal` of a cell; what else is assigned is looked up in `values`, of a cell that has run."""
    found = {}
    for node in ast.parse(cell).body:
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
            try:
                found[target.id] = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                if target.id not in values:
                    raise ValueError(
                        f"parameter {target.id} is {ast.unparse(node.value)!r}: write a literal value, such as 900"
                    ) from None
                found[target.id] = values[target.id]
    return found


def _check_kind(name: str, value: object, default: object) -> None:
    fits = isinstance(value, type(default)) and (isinstance(value, bool) == isinstance(default, bool))
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        fits = True
    if default is None or fits:
        return
    hint = ""
    if isinstance(value, str) and isinstance(default, int | float):
        hint = "; YAML reads 3e-4 as text: write 3.0e-4"
    raise ValueError(f"parameter {name} must be {type(default).__name__}, like {default!r}, not {value!r}{hint}")


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


def keep_figure(figure: plt.Figure, path: Path | str) -> plt.Figure:
    """Write the figure as PNG and return it for display; closed, so that it is shown once."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return figure


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
