"""Written pictures against a folder of ground truth: PSNR-Y and SSIM-Y of each, and their means."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from srlib.data.listing import find_pictures
from srlib.data.pictures import read_picture, to_float
from srlib.evaluation.metrics import WINDOW, psnr_y, ssim_y
from srlib.files import atomic, printable


def hr_of(sources: Iterable[Path], source: Path, hr: Path) -> dict[Path, Path]:
    """Of each source its ground truth: the file of its name, whatever the suffix, at its place in the folder `hr`.

    source: the folder that the sources lie in, or the one source. hr: a folder; or a file, of one source. Sources
    without one are left out. Raises FileNotFoundError or ValueError where there is none at all.
    """
    if not hr.exists():
        raise FileNotFoundError(f"{hr} does not exist: give the folder of HR pictures to compare with")
    if hr.is_file():
        if source.is_dir():
            raise ValueError(f"{hr} is a file and {source} a folder: give the folder of HR pictures to compare with")
        return {source: hr}
    files = find_pictures(hr).files
    exact = {path.relative_to(hr): path for path in files}
    stems: dict[Path, list[Path]] = {}
    for path in files:
        stems.setdefault(path.relative_to(hr).with_suffix(""), []).append(path)
    found = {}
    for path in sources:
        place = path.relative_to(source) if source.is_dir() else Path(path.name)
        same = stems.get(place.with_suffix(""), [])
        if place in exact or len(same) == 1:
            found[path] = exact.get(place, same[0])
    if not found:
        raise ValueError(f"{hr} has no picture of the name of one in {source}: there is nothing to compare with")
    return found


def compare_files(
    written: Mapping[Path, Path], truth: Mapping[Path, Path], border: Mapping[Path, int], table: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Score each file that was written of a source against the source's ground truth, and write all as CSV, `table`.

    written, truth: source -> file; border: source -> output pixels that do not count on each side, by custom the scale;
    ground truth that is larger by less than that is cropped at its right and bottom, as no whole LR pixel covered it.
    Returns (one row a picture, PSNR-Y in dB and SSIM-Y, and their means last; a sentence for each that could not be
    compared). Files are compared as they are written, in 8 bits, compression included; transparency is left out.
    """
    rows, complaints = [], []
    for path, target in written.items():
        if path not in truth:
            complaints.append(f"{path}: no HR picture of its name")
            continue
        if not os.path.exists(target):
            continue  # what failed has been said
        try:
            rows.append({"picture": printable(path), **_scores(target, truth[path], border[path])})
        except (ValueError, OSError) as error:
            complaints.append(str(error))
    scores = pd.DataFrame(rows, columns=["picture", "PSNR-Y", "SSIM-Y"])
    if rows:
        mean = scores[["PSNR-Y", "SSIM-Y"]].mean()
        scores.loc[len(scores)] = ["mean", mean["PSNR-Y"], mean["SSIM-Y"]]
    with atomic(table) as temporary:
        scores.to_csv(temporary, index=False)
    return scores, complaints


def _scores(written: Path, truth: Path, border: int) -> dict[str, float]:
    ours, hr = (to_float(read_picture(path).rgb)[None] for path in (written, truth))
    height, width = ours.shape[-2:]
    more = [theirs - own for theirs, own in zip(hr.shape[-2:], (height, width), strict=True)]
    if not all(0 <= size < max(border, 1) for size in more):
        theirs = f"{hr.shape[-1]}x{hr.shape[-2]}"
        raise ValueError(f"{truth} has {theirs} pixels, {written} has {width}x{height}: they cannot be compared")
    if min(height, width) - 2 * border < WINDOW:
        raise ValueError(f"{written} is too small to be compared: {WINDOW} pixels a side are needed beside the border")
    hr = hr[..., :height, :width]
    return {"PSNR-Y": psnr_y(ours, hr, border).item(), "SSIM-Y": ssim_y(ours, hr, border).item()}
