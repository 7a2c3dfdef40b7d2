"""How wide the error is that tiles make: python benchmarks/seam_width.py CHECKPOINT [CHECKPOINT ...] [dat]

Of each network, on the demo's test pictures (cut to its window grid), by tile and context in LR pixels: TC; the error's
rms within 8 LR pixels of a seam, in levels of 255; and the share of its energy within 4, 8, 12, 16, 24 and 32 LR
pixels: as much as an eraser of that radius can take away at best. Of checkpoints with an eraser that knows where seams
are also the TC that it makes of them. Pictures without a seam at that tile do not count. "dat" is DAT-light x2 with its
trained weights.
"""

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from eraser_crops import dat_light
from torch import Tensor

from srlib.data.pictures import read_picture, to_float
from srlib.data.resize import crop_to_multiple, downscale_integers
from srlib.data.sources import EMBEDDED_SPLIT, embedded_pictures, pictures_in
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seam_map import near, seam_map
from srlib.tiling.tiled import tiled_apply

RADII = (4, 8, 12, 16, 24, 32)


def pictures(scale: int, window: int) -> list[Tensor]:
    """(1, 3, h, w) LR, of the demo's test pictures."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        embedded_pictures(folder)
        for name in pictures_in(folder).names:
            if Path(name).with_suffix("").as_posix() in EMBEDDED_SPLIT["test"]:
                rgb = crop_to_multiple(read_picture(Path(folder) / name).rgb, scale * window)
                found.append(to_float(downscale_integers(rgb, scale, "bicubic"))[None])
    return found


@torch.no_grad()
def widths(network: Any, tile: int, halo: int, eraser: TiledSR | None) -> dict[str, float]:
    """One row of the table."""
    total, values, within, counts, left = 0.0, 0, dict.fromkeys(RADII, 0.0), 0, 0.0
    for x in pictures(network.scale, network.window):
        height, width = x.shape[-2:]
        plan = plan_tiles(height, width, tile=tile, halo=halo, window=network.window)
        if not any(plan.seams(1)):
            continue
        stitched, _ = tiled_apply(network, x, plan, scale=network.scale, batch=8)
        assert stitched is not None  # no `out` was given
        whole = network(x)
        squares = (stitched - whole).double().square().mean(1)  # (1, H, W)
        if eraser is not None:
            left += (eraser.tiled(x, tile=tile, halo=halo, batch=8)[0] - whole).double().square().mean(1).sum().item()
        total, values = total + squares.sum().item(), values + squares.numel()
        for radius in RADII:
            at = near(seam_map(plan.seams(1), range(height), range(width), radius=radius))[:, 0]
            at = at.repeat_interleave(network.scale, -2).repeat_interleave(network.scale, -1)
            within[radius] += squares[at].sum().item()
            counts += int(at.sum()) if radius == 8 else 0
    if not total:
        return {}
    row = {"TC, dB": -10 * math.log10(total / values)}
    row |= {"erased": -10 * math.log10(left / values)} if eraser is not None else {}
    row |= {"rms": 255 * (within[8] / counts) ** 0.5}
    return row | {f"{radius}": within[radius] / total for radius in RADII}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help='checkpoints of HAT, or "dat"')
    parser.add_argument("--tiles", type=int, nargs="+", default=[32, 64, 128], help="LR pixels, of the window grid")
    parser.add_argument("--halos", type=int, nargs="+", default=[0, 1, 2], help="in windows")
    told = parser.parse_args()
    rows = {}
    for name in told.networks:
        model = None if name == "dat" else load(name).eval()
        network: Any = dat_light().eval() if model is None else model.hat_model
        eraser = model if model is not None and any(unit for _, unit in model.gains) else None
        for tile in (tile for tile in told.tiles if tile % network.window == 0):
            for halo in told.halos:
                row = widths(network, tile, halo * network.window, eraser)
                if not row:
                    print(f"{name}: tiles of {tile} with {halo} windows of context make no seams, or no error")
                    continue
                rows[name, tile, halo * network.window] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "tile", "context"])
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
