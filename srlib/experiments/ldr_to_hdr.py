"""What 08_hdr trains: DiffIR's two stages on pairs of LDR and HDR pictures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srlib.data.datasets import PicturePairs, training_patches
from srlib.data.tone import tone_mapped
from srlib.evaluation.hdr_scores import hdr_scores, light_of
from srlib.evaluation.shares import scored_together
from srlib.experiments.notebook import existing_file, need
from srlib.experiments.stages import Training
from srlib.losses.perceptual import vgg16_loss, vgg19_loss
from srlib.losses.prior_loss import PriorLoss, WithTruth
from srlib.losses.total import TotalLoss
from srlib.networks.checkpoints import load_diffir, load_model
from srlib.networks.diffir import CONFIGS, DiffIR, second_stage
from srlib.training.settings import settings_from

FOLDERS = {1: "hdr/stage1", "prior": "hdr/prior", 2: "hdr/stage2"}  # below outputs/<run>/, in this order


def first_stage(root: Path, p: Mapping) -> Training:
    """The network and the encoder that reads the ground truth. Validated with the ground truth: an oracle's scores."""
    torch.manual_seed(p["seed"])
    if p["model"] not in CONFIGS:
        raise ValueError(f"model {p['model']!r} is none of {', '.join(CONFIGS)}")
    for part in ("prior", "joint"):  # what is wrong with the later trainings is said now
        settings_from({**p, "iterations": p[f"{part}_iterations"], "learning_rate": p[f"{part}_learning_rate"]})
    model = DiffIR(stage=1, **CONFIGS[p["model"]], light=True, checkpointing=p["checkpointing"])
    if p["start_from"]:
        told = {"light": True, "checkpointing": p["checkpointing"]}
        model = load_diffir(existing_file(p["start_from"], root), **told)
        if model.stage != 1:
            raise ValueError(f"start_from {p['start_from']} holds DiffIR's second stage, not the first")
    validate = _validate_pictures(_pairs(root, p), oracle=True, samples=_samples(root, p, 1))
    return _training(root, p, model, _picture_loss(root, p), 1, validate)


def prior_alone(root: Path, p: Mapping) -> Training:
    """Stage 2, first part: condition and denoiser learn to guess stage 1's prior; the network does not run."""
    teacher = _trained(root, p, 1)
    torch.manual_seed(p["seed"] + 1)
    model = second_stage(teacher)
    model.answer = "prior"
    model.G.requires_grad_(False)
    p = {**p, "iterations": p["prior_iterations"], "learning_rate": p["prior_learning_rate"]}
    pairs = _pairs(root, p)
    return _training(root, p, model, PriorLoss(teacher), "prior", _validate_priors(pairs, teacher), "prior_db")


def second(root: Path, p: Mapping) -> Training:
    """Stage 2, second part: all of it, by the picture and by the prior."""
    teacher, model = _trained(root, p, 1), _trained(root, p, "prior")
    model.answer = "both"
    p = {**p, "iterations": p["joint_iterations"], "learning_rate": p["joint_learning_rate"]}
    loss = PriorLoss(teacher, _picture_loss(root, p), p["prior_weight"])
    job = _training(root, p, model, loss, 2, _validate_pictures(_pairs(root, p), samples=_samples(root, p, 2)))
    job.settings = replace(job.settings, validate_start=True)
    return job


def hdr(root: Path, p: Mapping) -> None:
    """All that 08 trains, one after the other."""
    for job in (first_stage, prior_alone, second):
        job(root, p).run()


def _trained(root: Path, p: Mapping, which: Any) -> DiffIR:
    return load_model(need(root / "outputs" / p["run"] / FOLDERS[which] / "best.safetensors", "08_hdr"), DiffIR)


def _picture_loss(root: Path, p: Mapping) -> TotalLoss:
    """L1 or squared error of log-mapped pictures, and with a weight perceptual loss."""
    if p["pixel_error"] not in ("squared", "l1"):
        raise ValueError(f"pixel_error {p['pixel_error']!r} is neither 'squared' nor 'l1'")
    squared = p["pixel_error"] == "squared"
    if not p["perceptual"]:
        return TotalLoss(squared=squared)
    if p["vgg16_weights"]:
        network: Any = vgg16_loss(existing_file(p["vgg16_weights"], root))
    else:
        network = vgg19_loss(existing_file(p["vgg19_weights"], root) if p["vgg19_weights"] else None)
    return TotalLoss(perceptual=p["perceptual"], perceptual_network=network, squared=squared)


