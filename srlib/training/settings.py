"""The settings of a training, one flat dataclass that a notebook's parameters fill."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from schedulefree import AdamWScheduleFree

from srlib.training import schedules

SCHEDULES = ("cosine", "one_cycle", "warmup_restarts", "constant")
OPTIMIZERS = ("adam", "adamw", "schedule_free")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """Length, optimizer, learning rate, batches, validation and saving. Raises ValueError for impossible values.

    iterations: optimizer steps, each on batch * accumulate patches per process. schedule: of the learning rate,
    "cosine" and "one_cycle" over all iterations, "warmup_restarts" in cycles (first_cycle_steps, cycle_mult,
    warmup_steps, gamma: see srlib.training.schedules), "constant" after warmup_steps. optimizer: "adam", "adamw", or
    "schedule_free" (AdamW whose average replaces schedule and EMA; needs the schedule "constant"). weight_decay: for
    the last two. ema: decay of the averaged weights, which are validated and saved. clip: largest gradient
    norm; 0: no clipping.
    weights_learning_rate, discriminator_learning_rate: constant rates of a loss's learnable weights and of the
    discriminator. precision: "no" (fp32), "bf16" or "fp16".

    progressive_iterations, _batches, _patches: phases of the training, each with its number of iterations, batch and
    patch (LR pixels); the last one lasts to the end. Empty: `batch` throughout. input_scales: factors, one of which
    is drawn for every step to resize its patches by. sharpened_share: the share of the iterations, from the first, in
    which every second target is sharpened.

    validate_every, log_every, save_every: iterations. validate_start: validate the starting weights, too, and keep
    them as the best if nothing beats them. keep: number of saved states to keep. patience: validations without a
    better PSNR-Y before stopping, 0 for never. max_bad: non-finite steps in a row before stopping. workers: loader
    processes. tensorboard: write TensorBoard files, too.
    """

    iterations: int
    batch: int
    learning_rate: float
    min_learning_rate: float = 1e-7
    schedule: str = "cosine"
    first_cycle_steps: int = 50_000
    cycle_mult: float = 1.5
    warmup_steps: int = 2_000
    gamma: float = 0.8
    optimizer: str = "adam"
    weight_decay: float = 0.0
    discriminator_learning_rate: float = 1e-4
    weights_learning_rate: float = 1e-2
    ema: float = 0.999
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "no"
    progressive_iterations: Sequence[int] = ()
    progressive_batches: Sequence[int] = ()
    progressive_patches: Sequence[int] = ()
    input_scales: Sequence[float] = ()
    sharpened_share: float = 0.8
    validate_every: int = 100
    validate_start: bool = False
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    patience: int = 0
    max_bad: int = 10
    workers: int = 0
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():  # NumPy's numbers become Python's: a checkpoint takes no others
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, [v.item() if hasattr(v, "item") else v for v in value])
            elif hasattr(value, "item"):
                object.__setattr__(self, name, value.item())
        for name, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        for name in (
            "iterations",
            "batch",
            "accumulate",
            "validate_every",
            "log_every",
            "save_every",
            "keep",
            "max_bad",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("workers", "patience", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("weight_decay", "min_learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and finite")
        for name in ("learning_rate", "discriminator_learning_rate", "weights_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        if not (0 <= self.ema < 1 and 0 <= self.sharpened_share <= 1):
            raise ValueError(f"ema is {self.ema}, sharpened_share {self.sharpened_share}; both are shares, ema below 1")
        if self.optimizer == "schedule_free" and self.schedule != "constant":
            raise ValueError(
                f'optimizer "schedule_free" needs no schedule: set schedule to "constant", not {self.schedule}'
            )
        phases = {len(self.progressive_iterations), len(self.progressive_batches), len(self.progressive_patches)}
        if len(phases) > 1:
            raise ValueError("progressive_iterations, progressive_batches and progressive_patches differ in length")
        if any(value < 1 for p in self._phases() for value in p if value is not None):
            raise ValueError("progressive iterations, batches and patches must be at least 1")
        if sum(self.progressive_iterations[:-1]) >= self.iterations:
            raise ValueError(
                f"the progressive phases before the last take all {self.iterations} iterations: raise iterations"
            )
        if any(factor <= 0 for factor in self.input_scales):
            raise ValueError(f"input_scales {list(self.input_scales)} must be above 0")
        if self.schedule == "constant" and self.warmup_steps >= self.iterations:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} last the whole training of {self.iterations} iterations"
            )
        self.lr(0)  # schedules check their own numbers

    def lr(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        ends: dict[str, Any] = {"max_lr": self.learning_rate, "min_lr": self.min_learning_rate}
        if self.schedule == "cosine":
            return schedules.cosine(step, total=self.iterations, **ends)
        if self.schedule == "one_cycle":
            return schedules.one_cycle(step, total=self.iterations, **ends)
        if self.schedule == "constant":
            return schedules.constant(step, warmup_steps=self.warmup_steps, **ends)
        names = ("first_cycle_steps", "cycle_mult", "warmup_steps", "gamma")
        return schedules.warmup_restarts(step, **ends, **{name: getattr(self, name) for name in names})

    def batch_of(self, step: int) -> tuple[int, int | None]:
        """Patches per micro-batch, and their side in LR pixels (None: the dataset's own)."""
        *phases, (_, last_batch, last_patch) = self._phases()
        for iterations, batch, patch in phases:
            if step < iterations:
                return batch, patch
            step -= iterations
        return last_batch, last_patch

    def plan(self, start: int) -> Iterator[tuple[int, int | None]]:
        """batch_of every micro-batch from step `start` to the end, as draw_keys takes them."""
        for step in range(start, self.iterations):
            for _ in range(self.accumulate):
                yield self.batch_of(step)

    def _phases(self) -> list[tuple[int, int, int | None]]:
        phases = zip(self.progressive_iterations, self.progressive_batches, self.progressive_patches, strict=False)
        return list(phases) or [(self.iterations, self.batch, None)]

    def sharpened(self, step: int) -> bool:
        """Whether this step's targets are sharpened, if train was given a sharpener."""
        return step % 2 == 0 and step < self.sharpened_share * self.iterations

    def plain(self) -> dict:
        """All settings as a dict of numbers, texts and lists, for a checkpoint."""
        return asdict(self)


def settings_from(parameters: Mapping) -> Settings:
    """Settings from those of a notebook's parameters that have the name of a field; the others are ignored."""
    names = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in parameters.items() if name in names})


def optimizer_of(settings: Settings, trained: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer for a model's trained parameters."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(trained, lr=settings.learning_rate)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer = AdamWScheduleFree(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer.train()
    return optimizer
