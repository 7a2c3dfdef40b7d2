"""Pairs of pictures as if under water and as they were: embedded material to learn restoration from, no download.

Formation model of underwater pictures (Akkaynak & Treibitz, CVPR 2018, in its simple form): each colour fades with the
distance to the camera, red first, and scattered light of the water's own colour takes its place; small-angle scattering
blurs what is far. Distances, waters and cameras are drawn by a seed. Made pairs are easier than real ones.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, resize

from srlib.data.pictures import read_picture, to_float, to_integers, write_png
from srlib.data.sources import EMBEDDED_SPLIT, embedded_pictures, made_of


@dataclass(frozen=True)
class Water:
    """What a picture is seen through.

    fade: per metre, of red, green and blue; light: the water's colour at great distance, in [0, 1]; near, far: metres;
    blur: sigma in pixels at `far`.
    """

    fade: tuple[float, float, float]
    light: tuple[float, float, float]
    near: float
    far: float
    blur: float


def drawn_water(rng: np.random.Generator) -> Water:
    """Blue oceanic to green coastal water, 1 to 9 m deep into the picture."""
    green = rng.uniform()  # 0 blue, 1 green
    fade = np.array([rng.uniform(0.25, 0.5), 0.06 + 0.05 * (1 - green), 0.05 + 0.12 * green]) * rng.uniform(0.8, 1.3)
    light = np.array([0.05, 0.35 + 0.3 * green, 0.6 - 0.35 * green]) * rng.uniform(0.7, 1.2)
    near = rng.uniform(0.5, 2.0)
    return Water(tuple(fade.tolist()), tuple(light.tolist()), near, near + rng.uniform(1.0, 7.0), rng.uniform(0.3, 1.2))


def under_water(picture: Tensor, water: Water, rng: np.random.Generator) -> Tensor:
    """picture (3, H, W) in [0, 1], sRGB -> as seen through `water`, with drawn distances and a little noise."""
    height, width = picture.shape[1:]
    rise = torch.linspace(1, 0, height).view(1, -1, 1)  # what is higher in a picture is farther away
    bumps = resize(torch.from_numpy(rng.uniform(size=(1, 5, 5))).float(), [height, width], antialias=False)
    distance = water.near + (water.far - water.near) * (0.65 * rise + 0.35 * bumps)  # (1, H, W), metres
    linear = picture.clamp(0, 1) ** 2.2
    sigma = max(water.blur, 1e-3)
    blurred = gaussian_blur(linear, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)
    linear = torch.lerp(linear, blurred, (distance - water.near) / (water.far - water.near))
    through = (-torch.tensor(water.fade).view(3, 1, 1) * distance).exp()
    seen = linear * through + torch.tensor(water.light).view(3, 1, 1) ** 2.2 * (1 - through)
    noise = torch.from_numpy(rng.normal(0, 1.5 / 255, size=picture.shape)).float()
    return (seen.clamp(0, 1) ** (1 / 2.2) + noise).clamp(0, 1)


def underwater_pairs(folder: Path | str, waters: int = 4, seed: int = 0) -> None:
    """Write pairs of the embedded colour photographs as `prepare_pairs` reads them: train, validation and test, each
    with input/ and gt/, and each photograph in `waters` waters. Files that are there already are kept, but for those of
    earlier calls that are not asked for now (sources.made_of).
    """
    folder = Path(folder)
    parts = {stem: part for part, stems in EMBEDDED_SPLIT.items() for stem in stems}
    with tempfile.TemporaryDirectory() as embedded:
        embedded_pictures(embedded, drawings=0)
        pictures = {path.stem: read_picture(path) for path in sorted(Path(embedded).glob("photos/*"))}
    wanted = {  # (ground truth, input) -> stem, number
        tuple(f"{parts.get(f'photos/{stem}', 'train')}/{side}/{stem}_{n}.png" for side in ("gt", "input")): (stem, n)
        for stem, picture in pictures.items()
        if not picture.grey
        for n in range(waters)
    }
    made_of(folder, {name: f"under water, seed {seed}" for names in wanted for name in names})
    for names, (stem, number) in wanted.items():
        target, source = (folder / name for name in names)
        if target.is_file() and source.is_file():
            continue
        rgb, rng = pictures[stem].rgb, np.random.default_rng([seed, number, *stem.encode()])
        seen = under_water(to_float(rgb), drawn_water(rng), rng)
        write_png(source, to_integers(seen, rgb.dtype))
        write_png(target, rgb)
