"""What a side of the seam viewer shows: a model's tiles, its whole picture, the baseline, or the ground truth.

Pictures and figures are computed once for all settings that change nothing in them, and kept.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import inf, isnan
from pathlib import Path

import torch
from torch import Tensor

from srlib.data.pictures import read_picture, to_float
from srlib.data.png import png
from srlib.data.resize import centre, crop_to_multiple, downscale, upscale
from srlib.evaluation.baseline import BASELINES, baseline
from srlib.evaluation.metrics import psnr_y
from srlib.networks.eraser import TiledSR
from srlib.show import picture_figures
from srlib.tiling.plan import BLENDS
from srlib.tiling.seams import Piece, Seams, seam_profile, seam_report, worst_pieces
from srlib.tiling.tiled import Execution

Pair = tuple[Tensor, Tensor | None]  # LR and HR
BEFORE = "not erased"  # tiled, without the model's eraser
KINDS = ("tiled", BEFORE, "whole", *BASELINES, "HR")
WITHOUT_MODEL = (*BASELINES, "HR")
WAYS = ("local", "two_pass", "exact")
_KEPT = 48  # results
_UNITS = {"TC": "{:.1f} dB", "SGR": "{:.3f}", "max_difference": "{:.2f} of 255", "differing_share": "{:.2%}"}
_UNITS |= {"PSNR-Y": "{:.2f} dB", "tiles": "{:.0f}", "pixels read": "{:.2f} a pixel", "seconds": "{:.2f} s"}
_SCALED = {"max_difference": 255.0}
_WORDS = {
    "max_difference": "largest difference",
    "differing_share": "8-bit values that differ",
    "seconds": "computed in",
}


@dataclass(frozen=True)
class Side:
    """What one side shows. tile, halo: LR pixels, multiples of the model's window; with statistics "exact" the tile is
    the chunk. Where `shows` is one of WITHOUT_MODEL the rest has no effect; "bicubic" is for models that upscale,
    "input" for those that keep the size.
    """

    shows: str = "tiled"
    model: str = ""
    tile: int = 32
    halo: int = 0
    blend: str = "crop"
    statistics: str = "local"

    @property
    def matters(self) -> tuple[str, ...]:
        """The settings that have an effect, beside `shows`."""
        return matters(self.shows, self.statistics)

    @property
    def settled(self) -> "Side":
        """The same with all that has no effect at its default: two sides that are equal then show the same."""
        return replace(Side(), shows=self.shows, **{name: getattr(self, name) for name in self.matters})

    @property
    def parts(self) -> list[str]:
        """What is shown, in words that a title is made of."""
        if self.shows in WITHOUT_MODEL:
            return [self.shows]
        if self.shows == "whole":
            return [self.model, "whole"]
        if self.statistics == "exact":
            said = [f"exact, chunks of {self.tile}"]
        else:
            said = [f"tile {self.tile}", f"halo {self.halo}"]
            said += [self.blend] * (self.blend != "crop") + [self.statistics] * (self.statistics != "local")
        return [self.model, *said, *([BEFORE] if self.shows == BEFORE else [])]


def matters(shows: str, statistics: str) -> tuple[str, ...]:
    """The settings that have an effect: "exact" has no context, and nothing meets."""
    if shows in WITHOUT_MODEL:
        return ()
    if shows == "whole":
        return ("model",)
    return (
        ("model", "tile", "statistics") if statistics == "exact" else ("model", "tile", "halo", "blend", "statistics")
    )


def erases(model: TiledSR) -> bool:
    """Whether the model has an eraser that has learned something."""
    return bool(model.out_conv.weight.any())


def offered(model: TiledSR, tiles: tuple[int, ...], halos: tuple[int, ...]) -> dict[str, list]:
    """The choices that a side has with this model, by the fields of Side; tiles and halos lie on its window's grid."""
    grid = {"tile": [t for t in tiles if t % model.window == 0], "halo": [h for h in halos if h % model.window == 0]}
    has = {"local": True, "two_pass": _shares(model), "exact": hasattr(model.hat_model, "walk")}
    return {
        "shows": ["tiled", *([BEFORE] if erases(model) else []), "whole", baseline(model.scale), "HR"],
        "tile": grid["tile"] or [model.window],
        "halo": grid["halo"] or [0],
        "blend": list(BLENDS),
        "statistics": [way for way in WAYS if has[way]],
    }


@torch.no_grad()
def _shares(model: TiledSR) -> bool:
    """Whether the model takes statistics of the whole picture that two_pass can share; seen on a small one."""
    side = max(model.window, 16)
    x = torch.zeros(1, model.hat_model.config["in_chans"], side, side)
    try:
        model.tiled(x, tile=side, halo=0, statistics="two_pass")
    except ValueError:
        return False
    return True


def own_picture(
    path: Path | str, model: TiledSR, *, crop: int, content: bytes | None = None, truth: bool = False
) -> Pair:
    """The middle square of `crop` LR pixels of a picture file, without HR; truth: the file is HR, and is downscaled.
    content: the file's bytes, if they have been read. ValueError when it is no picture.
    """
    pixels, _, _ = centre(read_picture(path, content).rgb, crop * (model.scale if truth else 1))
    if truth and min(pixels.shape[:2]) < model.scale:
        raise ValueError(f"{path} is smaller than one LR pixel, {model.scale}x{model.scale}")
    picture = to_float(crop_to_multiple(pixels, model.scale) if truth else pixels)
    if model.hat_model.config["in_chans"] == 1:
        picture = picture.mean(0, keepdim=True)
    return (downscale(picture, model.scale), picture) if truth else (picture, None)


