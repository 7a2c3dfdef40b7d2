"""What each notebook trains, out of its parameters: the notebooks and the command line share these functions.

`p` is always a notebook's parameters, all of them; what they mean is said in its first code cell.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import Dataset

from srlib.data.datasets import PicturePairs, training_patches
from srlib.data.sharpen import SHARPENERS
from srlib.data.sources import sampled
from srlib.evaluation.counted import Pairs, need_detail
from srlib.evaluation.evaluate import validate_on
from srlib.experiments.notebook import existing_file, finite, need
from srlib.files import locked
from srlib.losses.artifacts import ArtifactPatches, SeamExample
from srlib.losses.detector import ArtifactDetector, DetectorLoss, evaluate_detector, seam_examples
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.erasure import ErasureLoss
from srlib.losses.perceptual import HybridPerceptual, anime_loss, vgg19_loss
from srlib.losses.total import TotalLoss
from srlib.networks.checkpoints import load, load_hat, save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.fingerprint import fingerprint
from srlib.networks.hat import CONFIGS, HAT
from srlib.networks.initial import rescaled, start_as_interpolation
from srlib.tiling.plan import plan_tiles
from srlib.training.answers import Answers, Crops
from srlib.training.erased import validate_erased
from srlib.training.settings import Settings, settings_from
from srlib.training.train import train

STARTS = ("interpolation", "random")  # of a new HAT


@dataclass
class Training:
    """All that a training needs, to look at before it runs. pairs: validation pictures, None for none; ValueError when
    all of them are blank or tiny. validate: what scores them, by default validate_on; best_by: the score that decides.
    """

    model: Any  # TiledSR; for the detector's training ArtifactDetector
    loss: nn.Module
    patches: Dataset
    pairs: Pairs | None
    settings: Settings
    folder: Path
    resume: bool
    discriminator: nn.Module | None = None
    sharpen: Callable[[Tensor], Tensor] | None = None
    validate: Callable[[Any], dict[str, float]] | None = None
    best_by: str = "psnr_y"
    given: list[dict] | None = None  # the modules' weights before the first run
    done: dict = field(default_factory=dict)  # after a run: the "steps" done, the "settings" they were done with

    def __post_init__(self) -> None:
        if self.pairs is not None:
            need_detail(self.pairs, self.model.scale)
            self.validate = self.validate or validate_on(self.pairs, border=self.model.scale)

    def run(self, callback: Callable[[dict], None] | None = None) -> pd.DataFrame:
        """Train self.model; returns the log. See srlib.training.train.train. Run again, it is the same training."""
        modules = [m for m in (self.model, self.loss, self.discriminator) if m is not None]
        self.given = self.given or [copy.deepcopy(m.state_dict()) for m in modules]
        for module, weights in zip(modules, self.given, strict=True):
            module.load_state_dict(weights)
        log = train(
            self.model,
            self.loss,
            self.patches,
            self.settings,
            folder=self.folder,
            validate=self.validate,
            discriminator=self.discriminator,
            sharpen=self.sharpen,
            callback=callback,
            resume=self.resume,
            best_by=self.best_by,
        )
        self.done = log.attrs
        return log

    def as_trained(self, p: Mapping, prefix: str = "") -> dict:
        """A notebook's parameters, but with what the training was really done with: a finished one is taken as it is,
        whatever number of iterations is asked for. prefix: before the names of its settings in `p`.
        """
        settings = {prefix + name: value for name, value in self.done["settings"].items()}
        return {name: settings.get(name, value) for name, value in p.items()}


def stage1(root: Path, p: Mapping) -> Training:
    """02: HAT on whole patches with the pixel loss, from scratch or from a checkpoint; the eraser stays out."""
    out, scale = root / "outputs" / p["run"], p["scale"]
    if p["sharpen"] not in SHARPENERS:
        raise ValueError(f"sharpen {p['sharpen']!r} is none of {', '.join(SHARPENERS)}")
    patches = _patches(need(out / "data" / "data.json", "01_data").parent, p, scale)
    torch.manual_seed(p["seed"])
    if p["start_from"]:
        hat = load_hat(existing_file(p["start_from"], root), checkpointing=p["checkpointing"])
        if hat.scale != scale:
            print(f"{p['start_from']} upscales x{hat.scale}, this run x{scale}: all but its upsampler is taken")
            hat = rescaled(hat, scale)
    else:
        if p["model"] not in CONFIGS:
            raise ValueError(f"model {p['model']!r} is none of {', '.join(CONFIGS)}")
        hat = HAT(**CONFIGS[p["model"]], upscale=scale, checkpointing=p["checkpointing"])
        if p["start"] == "interpolation":
            start_as_interpolation(hat)
        elif p["start"] not in STARTS:
            raise ValueError(f"start {p['start']!r} is none of {', '.join(STARTS)}")
    model = _without_eraser(TiledSR(hat))
    pairs = PicturePairs(out / "data", "validation", scale=scale)
    settings = replace(settings_from(p), validate_start=True)
    common = {"settings": settings, "folder": out / "stage1", "resume": p["resume"]}
    return Training(model, TotalLoss(pixel=1.0), patches, pairs, sharpen=SHARPENERS[p["sharpen"]], **common)


def tiling(root: Path, p: Mapping, start: Path | None = None) -> Training:
    """03: the HAT of stage 1, or of `start`, through the tiling, with the pixel loss or all but the artifact terms,
    whose detector 04 trains. Refuses patches that no tile border would cut.

    The eraser stays out: it would take the seams away from HAT, which is to learn from them here, and in stage 3 it is
    taught by a HAT that no longer changes.
    """
    out = root / "outputs" / p["run"]
    tiles = {"use_tiling": True, "tile_size": p["tile_size"], "tile_pad": p["tile_pad"]}
    tiles["checkpointing"] = p["checkpointing"]
    model = _without_eraser(load(start or need(out / "stage1" / "best.safetensors", "02_stage1"), **tiles))
    _need_seams(p, model)
    patches = _patches(out / "data", p, model.scale)
    pairs = PicturePairs(out / "data", "validation", scale=model.scale)
    loss, discriminator = _total(root, p, model.scale)
    if not any(loss.weights.values()):
        raise ValueError("the weights of all terms are 0: there is nothing to learn from. Set pixel to 1")
    settings = replace(settings_from(p), validate_start=True)
    common = {"settings": settings, "folder": out / "tiling", "resume": p["resume"]}
    return Training(model, loss, patches, pairs, discriminator=discriminator, **common)


@dataclass
class Material:
    """What a detector learns from and is tested on: HR pictures (3, H, W) and stage 1's results in tiles and whole.

    origin: names what the results were made of, as they differ in their last bits from machine to machine.
    """

    clean: list[Tensor]
    seams: list[SeamExample]
    origin: str


def material(root: Path, p: Mapping, start: Path | None = None) -> dict[str, Material]:
    """04: {"train", "validation"}, seams by stage 1 or by `start`; the tile grids are drawn by the seed.

    It stays in memory: of each part at most p["detector_pictures"], drawn by their names and the seed, and of large
    ones the middle p["detector_side"] pixels. Raises ValueError where all of a part are smaller than the patch.
    """
    out, rng = root / "outputs" / p["run"], np.random.default_rng(p["seed"])
    checkpoint = start or need(out / "stage1" / "best.safetensors", "02_stage1")
    model = load(checkpoint).to(PartialState().device)
    made = {}
    for part in ("train", "validation"):
        pictures = PicturePairs(out / "data", part, scale=model.scale)
        names = set(sampled(pictures.names, min(1.0, p["detector_pictures"] / len(pictures)), p["seed"]))
        chosen = (pictures[i] for i, name in enumerate(pictures.names) if name in names)  # no other is decoded
        pairs = [_middle(item, p["detector_side"] // model.scale, model.scale) for item in chosen]
        pairs = [item for item in pairs if min(item["hr"].shape[-2:]) >= p["detector_patch"]]
        if len(pairs) < len(names):
            print(f"{len(names) - len(pairs)} {part} pictures, smaller than detector_patch, are not for the detector")
        if not pairs:
            raise ValueError(f"no {part} picture is as large as detector_patch, {p['detector_patch']} pixels: lower it")
        seams = seam_examples(model, [item["lr"] for item in pairs], tile=p["tile_size"], rng=rng)
        origin = f"{fingerprint(model)} {p['tile_size']} {p['seed']}"
        made[part] = Material([item["hr"] for item in pairs], seams, origin)
    return made


def _middle(item: dict, side: int, scale: int) -> dict:
    """The pair {"lr": (C, h, w), "hr"} cut to at most `side` LR pixels a side."""
    top, left = (max(0, (n - side) // 2) for n in item["lr"].shape[-2:])
    lr = item["lr"][:, top : top + side, left : left + side]
    hr = item["hr"][:, top * scale : (top + side) * scale, left * scale : (left + side) * scale]
    return {"lr": lr.contiguous(), "hr": hr.contiguous()}


def detector(root: Path, p: Mapping, made: Mapping[str, Material]) -> Training:
    """04: the artifact detector on the training pictures."""
    settings = Settings(
        iterations=p["detector_iterations"],
        batch=p["detector_batch"],
        learning_rate=p["detector_learning_rate"],
        optimizer="adamw",
        weight_decay=1e-4,
        schedule="one_cycle",
        workers=p["workers"],
        seed=p["seed"],
    )
    torch.manual_seed(p["seed"])
    train_on = made["train"]
    patches = ArtifactPatches(train_on.clean, train_on.seams, p["detector_patch"], origin=train_on.origin)
    folder = root / "outputs" / p["run"] / "artifact_ft" / "detector"
    return Training(ArtifactDetector(), DetectorLoss(), patches, None, settings, folder, p["resume"])


def judge_detector(root: Path, p: Mapping, model: ArtifactDetector, made: Mapping[str, Material]) -> tuple[dict, bool]:
    """How good it is on validation pictures (evaluate_detector's answer), and whether each class reaches the bar.

    Writes detector.safetensors with these figures.
    """
    held_out, patch = made["validation"], p["detector_patch"]
    quality = evaluate_detector(model, held_out.clean, held_out.seams, patch=patch, seed=p["seed"])
    if PartialState().is_main_process:
        facts = finite({name: value for name, value in quality.items() if isinstance(value, dict | float)})
        save_model(root / "outputs" / p["run"] / "artifact_ft" / "detector.safetensors", model, **facts)
    (trusted,) = broadcast_object_list([min(quality["average_precision"].values()) >= p["detector_bar"]])
    return quality, trusted  # the same on all processes


def _without_eraser(model: TiledSR) -> TiledSR:
    model.residual_block.requires_grad_(False)
    model.out_conv.requires_grad_(False)
    return model


def eraser(
    root: Path,
    p: Mapping,
    judge: ArtifactDetector,
    trusted: bool = True,
    start: Path | None = None,
    answers: Path | None = None,
) -> Training:
    """04: stage 3. HAT of stage 2 or of `start` frozen, a new eraser taught by HAT's own whole pictures, or by the
    ground truth; the detector's terms are left out if not trusted.

    HAT's answers are computed here, unless they are in the folder `answers` already.
    """
    out = root / "outputs" / p["run"]
    hat = load_hat(start or need(out / "tiling" / "best.safetensors", "03_tiling"))
    torch.manual_seed(p["seed"])
    tiles = {"use_tiling": True, "tile_size": p["tile_size"], "tile_pad": p["tile_pad"]}
    sizes = {name: p[name] for name in ("channels", "blocks", "radius", "sees", "tile_choices")}
    model = TiledSR(hat, **tiles, **sizes).freeze_hat().to(PartialState().device)
    loss, discriminator = _erasure(root, p, model.scale, judge, trusted)
    side = max([p["lr_patch"], *p["progressive_patches"]])
    grids = {
        "count": p["crops"],
        "side": p["crop_side"],
        "grids": p["grids"],
        "tiles": tuple(p["tile_choices"] or [p["tile_size"]]),
        "pads": tuple(p["tile_pads"] or [p["tile_pad"]]),
        "gib": p["cache_gib"],
        "seed": p["seed"],
    }
    contexts = len(grids["tiles"]) * len(grids["pads"])  # validation has one grid of each
    fixed = {**grids, "count": 0, "grids": contexts, "drawn": False}
    folder = answers or out / "artifact_ft" / "answers"
    parts = {part: PicturePairs(out / "data", part, scale=model.scale) for part in ("train", "validation")}
    held_out = Answers(model, parts["validation"], folder, Crops(**fixed), lr_patch=model.window, share=0.5)
    patches = Answers(model, parts["train"], folder, Crops(**grids), lr_patch=side, beside=[held_out])
    if answers is None and PartialState().is_main_process:
        with suppress(BlockingIOError), locked(folder.parent):  # else a training of this folder may read them now
            patches.remove_others()
    patches.measure()
    if not any(patches.units.values()):
        print("tiles of this network are its whole picture, to rounding: there is nothing to erase, and it stays so")
    model.gains = patches.gains
    return Training(
        model,
        loss,
        patches,
        parts["validation"],
        settings_from(p),
        folder=out / "artifact_ft",
        resume=p["resume"],
        discriminator=discriminator,
        validate=validate_erased(held_out),
        best_by="tc" if p["teacher"] == "whole" else "psnr_y",
    )


def _erasure(
    root: Path, p: Mapping, scale: int, judge: ArtifactDetector, trusted: bool
) -> tuple[ErasureLoss, nn.Module | None]:
    """Stage 3's loss, and the discriminator if it has one."""
    terms, discriminator = _total(root, p, scale, judge, trusted)
    some = any(terms.weights.values())
    weight = p["tiling_error"] if p["teacher"] == "whole" else 0.0
    return ErasureLoss(weight, terms if some else None, p["teacher"]), discriminator


def _total(
    root: Path, p: Mapping, scale: int, judge: ArtifactDetector | None = None, trusted: bool = False
) -> tuple[TotalLoss, nn.Module | None]:
    """The loss of p's weights, without the artifact terms if not trusted, and the discriminator if it has one.

    ValueError for a term that the training's smallest patches, of LR pixels times `scale`, are too small for.
    """
    smallest = min(p.get("progressive_patches") or [p["lr_patch"]]) * scale
    for name, least in (("adversarial", 64), ("ms_ssim", 11)):
        if p[name] and smallest < least:
            raise ValueError(
                f"{name} needs patches of {least} pixels, the smallest have {smallest}: raise lr_patch or "
                f"progressive_patches, or set {name} to 0"
            )
    if p["learnable"] != "none" and not p["pixel"]:
        raise ValueError(
            "learnable weights share out the weight pixel, which is 0: set pixel to 1, or learnable to none"
        )
    terms = ["pixel", "frequency", "gradient", "ms_ssim", "perceptual", "adversarial"]
    if trusted:
        terms += ["artifact_class", "artifact_feature"]
    torch.manual_seed(p["seed"])
    discriminator = MultiScaleDiscriminator() if p["adversarial"] else None
    perceptual: nn.Module | None = None
    if p["perceptual"]:
        perceptual = vgg19_loss(existing_file(p["vgg19_weights"], root) if p["vgg19_weights"] else None)
        if p["anime_weights"]:
            perceptual = HybridPerceptual(perceptual, anime_loss(existing_file(p["anime_weights"], root)))
    loss = TotalLoss(
        **{name: p[name] for name in terms},
        detector=judge.requires_grad_(False).eval() if judge is not None else None,
        discriminator=discriminator,
        perceptual_network=perceptual,
        learnable=None if p["learnable"] == "none" else p["learnable"],
    )
    return loss, discriminator


def learn_weights(root: Path, p: Mapping, form: str) -> pd.DataFrame:
    """04: the shares of one form of learnable weights by step, over p["compare_learnable"] steps of stage 3."""
    short = {**p, "learnable": form, "pixel": 1.0, "adversarial": 0.0, "teacher": "ground_truth"}
    short |= {"frequency": 0.0, "resume": False, "schedule": "cosine", "optimizer": "adam"}
    job = eraser(root, short, ArtifactDetector(), trusted=False)
    steps: dict[str, Any] = {
        "progressive_iterations": (),
        "progressive_batches": (),
        "progressive_patches": (),
        "iterations": p["compare_learnable"],
        "batch": 1,
        "weights_learning_rate": 0.1,
        "log_every": 1,
        "patience": 0,
    }
    job.settings, job.validate = replace(job.settings, **steps), None
    with tempfile.TemporaryDirectory() as folder:
        job.folder = Path(folder) / form
        return job.run().filter(regex="^share_").rename(columns=lambda name: name.removeprefix("share_"))


def _patches(folder: Path, p: Mapping, scale: int) -> Dataset:
    side = max([p["lr_patch"], *p.get("progressive_patches", [])])
    return training_patches(folder, scale=scale, lr_patch=side, methods=p["methods"])


def _need_seams(p: Mapping, model: TiledSR) -> None:
    side = min(p.get("progressive_patches") or [p["lr_patch"]])
    plan = plan_tiles(side, side, tile=p["tile_size"], halo=p["tile_pad"], window=model.window)
    if plan.y.read >= side:
        raise ValueError(
            f"a patch of {side} LR pixels is not larger than tile_size + 2 * tile_pad = {plan.y.read}: every tile "
            "would see the whole patch and there would be no seam to learn from; raise lr_patch (or "
            "progressive_patches) or lower the tile"
        )


def artifact_ft(root: Path, p: Mapping) -> None:
    """All that 04 trains, one after the other."""
    eraser(root, p, ArtifactDetector())  # what it lacks is said now, not after the detector's training
    made = material(root, p)
    job = detector(root, p, made)
    job.run()
    quality, trusted = judge_detector(root, p, job.model, made)
    if PartialState().is_main_process:
        print(f"average precision: { {k: round(v, 2) for k, v in quality['average_precision'].items()} }")
        if not trusted:
            print(f"WARNING: not each reaches the bar of {p['detector_bar']}: the artifact terms are set to 0")
    eraser(root, p, job.model, trusted).run()
