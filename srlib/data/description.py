"""data.json: what a data folder holds, written by 01_data and read by the later notebooks and commands."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from srlib.files import atomic


def write_description(
    data_dir: Path | str,
    *,
    hr_root: Path | str,
    split: Mapping[str, str],
    scales: Sequence[int],
    methods: Sequence[str],
    size: int | None = None,
    degradation: Mapping | None = None,
    online: bool = False,
    also: Mapping[str, float] | None = None,
) -> None:
    """Write data.json; atomic.

    hr_root: folder of the HR pictures; a relative path is relative to data_dir, so that both can be moved together.
    split: as of sources.split_pictures; scales, methods, size, degradation: as of pregenerate.Recipe. online: patches
    are downscaled while training, there are no packs; also: other data folders, relative to this one, that training
    draws from as well, and their weights, this one's being 1.
    """
    content = {
        "hr_root": str(hr_root),
        "scales": list(scales),
        "methods": list(methods),
        "size": size,
        "degradation": dict(degradation or {}),
        "online": online,
        "also": dict(also or {}),
        "split": dict(split),
    }
    with atomic(Path(data_dir) / "data.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_description(data_dir: Path | str) -> dict:
    """The content of data.json, with hr_root as an absolute path.

    Raises FileNotFoundError, ValueError for one of an earlier version: both name the notebook to run.
    """
    path = Path(data_dir) / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run notebooks/01_data.ipynb first, with the same `run`")
    content = json.loads(path.read_text())
    if "also" not in content:
        raise ValueError(f"{path} is of an earlier version: run notebooks/01_data.ipynb again")
    return content | {"hr_root": str((path.parent / content["hr_root"]).resolve())}
