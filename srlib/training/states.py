"""States of a training: what they hold, how a run goes on from one, and how they are kept on disk.

Each file is whole or not there, the last few are kept, damage is noticed and the one before is taken. `run` is always a
srlib.training.run.Run.
"""

import copy
import hashlib
import math
import pickle
import shutil
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from srlib.files import atomic
from srlib.networks.checkpoints import save_model

if TYPE_CHECKING:
    from srlib.training.run import Run

MADE = ("best.safetensors", "last.safetensors", "metrics.csv", "tensorboard", "state")  # in a training's folder
# what may differ between a finished training and the same one
INCIDENTAL = {
    "workers",
    "validate_every",
    "validate_start",
    "log_every",
    "save_every",
    "keep",
    "tensorboard",
    "max_bad",
    "processes",
}
_COUNTERS = ("step", "drawn", "best", "since_best", "validated", "average", "bad", "finished")  # of a run, as they are


class Stopped(RuntimeError):
    """A training that could not go on, for a reason outside it; the message says which, and what is kept."""


def _state_of(run: "Run") -> dict:
    """All that `run` needs to go on; tensors, numbers and texts only."""
    scaler = run.accelerator.scaler
    return {
        **{name: getattr(run, name) for name in _COUNTERS},
        "seconds": run.seconds,
        "start": run.start,
        "facts": run.facts,
        "rows": _columns(run.rows),
        "parts": {name: part.state_dict() for name, part in run.parts.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()},
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def begin(run: "Run", resume: bool) -> None:
    """Go on from the newest state in the run's folder, or start anew and move aside what is there; say which.

    The first process decides for all.
    """
    if run.accelerator.is_main_process:
        for half in (*run.folder.glob(".*.part.*"), *run.folder.glob("state/.*.part.*")):
            half.unlink(missing_ok=True)  # a killed run was writing it
    state = newest_state(run.folder, run.say) if resume else None
    steps = [-1 if state is None else state["step"]]
    if run.accelerator.num_processes > 1 and len(set(steps := gather_object(steps))) > 1:
        raise ValueError(
            f"the processes found different states in {run.folder} (steps {steps}, -1 for none): "
            "all machines must see the same folder"
        )
    if state is not None:
        changes = _changes(run, state)
        (why,) = broadcast_object_list([_why_anew(run, state, changes)])
        if not why:
            for name, change in changes.items():
                run.say(f"changed since step {state['step']}: {name} {change}")
            _restore(run, state)
            if run.finished:
                run.say(f"{run.folder} is finished: nothing to train")
            else:
                run.say(f"{run.folder} resumed at step {run.step}")
            return
        run.say(f"{run.folder} {why}: starting anew")
    run.accelerator.wait_for_everyone()  # all have read it
    if run.accelerator.is_main_process and (before := _set_aside(run.folder)):
        run.say(f"what an earlier training left in {run.folder} is now in {before}")


def _why_anew(run: "Run", state: dict, changes: dict[str, str]) -> str:
    """Why `state` is not gone on with; empty if it is."""
    if state["start"] != run.start:
        return "is of another model or other starting weights"
    if not state["finished"]:
        return ""
    weighty = changes.keys() - INCIDENTAL - {"iterations", "patience"}  # less of these is no other training
    if _wants_more(run, state) or not weighty:
        return ""
    return f"was finished with other {', '.join(sorted(weighty))}"


def _wants_more(run: "Run", state: dict) -> bool:
    """Whether a finished training is asked to go on: with more iterations, or more patience if that ended it."""
    new, old = run.settings, state["facts"]
    if state["step"] < old["iterations"]:  # patience ended it
        return new.iterations > old["iterations"] or new.patience > old["patience"] or new.patience == 0
    return new.iterations > state["step"]


def save(run: "Run", *, best: bool = False, last: bool = False, log: bool = False) -> bool:
    """Write models, state and (seldom, unless `log`) the log. Whether it could be done: if not, the run goes on with
    a warning, unless it is the `last`: OSError.
    """
    run.finished = last
    if not run.accelerator.is_main_process:
        return True
    averaged = run.averaged()
    if best:
        run.owed = (averaged, {"step": run.step, "psnr_y": run.best})
    try:
        settings = run.settings.plain()
        if run.owed:  # before the state that says so
            save_model(run.folder / "best.safetensors", run.owed[0], **run.owed[1], settings=settings)
            run.owed = None
        save_model(run.folder / "last.safetensors", averaged, step=run.step, settings=settings)
        _write_state(run.folder, _state_of(run), run.settings.keep)
        run.saved = run.step
        if best or last or log or time.monotonic() > run.logged + 60:
            with atomic(run.folder / "metrics.csv") as temporary:
                pd.DataFrame(run.rows).to_csv(temporary, index=False)
            run.logged = time.monotonic()
        return True
    except (OSError, RuntimeError, SafetensorError) as error:
        if run.owed and run.owed[0] is averaged:  # which goes on changing
            run.owed = (copy.deepcopy(averaged), run.owed[1])
        before = f"the state of step {run.saved} is kept" if run.saved >= 0 else "there is none before it"
        complaint = (
            f"the state of step {run.step} could not be written to {run.folder}{_free(run.folder)}: "
            f"{_first_line(error)}; {before}. If the disk is full, make room"
        )
        if last:
            run.failure = OSError(f"{complaint} and run again: it goes on from there")
            raise run.failure from error
        run.say(f"WARNING: {complaint}: it is tried again later")
        return False


def rescue(run: "Run", error: BaseException) -> BaseException | None:
    """Keep what was made before `error`; the error to raise in its place, if it can be said better."""
    run.stop.patient = True
    traceback.clear_frames(error.__traceback__)  # what they hold of a step's memory
    # a step that was cut short is taken again, whole
    if run.step != max(run.saved, 0) and not run.committing and error is not run.failure:
        run.undo()
        if not save(run, log=True):
            save(run, log=True)  # a dying loader process is heard of at any moment, once
    kept = f"the state of step {run.saved} is kept: run again to go on" if run.saved >= 0 else "nothing was kept"
    if not run.accelerator.is_main_process:
        kept = "the first process says what is kept"
    better = _in_words(run, error, kept)
    if run.accelerator.num_processes > 1:  # now: torchrun may end this process before its traceback is printed
        with suppress(OSError):  # whoever read it may be gone
            print(f"process {run.accelerator.process_index}: {better or f'{_first_line(error)}; {kept}'}", flush=True)
    if better is None:
        error.add_note(kept)
    return better


def _in_words(run: "Run", error: BaseException, kept: str) -> BaseException | None:
    """The error with its remedy, where one is known."""
    first = _first_line(error)
    if isinstance(error, KeyboardInterrupt) or run.stop.requested:
        return KeyboardInterrupt(f"stopped at step {run.step} by {run.stop.requested or first}; {kept}")
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in first.lower():
        batch, patch = run.settings.batch_of(run.step)
        patches = f" and patches of {patch} LR pixels" if patch else ""
        return Stopped(
            f"out of memory at step {run.step} with batch {batch}{patches}: lower the batch (and raise accumulate) or "
            f"the patch, set precision to bf16, or, where HAT is trained, checkpointing to True; {kept}"
        )
    if "DataLoader worker (pid" in first:
        return Stopped(f"a loader process ended ({first}): if memory was short, lower workers; {kept}")
    if run.accelerator.num_processes > 1 and isinstance(error, RuntimeError | OSError):
        return Stopped(f"stopped at step {run.step}: {first}. If another process ended, see why above; {kept}")
    return None


def load_best(run: "Run", model: nn.Module) -> None:
    """Into `model`, on all processes."""
    run.accelerator.wait_for_everyone()
    best = run.folder / "best.safetensors"
    if run.score is not None and run.best > -math.inf and best.is_file():
        model.load_state_dict(load_file(best))
    else:
        model.load_state_dict(run.averaged().state_dict())
    model.eval()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _free(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free there)"
    except OSError:
        return ""


def _changes(run: "Run", state: dict) -> dict[str, str]:
    """What is not as it was, as far as both versions of the program know of it: {name: "old -> new"}."""
    old, now = state["facts"], run.facts
    changes = {n: f"{old[n]} -> {now[n]}" for n in now if n in old and now[n] != old[n]}
    if "data" in changes:
        (before, _), (after, _) = old["data"], now["data"]
        changes["data"] = f"{before} items -> {after} items" if before != after else "has other content"
    for name in {"the loss's networks", "trained parameters"} & changes.keys():
        changes[name] = "are others"
    for name in run.parts.keys() | state["parts"].keys():
        if name not in run.parts or name not in state["parts"]:
            changes[name] = "is new" if name in run.parts else "is left out"
        elif _shapes(run.parts[name].state_dict()) != _shapes(state["parts"][name]):
            changes[name] = "has other parameters: it starts anew"
    return changes


def _restore(run: "Run", state: dict) -> None:
    same_optimizer = all(run.facts[n] == state["facts"].get(n) for n in ("optimizer", "trained parameters"))
    for name, part in run.parts.items():
        before = state["parts"].get(name)
        if before is None or _shapes(part.state_dict()) != _shapes(before):
            continue
        part.load_state_dict(before)
        if name in run.optimizers and (name != "model" or same_optimizer):
            optimizer = run.optimizers[name]
            rates = [{k: group[k] for k in ("lr", "weight_decay")} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group |= rate  # the settings', not the state's
    if run.accelerator.scaler is not None and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    for name in _COUNTERS:
        setattr(run, name, state[name])
    run.rows = _rows(state["rows"])
    run.seconds_before, run.saved = state["seconds"], state["step"]
    if run.finished and _wants_more(run, state):
        run.finished, run.since_best = False, 0


def facts_of(run: "Run") -> dict:
    """What a training's result depends on besides its starting weights; texts, numbers and lists."""
    networks = [n for n in getattr(run.loss, "networks", ()) if n is not None and n is not run.bare_discriminator]
    config = dict(getattr(run.bare, "config", {}))
    inner = {f"hat.{k}": v for k, v in config.pop("hat", {}).items() if k != "checkpointing"}
    trained = [name for name, p in run.bare.named_parameters() if p.requires_grad]
    return {
        **run.settings.plain(),
        "processes": run.accelerator.num_processes,
        "data": [len(run.data), getattr(run.data, "key", "")],
        "sharpen": getattr(run.sharpen, "__name__", str(run.sharpen)),
        "trained parameters": hashlib.sha256(str(trained).encode()).hexdigest(),
        "the loss's networks": [fingerprint(network) for network in networks],
        **{f"loss's {name}": value for name, value in getattr(run.loss, "config", {}).items()},
        **{f"model's {name}": str(value) for name, value in (config | inner).items()},
    }


def _columns(rows: list[dict]) -> dict[str, torch.Tensor]:
    """A log as columns, NaN where a row has none: small, and read in no time."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: torch.tensor([row.get(n, math.nan) for row in rows], dtype=torch.float64) for n in names}


def _rows(columns: dict[str, torch.Tensor]) -> list[dict]:
    rows = [
        {n: v for n, v in zip(columns, values, strict=True) if not math.isnan(v)}
        for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
    return [row | {"step": int(row["step"])} for row in rows]


def _shapes(state: dict) -> dict:
    return {name: tuple(value.shape) for name, value in state.items()}


def fingerprint(model: nn.Module) -> str:
    """Names a model by its weights, so that only a run that started from the same ones is gone on with."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_state(folder: Path, state: dict, keep: int) -> Path:
    """Write `state` (tensors, numbers, texts; its "step" names the file); of all, the last `keep` stay.

    Those of later steps go: a run that went on from an earlier state found them damaged.
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
    """The newest state that is not damaged, on the CPU; None when there is none. `say` hears of the damaged ones.

    Raises OSError when the disk does not answer, ValueError when there are states and all are damaged.
    """
    found = states(folder)
    for path in reversed(found):
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
                if broken := archive.testzip():
                    raise ValueError(f"wrong checksum in {broken}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            if "allocate memory" in str(error):
                raise
            say(f"{path} is damaged ({_first_line(error)}): going on from the one before, if there is one")
    if found:
        raise ValueError(f"all states in {found[0].parent} are damaged: set resume to False to start anew")
    return None


def states(folder: Path) -> list[Path]:
    """The states in a training's folder, oldest first."""
    return sorted(folder.glob("state/step_*.pt"))


def _set_aside(folder: Path) -> Path | None:
    """Move what an earlier training left in `folder` to before/, or before_2/ and so on; nothing is ever deleted.

    None: there was nothing.
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
