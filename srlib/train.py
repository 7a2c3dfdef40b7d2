"""One training loop for all stages: what differs between them is the model, the loss and the settings."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from srlib import schedules
from srlib.checkpoints import save_model
from srlib.datasets import KeySampler
from srlib.eraser import TiledSR
from srlib.files import atomic
from srlib.losses import TotalLoss, ragan_d
from srlib.metrics import psnr_y, ssim_y

SCHEDULES = {"cosine": schedules.cosine, "one_cycle": schedules.one_cycle}


@dataclass(frozen=True)
class Settings:
    """How long and how fast; one flat record, so that a notebook's parameters fill it.

    iterations: optimizer steps, each over batch * accumulate patches. validate_every and log_every are in
    iterations. patience: validations without a better PSNR-Y before stopping, 0 for never. clip: largest
    gradient norm. weights_learning_rate: of a loss's learnable weights, constant. sharpened_share: the part of
    the run in which every second target is sharpened. precision: "no" (fp32), "bf16" or "fp16".
    """

    iterations: int
    batch: int
    learning_rate: float
    min_learning_rate: float = 1e-7
    schedule: str = "cosine"
    discriminator_learning_rate: float = 1e-4
    weights_learning_rate: float = 1e-2
    ema: float = 0.999
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "no"
    validate_every: int = 100
    log_every: int = 10
    patience: int = 0
    sharpened_share: float = 0.8
    workers: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}")
        for name in ("iterations", "batch", "accumulate", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def lr(self, step: int) -> float:
        schedule = SCHEDULES[self.schedule]
        return schedule(step, total=self.iterations, max_lr=self.learning_rate, min_lr=self.min_learning_rate)


def train(
    model: nn.Module,
    loss: TotalLoss,
    data: Dataset,
    settings: Settings,
    *,
    folder: Path | str,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    discriminator: nn.Module | None = None,
    sharpen: Callable[[Tensor], Tensor] | None = None,
    callback: Callable[[dict], None] | None = None,
    resume: bool = True,
    max_bad: int = 10,
) -> pd.DataFrame:
    """Train `model` in place and return the log, one row every `log_every` iterations and validation.

    data: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}, indexed by KeySampler's keys.
    validate: called with the averaged (EMA) model; its "psnr_y" decides which model is the best.
    discriminator: trained alongside, for a loss with an adversarial term. sharpen: see Settings.

    Writes into `folder`: best.safetensors and last.safetensors (EMA weights with their configuration),
    metrics.csv, and state.pt, from which an interrupted run of the same settings goes on exactly (after
    Ctrl-C or an error, too). At the end `model` holds the best EMA weights (the last without validate).
    Raises FloatingPointError after `max_bad` non-finite steps in a row, naming the term and the pictures.
    """
    folder = Path(folder)
    set_seed(settings.seed)
    accelerator = Accelerator(mixed_precision=settings.precision)
    run = _Run(model, loss, discriminator, settings, folder, accelerator, fingerprint(model, settings, data))
    if resume:
        run.restore()
    batches = KeySampler(
        len(data),
        seed=settings.seed,
        batch=settings.batch,
        steps=settings.iterations * settings.accumulate,
        start=run.step * settings.accumulate,
    )
    loader = iter(
        DataLoader(
            data,
            batch_sampler=batches,
            num_workers=settings.workers,
            pin_memory=accelerator.device.type == "cuda",
        )
    )
    bar = tqdm(
        total=settings.iterations,
        initial=run.step,
        desc=folder.name,
        unit="step",
        file=sys.stdout,
        mininterval=0.5 if sys.stdout.isatty() else 30,
    )
    bad = 0
    try:
        while run.step < settings.iterations and not (settings.patience and run.since_best >= settings.patience):
            run.train_mode()
            row = run.iterate(loader, sharpen)
            bad = 0 if row is not None else bad + 1
            if bad >= max_bad:
                raise FloatingPointError(f"{run.complaint}; {bad} such steps in a row, stopped")
            if row is None:
                bar.write(f"skipped: {run.complaint}")
            run.step += 1
            if row is not None:
                bar.set_postfix(
                    loss=f"{row['loss']:.4f}",
                    average=f"{run.average:.4f}",
                    lr=f"{row['lr']:.1e}",
                    refresh=False,
                )
            bar.update()
            if validate is not None and (run.step % settings.validate_every == 0 or run.step == settings.iterations):
                scores = run.validate(validate)
                run.judge(scores)
                row = {"step": run.step, **(row or {}), **scores}
                run.rows.append(row)
                run.save(best=run.since_best == 0)
            elif row is not None and (run.step % settings.log_every == 0 or run.step == 1):
                run.rows.append({"step": run.step, **row})
            if callback is not None and row is not None:
                callback({"step": run.step, **row})
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"out of memory at batch {settings.batch}: lower batch (and raise accumulate) or the patch, "
            "build HAT with checkpointing=True, or set precision to bf16"
        ) from error
    finally:  # also after Ctrl-C and errors: nothing already made is lost
        bar.close()
        run.save()
    run.load_best(model)
    return pd.DataFrame(run.rows)


class _Run:
    """Everything that changes while training, and how to save and restore it."""

    def __init__(self, model, loss, discriminator, settings, folder, accelerator, key):
        self.settings, self.folder, self.accelerator, self.key = settings, folder, accelerator, key
        self.bare = model.to(accelerator.device)
        self.ema = ModelEmaV3(self.bare, decay=settings.ema, use_warmup=True)
        self.loss = loss.to(accelerator.device)
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise ValueError("nothing to train: every parameter of the model is frozen")
        groups = [{"params": trained}]
        if own := list(loss.parameters()):  # learnable weights, at a rate of their own
            groups.append({"params": own, "lr": settings.weights_learning_rate})
        self.optimizer = torch.optim.Adam(groups, lr=settings.learning_rate)
        self.trained = trained
        self.model, self.optimizer = accelerator.prepare(self.bare, self.optimizer)
        self.bare_discriminator = discriminator
        self.discriminator = discriminator
        if discriminator is not None:
            optimizer = torch.optim.Adam(
                discriminator.parameters(), lr=settings.discriminator_learning_rate, betas=(0.9, 0.99)
            )
            self.discriminator, self.optimizer_d = accelerator.prepare(discriminator.to(accelerator.device), optimizer)
        self.step = 0
        self.best = -math.inf
        self.since_best = 0
        self.average = math.nan
        self.rows: list[dict] = []
        self.complaint = ""
        self.started = time.perf_counter()
        self.seconds_before = 0.0

    def train_mode(self) -> None:
        self.model.train()
        self.loss.train()

    def iterate(self, loader, sharpen) -> dict | None:
        """One optimizer step; its row for the log, or None (and self.complaint) if it was skipped."""
        s = self.settings
        lr = s.lr(self.step)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        sharpened = sharpen is not None and self.step % 2 == 0 and self.step < s.sharpened_share * s.iterations
        row = {"lr": lr, "loss": 0.0}
        batches = [next(loader) for _ in range(s.accumulate)]  # all of them, so that a skipped step stays in step
        for micro, batch in enumerate(batches):
            x, original = (batch[k].to(self.accelerator.device, non_blocking=True) for k in ("lr", "hr"))
            target = sharpen(original) if sharpened else original
            with self.accelerator.autocast():
                prediction = self.model(x)
            total, terms = self.loss(prediction.float(), target, original)
            if not torch.isfinite(total):
                names = [name for name, t in terms.items() if not torch.isfinite(t["raw"])] or ["the total"]
                self.complaint = f"step {self.step}: {', '.join(names)} not finite on {', '.join(batch['name'])}"
                return None
            last = micro == s.accumulate - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                self.accelerator.backward(total / s.accumulate)
            row["loss"] += total.item() / s.accumulate
            for name, term in terms.items():
                for kind, value in term.items():
                    row[f"{kind}_{name}"] = row.get(f"{kind}_{name}", 0.0) + value.item() / s.accumulate
        norm = self.accelerator.clip_grad_norm_(self.trained, s.clip)
        if not torch.isfinite(norm):
            self.complaint = f"step {self.step}: gradient not finite on {', '.join(batch['name'])}"
            return None
        row["gradient_norm"] = norm.item()
        self.optimizer.step()
        self.ema.update(self.bare, step=self.step)
        if self.discriminator is not None:
            row["loss_discriminator"] = self._discriminator_step(prediction, original)
        self.average = row["loss"] if math.isnan(self.average) else 0.98 * self.average + 0.02 * row["loss"]
        return row

    def _discriminator_step(self, prediction: Tensor, original: Tensor) -> float:
        self.optimizer_d.zero_grad()
        with self.accelerator.autocast():
            real, fake = self.discriminator(original), self.discriminator(prediction.detach().float())
        loss = ragan_d(real, fake)
        self.accelerator.backward(loss)
        self.optimizer_d.step()
        return loss.item()

    def validate(self, validate) -> dict[str, float]:
        """Scores of the EMA model. Random states are put back: validating must not change the training."""
        state = _random_states()
        with torch.no_grad():
            scores = validate(self.ema.module.eval())
        _set_random_states(state)
        return {**scores, "seconds": self.seconds_before + time.perf_counter() - self.started}

    def judge(self, scores: dict[str, float]) -> None:
        """Count the validations since the best one, which this may be."""
        self.since_best = 0 if scores["psnr_y"] > self.best else self.since_best + 1
        self.best = max(self.best, scores["psnr_y"])

    def save(self, best: bool = False) -> None:
        if not self.accelerator.is_main_process:
            return
        facts = {"step": self.step, "settings": asdict(self.settings)}
        save_model(self.folder / "last.safetensors", self.ema.module, **facts)
        if best:
            save_model(self.folder / "best.safetensors", self.ema.module, **facts, psnr_y=self.best)
        discriminator = self.bare_discriminator
        state = {
            "key": self.key,
            "step": self.step,
            "best": self.best,
            "since_best": self.since_best,
            "average": self.average,
            "rows": self.rows,
            "seconds": self.seconds_before + time.perf_counter() - self.started,
            "model": self.bare.state_dict(),
            "ema": self.ema.module.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator": discriminator and discriminator.state_dict(),
            "optimizer_d": discriminator and self.optimizer_d.state_dict(),
            "random": _random_states(),
        }
        with atomic(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)
        with atomic(self.folder / "metrics.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def restore(self) -> None:
        """Go on where an unfinished run of the same settings, data and start stopped; else start anew."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.accelerator.device, weights_only=False)  # our own file
        if state["key"] != self.key:
            print(f"{path} is of other settings, data or starting weights: starting anew")
            return
        if state["step"] >= self.settings.iterations:
            return
        self.bare.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.bare_discriminator is not None:
            self.bare_discriminator.load_state_dict(state["discriminator"])
            self.optimizer_d.load_state_dict(state["optimizer_d"])
        self.step, self.average = state["step"], state["average"]
        self.best, self.since_best = state["best"], state["since_best"]
        self.rows, self.seconds_before = state["rows"], state["seconds"]
        _set_random_states(state["random"])
        print(f"resumed {path} at step {self.step}")

    def load_best(self, model: nn.Module) -> None:
        best = self.folder / "best.safetensors"
        if best.is_file() and self.best > -math.inf:
            model.load_state_dict(load_file(best))
        else:
            model.load_state_dict(self.ema.module.state_dict())
        model.eval()