def _pairs(root: Path, p: Mapping) -> PicturePairs:
    return PicturePairs(root / "outputs" / p["run"] / "data", "validation", scale=1)


def _training(
    root: Path, p: Mapping, model: DiffIR, loss: Any, which: Any, validate: Any, best_by: str = "psnr_mu"
) -> Training:
    out = root / "outputs" / p["run"]
    data = need(out / "data" / "data.json", "01_data").parent
    patches = training_patches(data, scale=1, lr_patch=p["lr_patch"])
    return Training(
        model,
        loss,
        WithTruth(patches, 1 if which == 1 else 2),
        None,
        settings_from(p),
        out / FOLDERS[which],
        p["resume"],
        validate=validate,
        best_by=best_by,
    )


def _samples(root: Path, p: Mapping, which: Any) -> Path | None:
    """Where TensorBoard finds the validation's pictures; None without it."""
    return root / "outputs" / p["run"] / FOLDERS[which] / "tensorboard" / "samples" if p["tensorboard"] else None


def _validate_pictures(
    pairs: PicturePairs, oracle: bool = False, samples: Path | None = None
) -> Callable[[DiffIR], dict[str, float]]:
    """A `validate` for train: mean PSNR-mu and PU21-PSNR, dB, over whole pictures. oracle: the model sees the truth.
    samples: a folder for TensorBoard's file of the first picture, tone-mapped, by the number of the validation. Several
    processes share the pictures.
    """
    first, done = pairs.names[0] if samples else "", 0

    def score(model: DiffIR, item: dict) -> dict[str, float]:
        lr, hr = item["lr"][None], item["hr"][None]
        light = light_of(picture_of(model, lr, hr if oracle else None))
        if samples and item["name"] == first:
            from torch.utils.tensorboard import SummaryWriter  # an option

            with SummaryWriter(str(samples)) as writer:
                shown = tone_mapped(light[0].permute(1, 2, 0).numpy().astype(np.float32))
                writer.add_image(item["name"], shown, done, dataformats="HWC")
        return hdr_scores(light, light_of(hr))

    def validate(model: DiffIR) -> dict[str, float]:
        nonlocal done
        rows = scored_together(pairs, partial(score, model))
        done += 1
        names = {"psnr_mu": "PSNR-mu", "pu21_psnr": "PU21-PSNR"}
        return {name: sum(row[column] for row in rows) / len(rows) for name, column in names.items()}

    return validate


def _validate_priors(pairs: PicturePairs, teacher: DiffIR) -> Callable[[DiffIR], dict[str, float]]:
    """A `validate` for train: how near the guessed priors are to stage 1's, as a signal-to-noise ratio in dB: the
    variance between the pictures over the squared error. 0 dB: no better than one prior for all of them. Of a single
    picture, which has no variance, the prior's own square is over the error: 0 dB is then a prior of zeros.
    """

    def validate(model: DiffIR) -> dict[str, float]:
        both = scored_together(pairs, lambda item: priors(teacher, model, item["lr"][None], item["hr"][None]))
        true, guessed = (torch.cat(parts) for parts in zip(*both, strict=True))
        error = (true - guessed).square().mean().item()
        signal = (true.var(0, correction=0) if len(true) > 1 else true.square()).mean().item()
        return {"prior_db": 10 * math.log10(max(signal, 1e-20) / max(error, 1e-20))}

    return validate


@torch.no_grad()
def picture_of(model: DiffIR, x: Tensor, truth: Tensor | None = None) -> Tensor:
    """The model's picture, (1, 3, H, W), log-mapped, on the CPU."""
    place = next(model.parameters()).device
    known = model.answer
    model.answer = "picture"
    try:
        answer = model(x.to(place)) if truth is None else model(x.to(place), truth.to(place))
    finally:
        model.answer = known
    return answer.float().cpu()


@torch.no_grad()
def priors(first: DiffIR, second: DiffIR, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(1, P) twice: what stage 1 reads from input and ground truth, and stage 2's guess from the input alone."""
    places = [next(model.parameters()).device for model in (first, second)]
    true = first.prior(x.to(places[0]), truth=truth.to(places[0]))
    return true.float().cpu(), second.prior(x.to(places[1])).float().cpu()
