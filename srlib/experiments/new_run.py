"""A run of one's own: the parameter files of another run under a new name, with one's own pictures."""

import re
from pathlib import Path

import yaml

from srlib.experiments.there import what_there_is
from srlib.files import atomic


def new_run(root: Path, run: str, start: str, pictures: str) -> list[Path]:
    """Copy params/<start>/*.yaml to params/<run>/, with `run` and, in 01_data.yaml, `input` replaced; comments stay.

    pictures: a folder or "embedded", as 01_data's `input`. Returns the new files.
    Raises ValueError or OSError, and writes nothing, for a name that is no folder's, a run that is there, pictures that
    are not, or no such `start`.
    """
    if not re.fullmatch(r"[\w.-]+", run) or run.startswith("."):
        raise ValueError(f"RUN={run}: a run's name is made of letters, digits, '_', '-' and '.'")
    source, target = root / "params" / start, root / "params" / run
    files = sorted(source.glob("*.yaml")) if re.fullmatch(r"[\w.-]+", start) else []
    if not files:
        raise FileNotFoundError(f"FROM={start} is no run with parameters; {what_there_is(source / '01_data.yaml')}")
    if target.exists():
        raise FileExistsError(f"{target.relative_to(root)} is there already: choose another RUN, or edit its files")
    folder = Path(pictures).expanduser()
    if pictures != "embedded" and (not pictures or not (root / folder).is_dir()):
        raise NotADirectoryError(f"INPUT={pictures} is no folder of pictures, nor embedded, the bundled ones")
    for file in files:
        text = _with(file.read_text(), "run", run)
        if file.stem == "01_data":
            text = _with(text, "input", pictures)
        with atomic(target / file.name) as temporary:
            temporary.write_text(text)
    return [target / file.name for file in files]


def _with(text: str, name: str, value: str) -> str:
    """`text` whose line `name: ...` says `value`; put first where there is none."""
    line = yaml.safe_dump({name: value}, allow_unicode=True, width=10**6).strip()
    changed, count = re.subn(rf"(?m)^{name}:.*$", lambda _: line, text)
    return changed if count else f"{line}\n{text}"
