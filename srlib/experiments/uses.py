"""Which code a notebook uses: make runs a notebook again when that has changed, and not for a docstring or a comment.

python -m srlib.experiments.uses outputs/<run> params/<run> notes it for every notebook in
outputs/<run>/.code/<notebook>, and in <notebook>.input what the pictures and other files are like that its parameters
name: files that are rewritten only when their content changes.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from yaml import YAMLError

from srlib.experiments.inputs import state_of_inputs
from srlib.experiments.notebook import project_root
from srlib.experiments.parameters import read_parameter_file
from srlib.files import atomic, digest

PACKAGE = Path(__file__).parents[1]


def imported(source: str, module: str = "", package: bool = False) -> Iterator[str]:
    """Every module of srlib that the source imports: at its top, under TYPE_CHECKING, inside functions, or by
    import_module("srlib..."). module: whose source it is, for relative imports; package: whether it is an __init__.py.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "srlib")
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] == "srlib":
                inner = (f"{base}.{alias.name}" for alias in node.names)
                yield from (name if file_of(name).exists() else base for name in inner)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):  # import_module("srlib.x")
            texts = (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            yield from (text for text in texts if text.split(".")[0] == "srlib")


def file_of(module: str) -> Path:
    """Where a module of srlib lies, whether it is there or not."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def used_by(notebook: Path) -> list[Path]:
    """The files of srlib that the notebook imports, and those that these import, sorted."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    waiting, found = {module for source in code for module in imported(_python(source))}, set()
    while waiting:
        module = waiting.pop()
        if module not in found and file_of(module).is_file():  # a wrong import is the notebook's to report
            found.add(module)
            waiting |= _imported_by(module)
    return sorted(map(file_of, found))


def _python(cell: str) -> str:
    """A cell without IPython's magics and shell lines; nothing of one that is no Python."""
    lines = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in cell.splitlines()]
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return ""
    return "\n".join(lines)


@cache
def _imported_by(module: str) -> set[str]:
    path = file_of(module)
    found = set(imported(path.read_text(), module, path.name == "__init__.py"))
    if module == "srlib":  # whoever imports it may use any of the names that it loads from their rooms
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
                found |= {f"srlib.{home}" for home in ast.literal_eval(node.value).values()}
    return found


def code_of(notebook: Path) -> str:
    """A digest of all code that used_by finds, without docstrings, comments and layout."""
    return digest(f"{path.relative_to(PACKAGE)} {_code(path)}" for path in used_by(notebook))


@cache
def _code(path: Path) -> str:
    beside = path.with_suffix(".js")  # a widget's part for the browser
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree) + (beside.read_text() if beside.is_file() else "")


def note(out: Path, parameters: Path) -> None:
    """Write out/.code/<notebook> for every notebook of the project, and <notebook>.input for those with a file in the
    folder `parameters`; what is as noted stays untouched.
    """
    root = project_root()
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        _write_changed(out / ".code" / notebook.stem, code_of(notebook))
        file = parameters / f"{notebook.stem}.yaml"
        if file.is_file():
            _write_changed(out / ".code" / f"{notebook.stem}.input", _inputs(notebook, file, root))


def _inputs(notebook: Path, file: Path, root: Path) -> str:
    try:
        return state_of_inputs(read_parameter_file(notebook, file, {}), root)
    except (ValueError, OSError, YAMLError):  # which `srlib check-parameters` or the notebook says
        return digest(file.read_bytes())


def _write_changed(mark: Path, content: str) -> None:
    if not mark.is_file() or mark.read_text() != content:
        with atomic(mark) as temporary:
            temporary.write_text(content)


if __name__ == "__main__":
    note(Path(sys.argv[1]), Path(sys.argv[2]))
