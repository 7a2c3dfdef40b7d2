"""Tiny trainings for tests."""

import torch
from torch.nn.functional import avg_pool2d, interpolate
from torch.utils.data import Dataset

from srlib.evaluation.evaluate import validate_on
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.prior_loss import PriorLoss, WithTruth
from srlib.losses.total import TotalLoss
from srlib.losses.two_sizes import TwoSizes
from srlib.networks.diffir import DiffIR, second_stage
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation
from srlib.networks.restormer import CONFIGS, Restormer
from srlib.training.settings import Settings
from srlib.training.train import train

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4, "compress_ratio": 4}


class Patches(Dataset):
    """Smooth random patches, indexed by draw_keys' keys or as a list; `poison` names those that are NaN."""

    def __init__(self, length: int = 6, size: int = 16, poison: tuple[int, ...] = ()):
        self.length, self.size, self.poison, self.key = length, size, poison, f"smooth {length} {size}"

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        number, draw, side = (*key, None)[:3] if isinstance(key, tuple) else (key, 0, None)
        if number >= len(self):
            raise IndexError(number)
        noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(number * 1000 + draw % 1000))
        size = 2 * (side or self.size)
        hr = interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)
        lr = avg_pool2d(hr, 2)[0]
        return {"lr": lr * float("nan") if number in self.poison else lr, "hr": hr[0], "name": f"picture {number}"}


def tiny(**arguments) -> TiledSR:
    torch.manual_seed(5)
    hat = HAT(**{**TINY, **arguments.pop("hat", {})})
    known = {"channels": 8, "blocks": 1, "gains": [[0, 0.1]], "tile_size": 8, "tile_pad": 0}
    return TiledSR(start_as_interpolation(hat), **{**known, **arguments})


def settings(iterations=8, **changes) -> Settings:
    known = {"batch": 2, "learning_rate": 2e-3, "validate_every": 4, "log_every": 1}
    return Settings(iterations=iterations, **{**known, **changes})


def build(stage=1, form="normalised", dropped=0.3):
    """Stage 1 (with dropped paths), 2 (tiled, learnable weights) or 3 (frozen HAT, adversarial, small and large tiles)
    -> model, loss, discriminator."""
    tiles = {"use_tiling": stage > 1, "tile_choices": (8, 16) if stage == 3 else ()}
    model = tiny(**tiles, hat={"drop_path_rate": dropped} if stage == 1 else {})
    if stage == 1:  # the eraser stays out, as in srlib.experiments.stages
        model.residual_block.requires_grad_(False)
        model.out_conv.requires_grad_(False)
    if stage < 3:
        return model, TotalLoss(learnable=form if stage == 2 else None), None
    model.freeze_hat()
    torch.manual_seed(6)
    discriminator = MultiScaleDiscriminator(channels=4, scales=1)
    return model, TotalLoss(adversarial=0.1, discriminator=discriminator), discriminator


def start(folder, stage=1, data=None, callback=None, resume=True, validated=True, form="normalised", **changes):
    """Train what build() makes -> model, log."""
    model, loss, discriminator = build(stage, form)
    validate = validate_on(Patches(2), 2) if validated else None
    options = {"discriminator": discriminator, "callback": callback, "resume": resume, "validate": validate}
    log = train(model, loss, data or Patches(), settings(**changes), folder=folder, **options)
    return model, log


class OneSize(Patches):
    """Pairs of one size, as 07 and 08 have them: the input is darker."""

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return {**item, "lr": item["hr"] * 0.6}


SMALL = {"dim": 8, "blocks": [1, 1], "heads": [1, 2], "refinement": 1}
RESTORING = ("Restormer", "two answers", "DiffIR, first stage", "DiffIR, prior alone", "DiffIR, second stage")


def restoring(kind):
    """What 07 and 08 train -> model, loss, data. The second stage's steps begin with fixed noise."""
    torch.manual_seed(7)
    if kind == "Restormer":
        return Restormer(**SMALL), TotalLoss(learnable="entropy"), OneSize()
    if kind == "two answers":
        config = {**CONFIGS["Phaseformer, lite, channel attention"], **SMALL}
        return Restormer(**config), TwoSizes("entropy"), OneSize()
    first = DiffIR(**SMALL, prior=16, encoder_blocks=1, stage=1)
    torch.nn.init.normal_(first.G.output.weight, std=0.1)
    if kind == "DiffIR, first stage":
        return first, TotalLoss(squared=True), WithTruth(OneSize(), 1)
    model = second_stage(first)
    model.denoise.noise = lambda like: model.denoise.fixed.to(like).expand_as(like)
    if kind == "DiffIR, prior alone":
        model.answer = "prior"
        model.G.requires_grad_(False)
        return model, PriorLoss(first), WithTruth(OneSize(), 2)
    model.answer = "both"
    return model, PriorLoss(first, TotalLoss(squared=True)), WithTruth(OneSize(), 2)


def stop_at(step, error=KeyboardInterrupt):
    """A callback that raises after that step."""

    def callback(row):
        if row["step"] == step:
            raise error

    return callback


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
