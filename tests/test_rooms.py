"""Arrows between the rooms of srlib point down only; every import counts, wherever in a file it stands."""

import ast
import graphlib
from pathlib import Path

import pytest

from srlib.experiments.uses import imported

ROOT = Path(__file__).parent.parent
FLOORS = (  # from the bottom; rooms of one floor do not know each other
    {"files", "progress"},
    {"tiling", "adapters"},
    {"networks", "data"},
    {"losses", "evaluation", "inference"},
    {"training"},
    {"experiments"},
    {"show"},
    {"__init__", "__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ALONE = {  # what can be copied without the rest: each may import these only
    **dict.fromkeys((ROOT / "srlib/tiling").glob("*.py"), ("srlib.tiling",)),
    ROOT / "srlib/networks/hat.py": ("srlib.networks.attention", "srlib.networks.walk", "srlib.networks.arguments"),
    ROOT / "srlib/networks/restormer.py": tuple(f"srlib.networks.{n}" for n in ("walk", "arguments", "transposed")),
    ROOT / "srlib/networks/transposed.py": (),
    ROOT / "srlib/networks/arguments.py": (),
    ROOT / "srlib/networks/attention.py": (),
    ROOT / "srlib/networks/walk.py": (),
}
FILES = sorted((ROOT / "srlib").rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def arrows(path: Path) -> list[str]:
    return list(imported(path.read_text(), module_of(path), path.name == "__init__.py"))


def wrong(room: str, targets: list[str]) -> list[str]:
    """Those of the imported modules that lie on the same floor in another room, or above."""
    return [t for t in targets if room_of(t) != room and FLOOR[room_of(t)] >= FLOOR[room]]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    assert room_of(module_of(path)) in FLOOR, "a new room needs its floor here and its line in srlib/__init__.py"
    assert not wrong(room_of(module_of(path)), arrows(path))


@pytest.mark.parametrize("path", ALONE, ids=module_of)
def test_what_can_be_copied_alone_imports_nothing_else(path):
    assert not [target for target in arrows(path) if not target.startswith(ALONE[path] or ("nothing",))]


def test_no_file_imports_itself_by_way_of_others():
    graph = {module_of(path): set(arrows(path)) - {module_of(path)} for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize(
    "line",
    [
        "from srlib.show import curves",
        "from srlib.show.picture_figures import crops",
        "import srlib.show.curves",
        "import srlib",
        "from srlib import TiledSR",
        "def f():\n    from srlib.training.train import train",
        "if TYPE_CHECKING:\n    from srlib.experiments import stages",
        "from ..losses import terms",
        "from ..data.pictures import read_picture",
        "importlib.import_module('srlib.show.curves')",
    ],
)
def test_an_arrow_up_or_sideways_is_seen(line):
    assert wrong("networks", list(imported(line, "srlib.networks.hat")))


@pytest.mark.parametrize("room", sorted(set(FLOOR) - FLOORS[0] - FLOORS[-1]))
def test_a_room_says_what_lives_there_and_what_it_may_import(room):
    text = ast.get_docstring(ast.parse((ROOT / f"srlib/{room}/__init__.py").read_text())) or ""
    assert len(text.splitlines()) == 3 and "import" in text.lower()
    assert f"    {room} " in (ROOT / "srlib/__init__.py").read_text()  # on the map


def test_the_tests_mirror_the_rooms():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(FLOOR) - FLOORS[0] - FLOORS[-1]
