"""States of a training: what they hold, how a run goes on from one, and how they are kept on disk.

Each file is whole or not there, the last few are kept, damage is noticed and the one before is taken.
"""

import hashlib
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import nn

from srlib.files import atomic
from srlib.settings import INCIDENTAL

MADE = ("state", "best.safetensors", "last.safetensors", "metrics.csv")  # what a training writes into its folder
_COUNTERS = ("step", "drawn", "best", "since_best", "validated", "average", "rows", "finished")  # of a run, as they are


def state_of(run) -> dict:
    """All that `run` (srlib.train's) needs to go on; tensors, numbers and texts only."""
    scaler = run.accelerator.scaler
    return {
        **{name: getattr(run, name) for name in _COUNTERS},
        "seconds": run.seconds,
        "start": run.start,
        "facts": _facts(run),
        "parts": {name: part.state_dict() for name, part in run.parts.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()},
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def begin(run, resume: bool) -> None:
    """Go on from the newest state in the run's folder, or start anew and move aside what is there; say which."""
    state = newest_state(run.folder, run.say) if resume else None
    steps = [-1 if state is None else state["step"]]
    if run.accelerator.num_processes > 1 and len(set(steps := gather_object(steps))) > 1:
        raise ValueError(
            f"the processes found different states in {run.folder} (steps {steps}, -1 for none): "
            "all machines must see the same folder"
        )
    if state is not None:
        changed = _changes(run, state)
        incidental = all(name in INCIDENTAL for name in changed)
        if state["start"] != run.start:
            run.say(f"{run.folder} is of another model or other starting weights: starting anew")
        elif state["finished"] and not incidental and state["step"] >= run.settings.iterations:
            run.say(f"{run.folder} was finished with other {', '.join(changed)}: starting anew")
        else:
            for name, change in changed.items():
                run.say(f"changed since step {state['step']}: {name} {change}")
            _restore(run, state)
            done = "is finished: nothing to train" if run.finished else f"resumed at step {run.step}"
            run.say(f"{run.folder} {done}")
            return
    run.accelerator.wait_for_everyone()  # all have read it
    if run.accelerator.is_main_process and (before := set_aside(run.folder)):
        run.say(f"what an earlier training left in {run.folder} is now in {before}")


def _changes(run, state: dict) -> dict[str, str]:
    """What is not as it was: {name: "old -> new"}."""
    old, now = state["facts"], _facts(run)
    changes = {n: f"{old.get(n)} -> {now.get(n)}" for n in now | old if now.get(n) != old.get(n)}
    if changes.get("data"):
        (before, _), (after, _) = old["data"], now["data"]
        changes["data"] = f"{before} items -> {after} items" if before != after else "has other content"
    if changes.get("the loss's networks"):
        changes["the loss's networks"] = "have other weights"
    for name in run.parts.keys() | state["parts"].keys():
        if name not in run.parts or name not in state["parts"]:
            changes[name] = "is new" if name in run.parts else "is left out"
        elif _shapes(run.parts[name].state_dict()) != _shapes(state["parts"][name]):
            changes[name] = "has other parameters: it starts anew"
    return changes


def _restore(run, state: dict) -> None:
    for name, part in run.parts.items():
        before = state["parts"].get(name)
        if before is None or _shapes(part.state_dict()) != _shapes(before):
            continue
        part.load_state_dict(before)
        if name in run.optimizers and (name != "model" or run.settings.optimizer == state["facts"]["optimizer"]):
            optimizer = run.optimizers[name]
            rates = [{k: group[k] for k in ("lr", "weight_decay")} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group |= rate  # the settings', not the state's
    if run.accelerator.scaler is not None and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    for name in _COUNTERS:
        setattr(run, name, state[name])
    run.seconds_before, run.saved = state["seconds"], state["step"]
    run.finished = run.finished and run.ended


def _facts(run) -> dict:
    """What a training's result depends on besides its starting weights; texts, numbers and lists."""
    networks = [n for n in getattr(run.loss, "networks", ()) if n is not None and n is not run.bare_discriminator]
    config = getattr(run.bare, "config", {})
    return {
        **run.settings.plain(),
        "data": [len(run.data), getattr(run.data, "key", "")],
        "sharpen": getattr(run.sharpen, "__name__", str(run.sharpen)),
        "the loss's networks": [fingerprint(network) for network in networks],
        **{f"loss weight {name}": weight for name, weight in getattr(run.loss, "weights", {}).items()},
        **{f"model's {name}": str(value) for name, value in config.items()},
    }


def _shapes(state: dict) -> dict:
    return {name: tuple(value.shape) for name, value in state.items()}


def fingerprint(model: nn.Module) -> str:
    """Names a model by its weights, so that only a run that started from the same ones is gone on with."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_state(folder: Path, state: dict, keep: int) -> Path:
    """Write `state` (tensors, numbers, texts; its "step" names the file); of all, the last `keep` stay.

    Those of later steps go: a run that went on from an earlier state found them damaged.
    """
    path = _path(folder, state["step"])
    with atomic(path) as temporary:
        torch.save(state, temporary)
    others = [p for p in states(folder) if p.name < path.name]
    for old in [*others[: len(others) + 1 - keep], *(p for p in states(folder) if p.name > path.name)]:
        old.unlink(missing_ok=True)
    return path


def newest_state(folder: Path, say: Callable[[str], None] = print) -> dict | None:
    """The newest state that is not damaged, on the CPU; None when there is none. `say` hears of the damaged ones."""
    found = states(folder)
    for path in reversed(found):
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
                if broken := archive.testzip():
                    raise ValueError(f"wrong checksum in {broken}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            say(f"{path} is damaged ({error}): going on from the one before, if there is one")
    return None


def states(folder: Path) -> list[Path]:
    """The states in a training's folder, oldest first."""
    return sorted(folder.glob("state/step_*.pt"))


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier training left in `folder` to before/, in place of what is there. None: there was nothing."""
    left = [folder / name for name in MADE if (folder / name).exists()]
    if not states(folder):
        return None
    before = folder / "before"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir(parents=True)
    for path in left:
        shutil.move(path, before / path.name)
    return before


def _path(folder: Path, step: int) -> Path:
    return folder / "state" / f"step_{step:09d}.pt"
