"""Resume a run from its folder's newest state, save it, and save it once more when an error stops it."""

import copy
import math
import shutil
import time
import traceback
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from srlib.files import atomic
from srlib.networks.checkpoints import save_model
from srlib.training.run import Run
from srlib.training.states import first_line, fitting, newest_state, set_aside, write_state

# what may differ without making a finished training another one
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


class Stopped(RuntimeError):
    """A training was stopped by something outside it; the message says by what, and which state is kept."""


def begin(run: Run, resume: bool) -> None:
    """Resume from the newest state in the run's folder, or start anew and move aside what is there; print which.

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
        (why,) = broadcast_object_list([_why_not(run, state, changes)])
        if not why:
            run.restore(state)
            if run.finished and _wants_more(run, state):
                run.finished, run.since_best = False, 0
            if not run.finished:
                run.judge_anew(state)
            said = "not changed, the training is finished" if run.finished else f"changed since step {run.step}"
            for name, change in changes.items():
                run.say(f"{said}: {name} {change}")
            if run.finished:
                run.made_with |= {name: state["facts"][name] for name in run.made_with.keys() & state["facts"].keys()}
                run.say(f"{run.folder} is finished: nothing to train, {run.step} steps are done")
            elif run.step > (asked := run.settings.iterations):
                run.say(f"{run.folder} is at step {run.step}, beyond {asked} iterations: nothing to train")
            else:
                run.say(f"{run.folder} resumed at step {run.step}")
            run.made_with["iterations"] = max(run.made_with["iterations"], run.step)
            return
        run.say(f"{run.folder} {why}: starting anew")
    run.accelerator.wait_for_everyone()  # all have read it
    if run.accelerator.is_main_process and (before := set_aside(run.folder)):
        run.say(f"what an earlier training left in {run.folder} is now in {before}")


def _changes(run: Run, state: dict) -> dict[str, str]:
    """What has changed since `state`, {name: "old -> new"}; only facts that both versions of the program record."""
    old, now = state["facts"], run.facts
    changes = {n: f"{old[n]} -> {now[n]}" for n in now if n in old and now[n] != old[n]}
    if "data" in changes:
        (before, _), (after, _) = old["data"], now["data"]
        changes["data"] = f"{before} items -> {after} items" if before != after else "has other content"
    for name in {"the loss's networks", "trained parameters"} & changes.keys():
        changes[name] = "have changed"
    for name in run.parts.keys() | state["parts"].keys():
        if name not in run.parts or name not in state["parts"]:
            changes[name] = "is new" if name in run.parts else "is no longer used"
        elif fitting(run.parts[name], state["parts"][name]) is None:
            changes[name] = "has other parameters: it is not restored"
    return changes


def _why_not(run: Run, state: dict, changes: dict[str, str]) -> str:
    """Why the run does not resume from `state`; empty if it does."""
    if state["start"] != run.start:
        return "is of another model or other starting weights"
    if not state["finished"]:
        return ""
    weighty = (
        changes.keys() - INCIDENTAL - {"iterations", "patience"}
    )  # lowering these does not make it another training
    if _wants_more(run, state) or not weighty:
        return ""
    return f"was finished with other settings ({', '.join(sorted(weighty))})"


def _wants_more(run: Run, state: dict) -> bool:
    """Whether the settings ask a finished training to continue: more iterations, or more patience if that ended it."""
    new, old = run.settings, state["facts"]
    if state["step"] < old["iterations"]:  # patience ended it
        return new.iterations > old["iterations"] or new.patience > old["patience"] or new.patience == 0
    return new.iterations > state["step"]


def save(run: Run, *, best: bool = False, last: bool = False, log: bool = False) -> bool:
    """Write models, state and, once a minute or if `log`, the log. best: this step's model is the best so far.

    Returns whether it worked: a failure is only a warning, except at the `last` save, where it raises OSError.
    """
    run.finished = last
    if not run.accelerator.is_main_process:
        return True
    averaged = run.averaged()
    if best:
        run.unsaved_best = (averaged, {"step": run.step, run.best_by: run.best})
    try:
        settings = run.settings.plain()
        if run.unsaved_best:  # before the state that refers to it
            model, facts = run.unsaved_best
            save_model(run.folder / "best.safetensors", model, **facts, settings=settings)
            run.unsaved_best = None
        save_model(run.folder / "last.safetensors", averaged, step=run.step, settings=settings)
        write_state(run.folder, run.state(), run.settings.keep)
        run.saved = run.step
        if best or last or log or time.monotonic() > run.logged + 60:
            with atomic(run.folder / "metrics.csv") as temporary:
                pd.DataFrame(run.rows).to_csv(temporary, index=False)
            run.logged = time.monotonic()
        return True
    except (OSError, RuntimeError, SafetensorError) as error:
        if run.unsaved_best and run.unsaved_best[0] is averaged:  # whose weights the next steps change
            run.unsaved_best = (copy.deepcopy(averaged), run.unsaved_best[1])
        before = f"the state of step {run.saved} is kept" if run.saved >= 0 else "there is none before it"
        complaint = (
            f"the state of step {run.step} could not be written to {run.folder}{_free(run.folder)}: "
            f"{first_line(error)}; {before}. If the disk is full, make room"
        )
        if last:
            run.failure = OSError(f"{complaint} and run again to resume")
            raise run.failure from error
        run.say(f"WARNING: {complaint}: it will be tried again later")
        return False


def rescue(run: Run, error: BaseException) -> BaseException | None:
    """Save the run after `error`. Returns the error to raise in its place, if there is one that tells more."""
    run.stop.patient = True
    traceback.clear_frames(error.__traceback__)  # the memory of a step that they hold
    # a step that was interrupted is repeated from its beginning
    if run.step != max(run.saved, 0) and not run.committing and error is not run.failure:
        run.undo()
        if not save(run, log=True):
            save(run, log=True)  # the report of a dying loader process can interrupt anything, once
    kept = f"the state of step {run.saved} is kept: run again to resume" if run.saved >= 0 else "nothing was saved"
    if not run.accelerator.is_main_process:
        kept = "the first process says what is kept"
    better = _in_words(run, error, kept)
    if run.accelerator.num_processes > 1:  # now: torchrun may end this process before its traceback is printed
        with suppress(OSError):  # the pipe's reader may have ended
            print(f"process {run.accelerator.process_index}: {better or f'{first_line(error)}; {kept}'}", flush=True)
    if better is None:
        error.add_note(kept)
    return better


def _in_words(run: Run, error: BaseException, kept: str) -> BaseException | None:
    """The error with its remedy, where one is known."""
    first = first_line(error)
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
        return Stopped(f"a loader process died ({first}): if memory was short, lower workers; {kept}")
    if run.accelerator.num_processes > 1 and isinstance(error, RuntimeError | OSError):
        return Stopped(f"stopped at step {run.step}: {first}. If another process ended, see why above; {kept}")
    return None


def _free(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free there)"
    except OSError:
        return ""


def load_best(run: Run, model: nn.Module) -> None:
    """Load the best averaged weights into `model`, on all processes; without validation, the last ones."""
    run.accelerator.wait_for_everyone()
    best = run.folder / "best.safetensors"
    if run.score is not None and run.best > -math.inf and best.is_file():
        model.load_state_dict(load_file(best))
    else:
        model.load_state_dict(run.averaged().state_dict())
    model.eval()
