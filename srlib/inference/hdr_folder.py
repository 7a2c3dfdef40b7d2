"""HDR pictures out of LDR ones, by a network that learned it from pairs: what the command `srlib hdr` does."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srlib.data.gain_maps import write_gain_map
from srlib.data.hdr import (
    JPEG,
    SUFFIXES,
    WHITE,
    check_gain,
    linearised,
    log_mapped,
    log_unmapped,
    read_gain,
    read_hdr,
    write_hdr,
)
from srlib.data.pictures import Picture, to_float, write_png
from srlib.data.tone import tone_mapped
from srlib.files import printable
from srlib.inference.folders import check_features, say_failed, shown, targets, upscale_files
from srlib.networks.diffir import DiffIR
from srlib.networks.eraser import TiledSR
from srlib.networks.wrappers import unwrapped
from srlib.tiling.tiled import Execution

WRITTEN = (*SUFFIXES, *JPEG)


@dataclass(frozen=True)
class Made:
    """light: (H, W, 3) float32, cd/m2; ldr: (H, W, 3) uint8, the picture it was made of."""

    light: np.ndarray
    ldr: np.ndarray


def hdr_folder(
    model: TiledSR,
    input: Path,
    output: Path,
    *,
    suffix: str = "",
    dgain: float = 10.0,
    gamma: float = 2.2,
    tile: int | str = "auto",
    preview: bool = False,
    quality: int = 95,
    overwrite: bool = False,
    how: Execution = Execution(on_oom="shrink"),
) -> tuple[int, int, dict[Path, str]]:
    """Write `input`, an LDR picture or a folder, as HDR into `output`; prints what it does.

    suffix: ".exr", ".hdr", ".npy", or ".jpg" for a JPEG with a gain map, whose SDR picture is the input; empty takes
    the output's own. dgain, gamma: how the LDR pictures were made of light, clip(light / 1000 * dgain, 0, 1) ** (1 /
    gamma), where no text file of the picture's name beside it says so; white is at 1000 / dgain cd/m2. preview: write
    a tone-mapped PNG beside each, with _preview in its name, where there is none, or `overwrite`. Returns what
    upscale_files returns.
    Raises ValueError or OSError for a mistake in the arguments before the first picture is computed.
    """
    check_gain(dgain, gamma, "the command line")
    if suffix == ".exr" or (not suffix and output.suffix.lower() == ".exr"):
        import OpenEXR  # noqa: F401  said now, not after the first picture
    if model.scale != 1 or model.hat_model.config["in_chans"] != 3:
        raise ValueError(f"the network upscales x{model.scale}, or is not for colour: it makes no HDR of LDR pictures")
    if not isinstance(network := unwrapped(model.hat_model), DiffIR):
        name = getattr(network, "name", type(network).__name__)
        raise ValueError(
            f"the network, a {name}, makes pictures, not light: srlib upscale applies it; 08_hdr trains one"
        )
    if not network.config["light"]:
        print("the file does not say that its network was trained on light, as 08_hdr's are: taken as if it were")
    if tile != "auto" and (not isinstance(tile, int) or tile < 1 or tile % model.window):
        raise ValueError(f"tile (or auto) must be a multiple of {model.window} pixels")
    check_features(how)
    pairs, found = targets(input, output, suffix, known=WRITTEN)
    if preview:
        previews = [_preview_of(target).resolve() for target in pairs.values()]
        twice = {path for path, count in Counter(previews).items() if count > 1}
        if taken := twice | {path.resolve() for path in pairs} & set(previews):
            raise ValueError(f"{min(taken)} would be two things, one a preview: rename, or leave the previews out")

    def work(picture: Picture, path: Path) -> Made:
        text = path.with_suffix(".txt")
        gain = read_gain(text) if text.is_file() else (dgain, gamma)
        if picture.alpha is not None:
            print("   its transparency is left out, as HDR files have none", flush=True)
        ldr = to_float(picture.rgb)  # (3, H, W) in [0, 1]
        with shown(path, how) as watched:
            light = _to_light(model, ldr, *gain, tile=tile, how=watched)
        brighter = float((light > 1000 / gain[0]).mean())
        print(f"   dgain {gain[0]:g}, gamma {gain[1]:g}; up to {light.max():.0f} cd/m2, {brighter:.1%} above LDR white")
        return Made(light, (ldr * 255).round().byte().permute(1, 2, 0).numpy())

    def write(target: Path, made: Made, quality: int) -> None:
        if target.suffix.lower() in JPEG:
            write_gain_map(target, made.light / np.float32(WHITE), made.ldr, quality)
        else:
            write_hdr(target, made.light)
        if preview:
            show(target, made.light)

    def show(target: Path, light: np.ndarray) -> None:
        if overwrite or not os.path.exists(_preview_of(target)):
            write_png(_preview_of(target), tone_mapped(light))

    check: Callable[[Path, Picture, int], None] = lambda target, picture, scale: None  # noqa: E731  HDR holds any
    try:
        results = upscale_files(pairs, work, scale=1, quality=quality, overwrite=overwrite, check=check, write=write)
        for path, target in pairs.items() if preview else ():
            # of an earlier run, without previews
            if os.path.exists(target) and not os.path.exists(_preview_of(target)):
                try:
                    show(target, read_hdr(target))
                except (ValueError, OSError) as error:
                    results[2][path] = str(error)
                    say_failed(str(error))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the files written are complete, the same command makes the rest") from None
    for path, why in found.troubles.items():
        say_failed(f"{path} {why}")
    for sentence in found.left_alone:
        print(f"left alone: {printable(sentence)}")
    return *results[:2], results[2] | found.troubles


def _preview_of(target: Path) -> Path:
    return target.with_name(f"{target.stem}_preview.png")


@torch.no_grad()
def _to_light(
    model: TiledSR, ldr: Tensor, dgain: float, gamma: float, *, tile: int | str = "auto", how: Execution = Execution()
) -> np.ndarray:
    """(3, H, W) in [0, 1] -> linear light (H, W, 3) in cd/m2, float32. The network over the whole picture, in chunks.

    Raises FloatingPointError when its answer is not finite.
    """
    x = log_mapped(linearised(ldr.permute(1, 2, 0).numpy(), dgain, gamma))  # (H, W, 3)
    light = np.empty(x.shape, np.float32)

    def take(band: Tensor, top: int) -> None:
        mapped = band[0].float().clamp(min=0).permute(1, 2, 0).cpu().numpy()
        light[top : top + len(mapped)] = log_unmapped(mapped)

    model.tiled(torch.from_numpy(x).permute(2, 0, 1)[None], statistics="exact", tile=tile, out=take, how=how)
    if not np.isfinite(light).all():
        raise FloatingPointError("the network's light is not finite: give it fp32, or use another checkpoint")
    return light
