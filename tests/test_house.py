"""Every public name says what it is, and somebody uses it."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "srlib").glob("*.py"))
Definition = ast.FunctionDef | ast.ClassDef


def public(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def imported(tree: ast.AST) -> set[tuple[str, str]]:
    """(module, name) of all that a file takes from srlib's modules: by import, or as an attribute of the module."""
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("srlib."):
            taken |= {(node.module.removeprefix("srlib."), alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken.add((node.value.id, node.attr))
    return taken


@pytest.fixture(scope="module")
def used() -> set[tuple[str, str]]:
    texts = [p.read_text() for folder in ("srlib", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        texts.append("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    return set().union(*(imported(ast.parse(text)) for text in texts))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    named = public(tree.body)
    methods = [m for node in named if isinstance(node, ast.ClassDef) for m in public(node.body)]
    repeated = [
        m for m in methods if any("overload" in ast.unparse(d) or "setter" in ast.unparse(d) for d in m.decorator_list)
    ]
    assert not [node.name for node in named + methods if node not in repeated and not ast.get_docstring(node)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_public_names_are_used(path, used):
    """By another file; what only its own file needs is a command, a class, a value, or begins with an underscore."""
    tree = ast.parse(path.read_text())
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
    assert not [name for name in names if name not in here and (path.stem, name) not in used]
