"""Tables of scores for people: what a column means and its unit in words, as many digits as say something."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from srlib.losses.artifacts import CELL
from srlib.losses.detector import ArtifactDetector
from srlib.tiling.seam_map import near, seam_map
from srlib.tiling.seams import Seams

# name in the files: (in words, factor, digits after the point)
COLUMNS = {
    "TC": ("TC, dB", 1, 1),
    "SGR": ("SGR", 1, 3),
    "PSNR-Y": ("PSNR-Y, dB", 1, 2),
    "SSIM-Y": ("SSIM-Y", 1, 4),
    "MS-SSIM-Y": ("MS-SSIM-Y", 1, 4),
    "LPIPS": ("LPIPS", 1, 4),
    "max_difference": ("largest difference, levels of 255", 255, 2),
    "differing_share": ("differing 8-bit values, %", 100, 2),
    "seconds": ("time, s", 1, 2),
    "MiB": ("memory, MiB", 1, 1),
    "published": ("published, dB", 1, 2),
}


def in_words(means: pd.DataFrame) -> pd.DataFrame:
    """The table as texts: columns of `evaluate` and its means by their names in words, in the order of COLUMNS; after
    them others, as they are named.

    What is not known is empty; an infinite TC, of equal pictures, is "equal"; what rounds to 0 is "< 0.01" or the like.
    """
    shown = {}
    for column in [*(name for name in COLUMNS if name in means), *(name for name in means if name not in COLUMNS)]:
        words, factor, digits = COLUMNS.get(column, (column, 1, 1 if "%" in column else 3))
        shown[words] = [_text(value * factor, digits) for value in means[column]]
    return pd.DataFrame(shown, index=means.index)


def _text(value: float, digits: int) -> str:
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "equal" if value > 0 else "none"
    least = 10**-digits
    if 0 < value < least / 2:
        return f"< {least:.{digits}f}"
    return f"{value:.{digits}f}" if value else "0"


@torch.no_grad()
def seam_heat(detector: ArtifactDetector, shown: Mapping[str, Sequence[tuple[Tensor, Seams]]]) -> pd.DataFrame:
    """What the detector takes for a seam: its mean probability on the two pixels beside each seam, and farther than one
    of its cells from all seams, where it should be as low in any picture.

    shown: {row: [(picture (3, H, W) in [0, 1], its seams), ...]}. NaN where there are no such pixels.
    """
    device, seam = next(detector.parameters()).device, detector.classes.index("seam")
    rows = {}
    for row, pictures in shown.items():
        on, off = [], []
        for picture, seams in pictures:
            heat = detector.heatmap(picture[None].to(device))[0, seam].cpu()
            places = [range(n) for n in heat.shape]
            beside, around = (near(seam_map(seams, *places, radius=r))[0, 0] for r in (1, CELL + 1))
            on.append(heat[beside])
            off.append(heat[~around])
        rows[row] = {"on seam lines": torch.cat(on).mean().item(), "elsewhere": torch.cat(off).mean().item()}
    return pd.DataFrame(rows).T
