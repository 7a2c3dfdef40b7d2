"""What there is in place of a path that was named and is missing: the runs, files and folders beside it."""

import difflib
from pathlib import Path

_MADE = ("data", "stage1", "tiling", "artifact_ft", "eval", "ablation")  # the folders of a run, by which it is known


def what_there_is(path: Path) -> str:
    """For the end of a message: what the nearest folder above a missing path holds, and the most similar name."""
    folder, lacking = path.parent, path.name
    while not folder.is_dir() and folder != folder.parent:
        folder, lacking = folder.parent, folder.name
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    return f"{folder}/ has {_listed(names)}{_like(lacking, names)}"


def unknown_run(path: Path) -> str:
    """What to say when `path`, below outputs/<run>/, is of a run that does not exist; "" when it does."""
    outputs = next((p for p in path.parents if p.name == "outputs"), path)
    parts = path.relative_to(outputs).parts
    if len(parts) < 2:
        return ""
    made = [p for name in _MADE for place in ("*", "*/*") for p in outputs.glob(f"{place}/{name}/")]
    runs = sorted({p.parent.relative_to(outputs).as_posix() for p in made})
    end = next((i for i, part in enumerate(parts) if part in _MADE), 1)
    run = "/".join(parts[:end])
    if run in runs:
        return ""
    return f"no run {run!r} in outputs/, which has {_listed(runs)}{_like(run, runs)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"


def _like(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
