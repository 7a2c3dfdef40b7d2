"""The training loop of all stages: what differs between them is the model, the loss and the settings.

`accelerate launch -m srlib train params/<run>/<notebook>.yaml` trains what that notebook trains, on several devices.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from srlib.files import locked
from srlib.training.settings import Settings
from srlib.training.signals import StopSignals


def train(
    model: nn.Module,
    loss: nn.Module,
    data: Dataset,
    settings: Settings,
    *,
    folder: Path | str,
    validate: Callable[[Any], dict[str, float]] | None = None,
    discriminator: nn.Module | None = None,
    sharpen: Callable[[Tensor], Tensor] | None = None,
    callback: Callable[[dict], None] | None = None,
    resume: bool = True,
    best_by: str = "psnr_y",
) -> pd.DataFrame:
    """Train `model` in place and return the log, one row every `log_every` iterations and validation; in its attrs the
    "steps" that are done, and the "settings" they were done with: those of a finished training that is taken as it is.

    data: items {"lr": input, "hr": target, "name": str}, indexed by draw_keys' keys; with progressive patches or
    input_scales, pictures (C, h, w) and (C, H, W). A tuple as "lr" is the model's several arguments; a "target" is
    what the loss gets as such, with "hr" as the original; a method `prepare` is told before each step what will be
    drawn. loss: (prediction, target, original) -> (total, terms) as TotalLoss; its parameters are trained, too.
    validate: called with the averaged model; the best is the one with the highest value of the name `best_by`.
    discriminator: trained alongside, for a loss with an adversarial term. sharpen: see Settings. callback: called after
    every step with its row and the "log" so far. resume: False starts anew.

    Writes into `folder`: best.safetensors and last.safetensors (averaged weights with their configuration),
    metrics.csv, and state/, the checkpoints from which a stopped, killed or failed run resumes: on the CPU bit for bit
    as if it had not been interrupted, on a GPU as far as its kernels are deterministic. Changed settings, loss or data
    are applied and logged; a run from other starting weights starts anew, and so does a finished one whose settings or
    data have changed, unless they ask for more iterations: its files are moved to before/. At the end `model` holds the
    best averaged weights (the last without validate); after an error it has its starting weights again.
    Raises FloatingPointError after max_bad non-finite steps in a row, naming term and pictures; KeyboardInterrupt on
    Ctrl-C and SIGTERM; Stopped when memory runs out or another process dies; OSError when the last state cannot be
    written.
    """
    # imported here, where they are used: accelerate and timm take seconds
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import is_tensorboard_available

    from srlib.training.resume import begin, load_best, rescue, save
    from srlib.training.run import Run, Task

    task = Task(model, loss, data, settings, Path(folder), validate, discriminator, sharpen, best_by)
    if settings.tensorboard and not is_tensorboard_available():
        raise ValueError("tensorboard is True but not installed: pip install tensorboard, or set it to False")
    several_cpu_processes()
    AcceleratorState._reset_state()  # it keeps the precision of an earlier training in the same process
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        log_with="tensorboard" if settings.tensorboard else None,
        project_dir=task.folder,
    )
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked(task.folder, patience=15 if settings.workers else 0))
        stop = stack.enter_context(StopSignals())
        run = Run(task, accelerator, stop)
        loader: Iterator[dict] = iter(())
        try:
            begin(run, resume)
            if settings.tensorboard:
                accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": run.step + 1}})
            bar = stack.enter_context(run.bar())
            stop.patient = True
            if not run.ended:
                loader = run.loader()
            while True:
                if run.validation_due:
                    save(run, best=run.validate())
                if run.ended:
                    break
                row = run.iterate(loader)
                bar.update()
                if row is None:
                    run.say(f"skipped: {run.complaint}")
                    run.give_up_if_often()
                else:
                    bar.set_postfix(run.shown(row), refresh=False)
                    accelerator.log(row, step=run.step)
                if callback is not None and row is not None:
                    callback({"step": run.step, **row, "log": run.rows})
                if run.stopping:
                    raise KeyboardInterrupt(stop.requested)
                if run.step % settings.save_every == 0 and not run.validation_due:
                    save(run)
            if not run.finished:
                run.say_if_the_start_was_best()
                save(run, last=True)
        except BaseException as error:
            try:
                better = rescue(run, error)
                run.give_back()
            finally:
                run.close()
                vars(run).clear()  # a notebook keeps the traceback, and with it this frame: free its memory
            if better is None:
                raise
            raise better from error
        finally:
            del loader  # which ends its processes
        run.close()
        load_best(run, model)
        if stop.requested:
            raise KeyboardInterrupt(f"stopped by {stop.requested} after the last step: the training is finished")
    log = pd.DataFrame(run.rows)
    log.attrs = {"steps": run.step, "settings": run.made_with}
    return log


def several_cpu_processes() -> None:
    """Tell accelerate to use the CPUs where torchrun has started several processes and there is no GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available():
        from accelerate import PartialState  # imported here: see train

        os.environ["ACCELERATE_USE_CPU"] = "true"
        PartialState(cpu=True)  # the first call decides: without this it could be a state of one process
