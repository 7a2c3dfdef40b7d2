"""Pairs made as if under water: the same again from one seed, red fades first, no photograph in two parts."""

import numpy as np
import torch

from srlib.data.drawings import draw
from srlib.data.pairs import prepare_pairs
from srlib.data.pictures import read_picture, to_float
from srlib.data.underwater import drawn_water, under_water, underwater_pairs


def test_water_takes_red_away_and_is_the_same_again():
    picture, seen = to_float(draw(3, 64, 80)), []
    for _ in range(2):
        rng = np.random.default_rng(4)
        seen.append(under_water(picture, drawn_water(rng), rng))
    assert torch.equal(*seen) and seen[0].shape == picture.shape and seen[0].min() >= 0 and seen[0].max() <= 1
    lost = (picture - seen[0]).mean((1, 2))
    assert lost[0] > lost[1] and lost[0] > lost[2]


def test_pairs_are_written_once_and_prepared_as_given_ones(tmp_path):
    underwater_pairs(tmp_path / "hr", waters=1)
    files = {p.relative_to(tmp_path / "hr").as_posix(): p.stat().st_mtime_ns for p in tmp_path.glob("hr/*/*/*.png")}
    assert len(files) == 2 * 7 and {"test/gt/coffee_0.png", "validation/input/chelsea_0.png"} <= files.keys()
    underwater_pairs(tmp_path / "hr", waters=1)
    assert all((tmp_path / "hr" / name).stat().st_mtime_ns == time for name, time in files.items())
    result, split = prepare_pairs(tmp_path / "hr", tmp_path / "data", scale=1, progress=False)
    assert not result.stats["total_failed"] and sorted(split.values()).count("train") == 4
    gt, seen = (read_picture(tmp_path / f"hr/test/{side}/coffee_0.png").rgb for side in ("gt", "input"))
    assert gt.shape == seen.shape and np.abs(gt.astype(int) - seen).mean() > 5
