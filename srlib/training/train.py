"""One training loop for all stages: what differs between them is the model, the loss and the settings.

accelerate launch -m srlib train params/<run>/<notebook>.yaml trains what that notebook trains, on several devices.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import is_tensorboard_available
from torch import Tensor, nn
from torch.utils.data import Dataset

from srlib.files import locked
from srlib.training.run import Run
from srlib.training.settings import Settings
from srlib.training.signals import StopSignals
from srlib.training.states import begin, load_best, rescue, save


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
) -> pd.DataFrame:
    """Train `model` in place and return the log, one row every `log_every` iterations and validation.

    data: items {"lr": what the model is given, "hr": what it is to answer, "name": str}, indexed by draw_keys' keys;
    with progressive patches or input_scales, pictures (C, h, w) and (C, H, W). loss: (prediction, target, original)
    -> (total, terms) as TotalLoss; its parameters are trained, too. discriminator: trained alongside, for a loss with
    an adversarial term. validate: called with the averaged model; its "psnr_y" decides which is the best. sharpen:
    see Settings. callback: called after every step with its row and the "log" so far.

    Writes into `folder`: best.safetensors and last.safetensors (averaged weights with their configuration),
    metrics.csv, and state/, from which a run that was stopped, killed or broken goes on as if it had not been: on the
    CPU to the bit, on a GPU as far as its kernels repeat themselves. What has changed in settings, loss or data since
    is honoured and said; a run from other starting weights begins anew, and so does a finished one whose settings or
    data have changed, unless they ask for more iterations: what it had made is moved to before/. At the end `model`
    holds the best averaged weights (the last without validate); after an error it is again as it was given.
    Raises FloatingPointError after max_bad non-finite steps in a row, naming term and pictures; KeyboardInterrupt on
    Ctrl-C and SIGTERM; Stopped when memory runs out or another process dies; OSError when the last state cannot be
    written.
    """
    folder = Path(folder)
    if settings.tensorboard and not is_tensorboard_available():
        raise ValueError("tensorboard is True but not installed: pip install tensorboard, or set it to False")
    several_cpu_processes()
    AcceleratorState._reset_state()  # the precision of a training before this one in the same process
    accelerator = Accelerator(
        mixed_precision=settings.precision, log_with="tensorboard" if settings.tensorboard else None, project_dir=folder
    )
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked(folder, patience=15 if settings.workers else 0))
        stop = stack.enter_context(StopSignals())
        run = Run(model, loss, discriminator, validate, sharpen, data, settings, folder, accelerator, stop)
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
                    run.validate()
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
                vars(run).clear()  # a notebook keeps the traceback, and so this frame: not its memory
            if better is None:
                raise
            raise better from error
        finally:
            del loader  # and so its processes
        run.close()
        load_best(run, model)
        if stop.requested:
            raise KeyboardInterrupt(f"stopped by {stop.requested} at the end of the training, which is whole")
    return pd.DataFrame(run.rows)


def several_cpu_processes() -> None:
    """Where torchrun has started several processes and there is no GPU, accelerate must be told to use the CPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
        PartialState(cpu=True)  # whoever asks first would otherwise get a state of one process