def validate_on(pairs: Dataset, border: int) -> Callable[[nn.Module], dict[str, float]]:
    """A `validate` for train: mean PSNR-Y (dB) and SSIM-Y over whole pictures {"lr": (C, h, w), "hr": ...}.

    A TiledSR is run as its own use_tiling says: in tiles, or as the whole picture by exact chunks, so that a
    validation picture never needs more memory than training.
    """

    def validate(model: TiledSR) -> dict[str, float]:
        window = model.hat_model.window_size
        options = {"batch": 16} if model.use_tiling else {"statistics": "exact", "tile": 8 * window}
        scores = {"psnr_y": [], "ssim_y": []}
        for i in range(len(pairs)):
            prediction, _ = model.tiled(pairs[i]["lr"][None], on_oom="shrink", **options)
            scores["psnr_y"].append(psnr_y(prediction, pairs[i]["hr"][None], border).item())
            scores["ssim_y"].append(ssim_y(prediction, pairs[i]["hr"][None], border).item())
        return {name: float(np.mean(values)) for name, values in scores.items()}

    return validate


def fingerprint(model: nn.Module, settings: Settings, data: Dataset) -> str:
    """Names a run by its settings, starting weights and data (its `key`), so that only its like is resumed."""
    facts = [asdict(settings), len(data), getattr(data, "key", "")]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _random_states() -> dict:
    """PyTorch's, the only ones the training draws from; the data is drawn by step (KeySampler)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def _set_random_states(state: dict) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
