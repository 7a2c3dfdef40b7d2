"""A training run: the state that changes with every step, the optimizer step, and validation."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    broadcast_object_list,
    extract_model_from_parallel,
    gather_object,
    send_to_device,
    set_seed,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from srlib.data.patches import draw_keys
from srlib.data.resize import resized_alike
from srlib.losses.terms import ragan_d
from srlib.networks.fingerprint import fingerprint
from srlib.progress import progress_bar
from srlib.training.facts import facts
from srlib.training.settings import Settings, optimizer_of
from srlib.training.signals import StopSignals, leave_to_parent
from srlib.training.states import columns_of, fitting, remeasured, rows_of

_COUNTERS = ("step", "drawn", "best", "since_best", "validated", "average", "bad", "finished")  # saved as they are


@dataclass(frozen=True)
class Task:
    """What to train, on what and how; the arguments of srlib.training.train.train."""

    model: nn.Module
    loss: nn.Module
    data: Any  # a Dataset of a known length
    settings: Settings
    folder: Path
    validate: Callable[[Any], dict[str, float]] | None
    discriminator: nn.Module | None
    sharpen: Callable[[Tensor], Tensor] | None
    best_by: str


class Run:
    """A task in training: modules, optimizers, averaged weights, counters and log; `state()` holds all of it.

    A step is applied completely or not at all: until its last lines only gradients and buffers change, and `undo`
    restores the buffers. All randomness is a function of the seed and the step, so no random state has to be saved.
    """

    def __init__(self, task: Task, accelerator: Accelerator, stop: StopSignals):
        from timm.utils import ModelEmaV3  # imported here: timm takes seconds

        model, loss, discriminator, settings = task.model, task.loss, task.discriminator, task.settings
        self.settings, self.data, self.folder, self.sharpen = settings, task.data, task.folder, task.sharpen
        self.accelerator, self.stop = accelerator, stop
        self.say, self.score, self.best_by = accelerator.print, task.validate, task.best_by
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if not self.trained:
            raise ValueError("nothing to train: every parameter of the model is frozen")
        self.start = fingerprint(getattr(model, "start", model.state_dict)())
        self.bare, self.loss = model.to(accelerator.device), loss.to(accelerator.device)
        self.bare_discriminator = None if discriminator is None else discriminator.to(accelerator.device)
        self.ema = ModelEmaV3(self.bare, decay=settings.ema, use_warmup=True)
        parts = {"model": self.bare, "ema": self.ema.module, "loss": loss, "discriminator": discriminator}
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.given = {name: _on_cpu(part) for name, part in self.parts.items() if name != "ema"}
        self.optimizers: dict[str, Any] = {"model": optimizer_of(settings, self.trained)}
        if own := list(loss.parameters()):
            self.optimizers["loss"] = torch.optim.Adam(own, lr=settings.weights_learning_rate)
        if discriminator is not None:
            rate, betas = settings.discriminator_learning_rate, (0.9, 0.99)
            self.optimizers["discriminator"] = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=betas)
        self.forwards = [(m, vars(m).get("forward")) for m in (self.bare, self.bare_discriminator) if m is not None]
        self.model = accelerator.prepare(self.bare)
        self.discriminator = None if discriminator is None else accelerator.prepare(self.bare_discriminator)
        self.ema.module.load_state_dict(self.bare.state_dict())  # the first process's, on all
        settled = {**settings.plain(), "processes": accelerator.num_processes}
        self.facts = settled | facts(self.bare, loss, self.bare_discriminator, self.data, self.sharpen)
        self.made_with = settings.plain()  # a finished training that is taken as it is: its own
        self.step, self.drawn, self.bad = 0, 0, 0  # drawn: patches, by all processes; bad: non-finite steps in a row
        self.best, self.since_best, self.validated = -math.inf, 0, -1 if settings.validate_start else 0
        self.rows: list[dict] = []
        self.average, self.complaint, self.logged = math.nan, "", 0.0
        self.unsaved_best: tuple[nn.Module, dict] | None = None  # a best model that could not be written yet
        self.failure: OSError | None = None  # of the last save
        self.stopping, self.committing, self.saved, self.finished = False, False, -1, False
        self.started, self.seconds_before = time.perf_counter(), 0.0
        self.buffers: list[tuple[Tensor, Tensor]] = []  # with what they were before the step

    @property
    def validation_due(self) -> bool:
        """Whether this step is to be validated and has not been yet."""
        due = self.step % self.settings.validate_every == 0 or self.step == self.settings.iterations
        return self.score is not None and self.validated < self.step and due

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience has run out."""
        patience = self.settings.patience
        return self.step >= self.settings.iterations or bool(patience and self.since_best >= patience)

    @property
    def seconds(self) -> float:
        """Seconds of training, including those of the runs it was resumed from."""
        return self.seconds_before + time.perf_counter() - self.started

    def bar(self) -> tqdm:
        """The progress bar; only the first process shows it."""
        return progress_bar(
            total=self.settings.iterations,
            initial=self.step,
            desc=self.folder.name,
            unit="step",
            disable=not self.accelerator.is_main_process,
        )

    def loader(self) -> Iterator[dict]:
        """An iterator over this process's share of the remaining batches."""
        self._prepare_data()
        ranks = {"rank": self.accelerator.process_index, "ranks": self.accelerator.num_processes}
        plan = self.settings.plan(self.step)
        return iter(
            DataLoader(
                self.data,
                batch_sampler=draw_keys(len(self.data), plan, seed=self.settings.seed, place=self.drawn, **ranks),
                num_workers=self.settings.workers,
                pin_memory=self.accelerator.device.type == "cuda",
                worker_init_fn=leave_to_parent,
            )
        )

    def iterate(self, loader: Iterator[dict]) -> dict[str, float] | None:
        """One optimizer step. Returns its row for the log; None if it was skipped as not finite: see `complaint`."""
        s = self.settings
        set_seed((s.seed * 1_000_003 + self.step) % 2**32)  # the same on all processes
        self.complaint = ""
        modules = (part for name, part in self.parts.items() if name != "ema")
        self.buffers = [(b, b.clone()) for part in modules for b in part.buffers() if b.is_floating_point()]
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.model.train()
        self.loss.train()
        self._prepare_data()
        batches = [next(loader) for _ in range(s.accumulate)]
        factor = s.input_scales[int(torch.randint(len(s.input_scales), ()))] if s.input_scales else 1.0
        details: list[tuple[list[str], dict[str, Tensor]]] = []
        sums: dict[str, Tensor] = {}
        for micro, batch in enumerate(batches):
            batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
            x, original = batch["lr"], batch["hr"]
            if factor != 1.0:
                x, original = resized_alike(x, original, factor)
            target = self.sharpen(original) if self.sharpen and s.sharpened(self.step) else original
            target = batch.get("target", target)
            with ExitStack() as unsynced:
                if micro < s.accumulate - 1:  # processes exchange gradients with the last one only
                    for network in filter(None, (self.model, self.discriminator)):
                        unsynced.enter_context(self.accelerator.no_sync(network))
                prediction = self.model(*x) if isinstance(x, list | tuple) else self.model(x)
                total, terms = self.loss(prediction, target, original)
                self.accelerator.backward(total / s.accumulate)
                values = {f"{kind}_{name}": v for name, term in terms.items() for kind, v in term.items()}
                values["loss"] = total.detach()
                if self.discriminator is not None:
                    values["loss_discriminator"] = self._discriminate(self.discriminator, prediction, original)
            details.append((batch["name"], values))
            sums = {name: sums.get(name, 0.0) + value.float() / s.accumulate for name, value in values.items()}
        row = {"lr": s.lr(self.step), **self._shared(sums | self._norms())}
        whole = all(map(math.isfinite, row.values()))
        if whole:
            self._commit(row["lr"])
            self.average = row["loss"] if math.isnan(self.average) else 0.98 * self.average + 0.02 * row["loss"]
        else:
            self._skip(details)
        self.buffers = []
        self.step += 1
        self.drawn += sum(len(batch["name"]) for batch in batches) * self.accelerator.num_processes
        if whole and (self.step % s.log_every == 0 or self.step == 1 or self.validation_due):
            self.rows.append({"step": self.step, **row})
        self.committing = False
        return row if whole else None

    def _prepare_data(self) -> None:
        """Tell a dataset that makes its items itself what the next steps draw, of which loaders are ahead."""
        steps = 1 + self.settings.accumulate * (1 + 2 * self.settings.workers)
        ahead = steps * self.settings.batch_of(self.step)[0] * self.accelerator.num_processes
        getattr(self.data, "prepare", lambda *_: None)(self.drawn, ahead)

    def _discriminate(self, discriminator: nn.Module, prediction: Tensor, original: Tensor) -> Tensor:
        """Compute the discriminator's gradients, real and generated pictures in one batch. Returns its loss."""
        maps = discriminator(torch.cat([original, prediction.detach()]))
        real, fake = zip(*(m.chunk(2) for m in maps), strict=True)
        loss = ragan_d(real, fake)
        self.accelerator.backward(loss / self.settings.accumulate)
        return loss.detach()

    def _norms(self) -> dict[str, Tensor]:
        """Average the loss's gradients over processes (DDP does the networks'), unscale all, clip the model's.

        Returns the gradients' norms, the model's before clipping.
        """
        for p in self.loss.parameters():
            if p.grad is not None and self.accelerator.num_processes > 1:
                p.grad = self.accelerator.reduce(p.grad, "mean")
        if self.accelerator.scaler is not None:
            for optimizer in self.optimizers.values():
                self.accelerator.scaler.unscale_(optimizer)
        norms = {"gradient_norm": nn.utils.clip_grad_norm_(self.trained, self.settings.clip or math.inf)}
        for name in [name for name in self.optimizers if name != "model"]:  # in one order on all processes
            gradients = [p.grad for p in self.parts[name].parameters() if p.grad is not None]
            norms[f"gradient_norm_{name}"] = nn.utils.get_total_norm(gradients)
        return norms

    def _shared(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means of the values over all processes; the same exchange also agrees on whether to stop."""
        stop = torch.tensor(float(bool(self.stop.requested)), device=self.accelerator.device)
        numbers = torch.stack([stop, *values.values()])
        if self.accelerator.num_processes > 1:
            numbers = self.accelerator.reduce(numbers, "mean")
        stop, *means = numbers.tolist()
        self.stopping = stop > 0
        return dict(zip(values, means, strict=True))

    def _commit(self, lr: float) -> None:
        """Apply the step: optimizers and averaged weights."""
        self.committing, self.bad = True, 0
        self.optimizers["model"].param_groups[0]["lr"] = lr
        scaler = self.accelerator.scaler
        for optimizer in self.optimizers.values():
            optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
        if self.settings.optimizer != "schedule_free":
            self.ema.update(self.bare, step=self.step)

    def _skip(self, details: list[tuple[list[str], dict[str, Tensor]]]) -> None:
        """Restore the buffers and note in `complaint` what is not finite, on which pictures."""
        self.undo()
        complaints = []
        for names, values in details:
            wrong = [k.removeprefix("raw_") for k, v in values.items() if k.startswith("raw_") and not v.isfinite()]
            wrong = wrong or [k for k in ("loss", "loss_discriminator") if k in values and not values[k].isfinite()]
            if wrong:
                complaints.append(f"{', '.join(wrong)} not finite on {', '.join(names)}")
        if self.accelerator.num_processes > 1:
            complaints = gather_object(complaints)
        gradient_only = not complaints
        if gradient_only:
            names = [name for names, _ in details for name in names]
            names = gather_object(names) if self.accelerator.num_processes > 1 else names
            complaints = [f"gradient not finite on {', '.join(names)}"]
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.update()  # to half, as it has seen the infinite gradient
        if scaler is None or not gradient_only or scaler.get_scale() < 1:  # else fp16 only searches its scale
            self.bad += 1
        self.complaint = f"step {self.step}: {'; '.join(complaints)}"

    def undo(self) -> None:
        """Restore the buffers to their values before the step."""
        with torch.no_grad():
            for buffer, before in self.buffers:
                buffer.copy_(before)

    def shown(self, row: dict[str, float]) -> dict[str, str]:
        """The values that the progress bar shows."""
        return {"loss": f"{row['loss']:.4f}", "average": f"{self.average:.4f}", "lr": f"{row['lr']:.1e}"}

    def give_up_if_often(self) -> None:
        """Raise FloatingPointError after max_bad non-finite steps in a row; a resumed run counts from 0."""
        if self.bad >= self.settings.max_bad:
            complaint, self.bad = f"{self.complaint}; {self.bad} such steps in a row, stopped", 0
            raise FloatingPointError(complaint)

    def validate(self) -> bool:
        """Score the averaged model; returns whether it is the best so far. A stop signal interrupts it at once.

        A score that is not finite is said and left out: infinity would be the best for ever.
        """
        assert self.score is not None  # else no validation is due
        averaged = self.averaged()
        if self.stop.requested:
            raise KeyboardInterrupt(self.stop.requested)
        self.stop.patient = False
        with torch.no_grad():
            scores = {name: float(value) for name, value in self.score(averaged).items()}
        (scores,) = broadcast_object_list([scores])
        self.stop.patient = True
        finite = {name: value for name, value in scores.items() if math.isfinite(value)}
        for name in scores.keys() - finite.keys():
            self.say(f"validation at step {self.step}: {name} is {scores[name]} and does not count")
        score = finite.get(self.best_by, -math.inf)
        self.since_best = 0 if score > self.best else self.since_best + 1
        self.best = max(self.best, score)
        self.validated = self.step
        if not self.rows or self.rows[-1]["step"] != self.step:
            self.rows.append({"step": self.step})
        self.rows[-1] |= {**finite, "seconds": self.seconds}
        self.accelerator.log(finite, step=self.step)
        return self.since_best == 0

    def say_if_the_start_was_best(self) -> None:
        """With validate_start: print that no validation beat the starting weights, and what to try."""
        scores = {row["step"]: row[self.best_by] for row in self.rows if self.best_by in row}
        if 0 in scores and len(scores) > 1 and max(scores.values()) == scores[0]:
            self.say("no validation was better than the start, which is kept as the best: lower learning_rate")

    def averaged(self) -> nn.Module:
        """A model with the averaged weights (EMA, or schedule-free's) in eval mode; the trained ones do not change."""
        if self.settings.optimizer == "schedule_free":  # its average is a function of weights and optimizer
            optimizer, kept = self.optimizers["model"], [p.detach().clone() for p in self.trained]
            optimizer.eval()
            self.ema.module.load_state_dict(self.bare.state_dict())
            optimizer.train()
            with torch.no_grad():
                for p, before in zip(self.trained, kept, strict=True):
                    p.copy_(before)  # optimizer.train() restores them inexactly
        return self.ema.module.eval()

    def state(self) -> dict:
        """Everything needed to resume exactly; tensors, numbers and texts only."""
        scaler = self.accelerator.scaler
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "seconds": self.seconds,
            "start": self.start,
            "facts": self.facts,
            "rows": columns_of(self.rows),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: dict) -> None:
        """Continue from `state`; parts whose parameters have changed in shape, and what is measured, stay."""
        same_optimizer = all(self.facts[n] == state["facts"].get(n) for n in ("optimizer", "trained parameters"))
        for name, part in self.parts.items():
            weights = fitting(part, state["parts"].get(name, {}))
            if weights is None:
                continue
            part.load_state_dict(weights)
            if name in self.optimizers and (name != "model" or same_optimizer):
                optimizer = self.optimizers[name]
                rates = [{k: group[k] for k in ("lr", "weight_decay")} for group in optimizer.param_groups]
                optimizer.load_state_dict(state["optimizers"][name])
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group |= rate  # the settings', not the state's
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.best = self.best if self.best < math.inf else -math.inf  # of a version that counted blank pictures
        self.rows = rows_of(state["rows"])
        self.seconds_before, self.saved = state["seconds"], state["step"]

    def judge_anew(self, state: dict) -> None:
        """Before training goes on from `state`: where what is measured has become something else, the best so far was
        scored by what was before, and is the best no longer.
        """
        if remeasured(self.bare, state["parts"]["model"]):
            self.best, self.since_best = -math.inf, 0
            self.say("what tiling makes was measured anew: the best step is looked for from here on")

    def give_back(self) -> None:
        """Restore the modules' starting weights, so that training the same objects again is the same training."""
        for name, weights in self.given.items():
            self.parts[name].load_state_dict(weights)
            self.parts[name].zero_grad()

    def close(self) -> None:
        """Remove accelerate's wrappers from the modules and close its trackers."""
        for network in filter(None, (self.model, self.discriminator)):
            extract_model_from_parallel(network, keep_fp32_wrapper=False)
        for module, forward in self.forwards:
            for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
                vars(module).pop(name, None)
            if forward is not None:
                module.forward = forward
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
