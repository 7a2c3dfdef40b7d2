"""Every public name says what it is, and somebody uses it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import srlib

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "srlib").rglob("*.py"))
Definition = ast.FunctionDef | ast.ClassDef


def public(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def imported(tree: ast.AST) -> set[tuple[str, str]]:
    """(module's last name, name) of all that a file takes from srlib: by import, or as an attribute of a module."""
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("srlib."):
            taken |= {(node.module.rpartition(".")[2], alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken.add((node.value.id, node.attr))
    return taken


@pytest.fixture(scope="module")
def used() -> set[tuple[str, str]]:
    texts = [p.read_text() for folder in ("srlib", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        texts.append("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    public_names = {(home.rpartition(".")[2], name) for name, home in srlib._HOMES.items()}
    return public_names.union(*(imported(ast.parse(text)) for text in texts))


def test_no_two_files_have_one_name():
    names = [path.stem for path in MODULES if path.stem != "__init__"]
    assert len(names) == len(set(names))


def test_files_are_short():
    assert not [path for path in MODULES if len(path.read_text().splitlines()) > 400]


def test_the_public_names_are_there_and_nothing_heavy_is_imported_for_them():
    code = "import sys, srlib\nassert 'torch' not in sys.modules, 'torch'\nfor name in dir(srlib): getattr(srlib, name)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="srlib has no 'upscaler'; its names are load, HAT"):
        srlib.upscaler  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    named = public(tree.body)
    methods = [m for node in named if isinstance(node, ast.ClassDef) for m in public(node.body)]
    repeated = [
        m for m in methods if any("overload" in ast.unparse(d) or "setter" in ast.unparse(d) for d in m.decorator_list)
    ]
    assert not [node.name for node in named + methods if node not in repeated and not ast.get_docstring(node)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_public_names_are_used(path, used):
    """By another file; what only its own file needs is a command, a class, a value, or begins with an underscore."""
    tree = ast.parse(path.read_text())
    home = path.parent.name if path.stem == "__init__" else path.stem
    names = [node.name for node in public(tree.body)]
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names += [t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    here = {"main"} | {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and not (node.id in functions and node in calls)
    }
    assert not [name for name in names if name not in here and (home, name) not in used]
