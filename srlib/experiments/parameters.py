"""Checks of a notebook's parameters: unknown names and values of another kind are refused before anything runs.

`srlib check-parameters params/<run>` checks all of a run's files before its first notebook begins.
"""

import ast
import difflib
import json
from pathlib import Path

import yaml

from srlib.experiments.there import what_there_is


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
    declared = _assignments(_parameters_cell(notebook), {})
    given = {**_written(file), **over}
    return _checked(declared, given, {**declared, **given})


def _parameters_cell(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"])
    raise ValueError(f"{notebook} has no cell tagged parameters")


class _AsPapermill(yaml.SafeLoader):
    """Dates stay text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _written(file: Path) -> dict:
    if not file.is_file():
        raise FileNotFoundError(f"no parameter file {file}; {what_there_is(file)}")
    written = yaml.load(file.read_text(), _AsPapermill) or {}
    if not isinstance(written, dict):
        raise ValueError(f"{file} must hold lines like `iterations: 1000`, not a {type(written).__name__}")
    return {str(name): value for name, value in written.items()}


def _checked(declared: dict, given: dict, values: dict) -> dict:
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(declared)}"
            raise ValueError(f"unknown parameter {name!r}: {hint}")
    for name, default in declared.items():
        _check_kind(name, values[name], default)
        _check_range(name, values[name])
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


# What a list holds whose default is empty: that of the others is known by their first entry.
ENTRIES = {
    **dict.fromkeys(("also", "validation", "test", "checkpoints", "arms"), "text"),
    **dict.fromkeys(("progressive_iterations", "progressive_batches", "progressive_patches"), 1),
    **dict.fromkeys(("tile_choices", "tile_pads"), 1),
    **dict.fromkeys(("input_scales", "weights"), 1.0),
}


def _check_kind(name: str, value: object, default: object) -> None:
    if default is None:
        return
    if not _fits(value, default):
        kind = type(default).__name__
        raise ValueError(f"parameter {name} must be {kind}, like {default!r}, not {value!r}{_hint(value, default)}")
    entry = default[0] if isinstance(default, list) and default else ENTRIES.get(name)
    for one in value if isinstance(value, list) and entry is not None else ():
        if not _fits(one, entry):
            kind = type(entry).__name__
            raise ValueError(f"parameter {name} must hold {kind}, like {entry!r}, not {one!r}{_hint(one, entry)}")


# Of the others no number may be below 0.
FROM_1 = {
    *("iterations", "batch", "accumulate", "validate_every", "log_every", "save_every", "lr_patch", "patch_sizes"),
    *("crop_side", "grids", "channels", "scale", "scales", "tile_size", "tile_choices", "tile_batch", "tile", "crop"),
    *("detector_iterations", "detector_batch", "detector_patch", "detector_pictures", "detector_side"),
}
CHOICES = {  # repeated here, as PyTorch takes seconds; tests compare them
    "schedule": ("cosine", "one_cycle", "constant", "warmup_restarts"),
    "optimizer": ("adam", "adamw", "schedule_free"),
    "precision": ("no", "bf16", "fp16"),
    "start": ("interpolation", "random"),
    "teacher": ("whole", "ground_truth"),
}


def _check_range(name: str, value: object) -> None:
    if name in CHOICES and value is not None and value not in CHOICES[name]:
        raise ValueError(f"{name} {value!r} is none of {', '.join(CHOICES[name])}")
    least = -1 if name == "jobs" else 1 if name in FROM_1 else 0
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, int | float) and not one >= least:
            raise ValueError(f"{name} is {one}; it must be at least {least}")


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return True
    return isinstance(value, type(default)) and (isinstance(value, bool) == isinstance(default, bool))


def _hint(value: object, default: object) -> str:
    return "; YAML reads 3e-4 as text: write 3.0e-4" if isinstance(value, str) and isinstance(default, float) else ""


class _Anything(dict):
    """In place of the values of a cell that has not run: each is None, and fits any kind."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: object) -> None:
        return None


def complaints(folder: Path) -> list[str]:
    """One sentence for each thing that the files of params/<run> would be refused for, later. Other files there,
    unless they are named much as a notebook, are nobody's business. ValueError when it is not such a folder.
    """
    path = folder.resolve()
    root = next((p.parent for p in path.parents if p.name == "params"), None)
    if root is None or not path.is_dir():
        beside = "" if path.exists() else f"; {what_there_is(folder)}"
        remedy = f", but a file: give its folder, {folder.parent}" if path.is_file() else beside
        raise ValueError(f"{folder} is no folder of parameter files, params/<run>{remedy}")
    run, found = path.relative_to(root / "params").as_posix(), []
    notebooks = {p.stem: p for p in (root / "notebooks").glob("*.ipynb")}
    for file in sorted(path.glob("[!.]*.yaml")):
        try:
            if file.stem in notebooks:
                declared = _assignments(_parameters_cell(notebooks[file.stem]), _Anything())
                written = _written(file)
                _checked(declared, written, {**declared, **written})
                if written.get("run", declared.get("run")) != run:
                    raise ValueError(f"run is not that of the folder: write `run: {run}`")
            elif near := difflib.get_close_matches(file.stem, notebooks, 1, 0.7):
                raise ValueError(f"there is no such notebook: did you mean {near[0]}.yaml?")
        except (ValueError, OSError, SyntaxError, yaml.YAMLError) as error:
            found.append(f"{file}: {' '.join(str(error).split())}")
    return found