@dataclass(frozen=True)
class Result:
    """A side's picture (C, H, W) in [0, 1] with what is known of it.

    figures: TC, SGR and so on, of tiles against the same model's whole picture, PSNR-Y where there is a ground truth.
    profile: E(k) by distance from the seams. Of what was not tiled, or has no seams, there are none of these.
    """

    picture: Tensor
    figures: dict[str, float]
    seams: Seams = ([], [])
    worst: tuple[Piece, ...] = ()
    profile: Tensor | None = None
    note: str = ""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The figures in words, with their units."""
        said = ((name, value * _SCALED.get(name, 1)) for name, value in self.figures.items())
        rows = [(_WORDS.get(name, name), _in_words(name, value)) for name, value in said]
        return [*rows, ("note", self.note)] if self.note else rows


def _in_words(name: str, value: float) -> str:
    if isnan(value):
        return "not defined"  # without seams, or where there is no detail
    return "equal" if value == inf else _UNITS[name].format(value)


class Results:
    """Pictures of sides, computed when they are first asked for.

    pictures: {name: (lr (C, h, w), hr (C, H, W) or None)}, in [0, 1]; models: {name: TiledSR} of one scale.
    """

    def __init__(self, pictures: dict[str, Pair], models: Mapping[str, TiledSR]):
        if not pictures or not models:
            raise ValueError("the viewer needs at least one picture and one model")
        scales = {name: model.scale for name, model in models.items()}
        if len(set(scales.values())) > 1:
            said = ", ".join(f"{name} x{scale}" for name, scale in scales.items())
            raise ValueError(f"the viewer compares models of one scale, not {said}")
        self.pictures, self.models = pictures, models
        self.scale = next(iter(scales.values()))
        self._kept: dict[tuple[str, Side], Result] = {}
        self._files: dict[tuple[str, Side], bytes] = {}

    def of(self, name: str, side: Side) -> Result:
        """The side's result for the picture `name`. ValueError where that has no ground truth to show."""
        key = (name, side.settled)
        result = self._kept.pop(key, None) or self._computed(name, side.settled)
        self._kept[key] = result  # the latest is last
        while len(self._kept) > _KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._files.pop(oldest, None)
        return result

    def parts(self, side: Side) -> list[str]:
        """The side in words, as its own, and whether an eraser went over its tiles."""
        if side.shows != "tiled" or side.statistics == "exact":
            return side.parts
        model = self.models[side.model]
        erased = erases(model) and (not model.radius or model.unit(side.halo) > 0)
        return [*side.parts, "erased"] if erased else side.parts

    def png(self, name: str, side: Side) -> bytes:
        """The side's picture as the bytes of a PNG, 8 bits."""
        result, key = self.of(name, side), (name, side.settled)
        if key not in self._files:
            self._files[key] = png(picture_figures.to_array(result.picture))
        return self._files[key]

    def forget(self, name: str) -> None:
        """Drop what was computed of this picture, which is about to become another."""
        self._kept = {key: result for key, result in self._kept.items() if key[0] != name}
        self._files = {key: content for key, content in self._files.items() if key[0] != name}

    @torch.no_grad()
    def _computed(self, name: str, side: Side) -> Result:
        lr, hr = self.pictures[name]
        begun = time.perf_counter()
        if side.shows == "HR":
            if hr is None:
                raise ValueError(f"{name} has no HR picture to compare with")
            return Result(hr, {})
        if side.shows in BASELINES:  # at scale 1 the input as it is
            return Result(picture := upscale(lr, self.scale, "bicubic"), self._quality(picture, hr))
        model = self.models[side.model]
        if side.shows == "whole":
            x = lr[None].to(next(model.parameters()).device)
            picture = model.whole(x)[0].clamp(0, 1).cpu()
            seconds = time.perf_counter() - begun
            return Result(picture, self._quality(picture, hr) | {"seconds": seconds})
        if side.shows == BEFORE:  # the same network in front of an eraser that has learned nothing
            model = TiledSR(model.hat_model, channels=1, blocks=0).to(model.out_conv.weight.device).eval()
        options = {name: value for name, value in asdict(side).items() if name not in ("shows", "model")}
        tiled, run = model.tiled(lr[None], batch=16, how=Execution(on_oom="shrink"), **options)
        picture = tiled[0].clamp(0, 1).cpu()
        whole = self.of(name, Side("whole", side.model)).picture
        reads = 1.0 if run.statistics == "exact" else run.plan.overhead * (2 if run.statistics == "two_pass" else 1)
        figures = seam_report(picture, whole, run.seams) | self._quality(picture, hr)
        figures |= {"tiles": len(run.plan), "pixels read": reads, "seconds": run.seconds}
        profile = seam_profile(picture, whole, run.seams)
        worst = tuple(worst_pieces(picture, whole, run.seams))
        return Result(picture, figures, run.seams, worst, profile, "; ".join(run.notes))

    def _quality(self, picture: Tensor, hr: Tensor | None) -> dict[str, float]:
        return {} if hr is None else {"PSNR-Y": psnr_y(picture[None], hr[None], self.scale).item()}
