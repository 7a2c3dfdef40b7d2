"""Parameters of a notebook, refused at the door when it has none of that name or kind.

python -m srlib.parameters params/<run> checks all of a run's files before its first notebook begins.
"""

import argparse
import ast
import difflib
import json
import sys
from pathlib import Path

import yaml


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


def complaints(folder: Path, notebooks: Path) -> list[str]:
    """One sentence for each thing that a run's parameter files would be refused for, later."""
    found = []
    for file in sorted(folder.glob("*.yaml")):
        notebook = notebooks / f"{file.stem}.ipynb"
        try:
            if not notebook.is_file():
                raise ValueError(f"there is no {notebook} that it could be for")
            run = read_parameter_file(notebook, file, {})["run"]
            if run != folder.name:
                raise ValueError(f"run is {run!r}: write `run: {folder.name}`, as the folder is called")
        except (ValueError, yaml.YAMLError) as error:
            found.append(f"{file}: {' '.join(str(error).split())}")
    return found


def main() -> None:
    """The command line: silent, or every complaint and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m srlib.parameters", description=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path, help="params/<run>")
    folder = parser.parse_args().folder
    sys.exit("\n".join(complaints(folder, folder.parent.parent / "notebooks")) or 0)


if __name__ == "__main__":
    main()
