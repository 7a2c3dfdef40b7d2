"""States to resume from: checkpoints on disk of everything a training needs to continue exactly.

They are plain dictionaries of tensors, numbers and texts, in files state/step_<step>.pt; each is written atomically and
the last few are kept. A damaged one is noticed by its checksum, and the one before is used.
"""

import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from srlib.files import atomic

MADE = ("best.safetensors", "last.safetensors", "metrics.csv", "tensorboard", "state")  # in a training's folder


def write_state(folder: Path, state: dict, keep: int) -> Path:
    """Write `state`, whose "step" names the file; of all states, the last `keep` stay.

    Those of later steps are deleted: they were damaged, or this run would have resumed from them.
    """
    path = folder / "state" / f"step_{state['step']:09d}.pt"
    with atomic(path, durable=True) as temporary:
        torch.save(state, temporary)
    earlier = [p for p in states(folder) if p.name < path.name]
    later = [p for p in states(folder) if p.name > path.name]
    for old in earlier[: max(0, len(earlier) + 1 - keep)] + later:
        old.unlink(missing_ok=True)
    return path


def newest_state(folder: Path, say: Callable[[str], None] = print) -> dict | None:
    """The newest undamaged state, on the CPU; None when there is none. `say` is called with a line for each damaged.

    Raises OSError when the disk does not answer, ValueError when there are states and all are damaged.
    """
    found = states(folder)
    for path in reversed(found):
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
                if broken := archive.testzip():
                    raise ValueError(f"wrong checksum in {broken}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            if "allocate memory" in str(error):
                raise
            say(f"{path} is damaged ({first_line(error)}): resuming from the one before, if there is one")
    if found:
        raise ValueError(f"all states in {found[0].parent} are damaged: set resume to False to start anew")
    return None


def states(folder: Path) -> list[Path]:
    """The states in a training's folder, oldest first."""
    return sorted(folder.glob("state/step_*.pt"))


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier training wrote to `folder` into before/, or before_2/ and so on; nothing is ever deleted.

    Returns that folder, or None if there was nothing to move.
    """
    left = [folder / name for name in MADE if (folder / name).exists()]
    if not left:
        return None
    before, number = folder / "before", 1
    while before.exists():
        number += 1
        before = folder / f"before_{number}"
    before.mkdir(parents=True)
    for path in left:
        path.rename(before / path.name)
    return before


def fitting(part: nn.Module, before: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """`before` as weights for `part`, but for what it calls `measured`, which stays; None if shapes differ."""
    own = part.state_dict()
    weights = {**before, **{name: own[name] for name in getattr(part, "measured", ()) if name in own}}
    shapes, needed = ({name: value.shape for name, value in ws.items()} for ws in (weights, own))
    return weights if shapes == needed else None


def remeasured(part: nn.Module, before: Mapping[str, Tensor]) -> bool:
    """Whether what `part` calls `measured` differs from `before`, by more than machines do."""
    own = part.state_dict()
    names = [name for name in getattr(part, "measured", ()) if name in own and name in before]
    return any(
        own[n].shape != before[n].shape or not torch.allclose(own[n].cpu(), before[n].cpu(), 1e-3, 0.0) for n in names
    )


def columns_of(rows: list[dict]) -> dict[str, Tensor]:
    """A log's rows as one float64 tensor per column, NaN where a row has no value: small and quick to load."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: torch.tensor([row.get(n, math.nan) for row in rows], dtype=torch.float64) for n in names}


def rows_of(columns: dict[str, Tensor]) -> list[dict]:
    """The inverse of columns_of."""
    rows = [
        {n: v for n, v in zip(columns, values, strict=True) if not math.isnan(v)}
        for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
    return [row | {"step": int(row["step"])} for row in rows]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
