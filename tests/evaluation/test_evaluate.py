"""Scores carry the right comparisons: tiled against the same model's whole picture, all against the truth."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_networks import strong

from srlib.data.drawings import draw
from srlib.data.resize import upscale
from srlib.evaluation.evaluate import (
    best_median_worst,
    bicubic_check,
    evaluate,
    gap_closed,
    means,
    seams_of,
    tiling_name,
    tilings_of,
    ways_to_tile,
)
from srlib.evaluation.metrics import psnr_y
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation

PAIRS = [
    {
        "lr": torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(i)),
        "hr": torch.rand(3, 48, 64),
        "name": f"p{i}",
    }
    for i in range(2)
]


@pytest.fixture
def model():
    hat = start_as_interpolation(HAT(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=4))
    return TiledSR(hat, channels=8, tile_size=16, tile_pad=8).eval()


def test_table_pictures_and_profiles(model):
    table, pictures, profiles = evaluate({"a": model}, PAIRS, tilings_of([(16, 0), (32, 0)]))
    assert table.groupby(["variant", "tiling"]).size().to_dict() == {
        ("bicubic", "whole"): 2,
        ("a", "whole"): 2,
        ("a", "tile 16 halo 0"): 2,
        ("a", "tile 32 halo 0"): 2,
    }
    assert set(profiles) == {(f"p{i}", "a", tiling_name(t, 0)) for i in range(2) for t in (16, 32)}
    lr, hr = PAIRS[0]["lr"][None], PAIRS[0]["hr"][None]
    with torch.no_grad():
        whole = model.hat_model(lr).clamp(0, 1)
    assert torch.equal(pictures["p0", "a", "whole"], whole[0])
    assert torch.equal(pictures["p0", "bicubic", "whole"], upscale(lr, 2)[0])
    rows = table.set_index(["picture", "variant", "tiling"])
    assert rows.loc[("p0", "a", "whole"), "PSNR-Y"] == psnr_y(whole, hr, 2).item()
    assert rows.loc[("p0", "a", "tile 32 halo 0"), "TC"] > 100  # one tile: the whole picture
    assert rows.loc[("p0", "a", "tile 16 halo 0"), "TC"] < 100


def test_ways_to_tile_are_told_apart_and_memory_is_measured():
    model = TiledSR(strong(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8), channels=8).eval()
    lr = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(5))
    pairs = [{"lr": lr, "hr": torch.rand(3, 80, 112), "name": "p"}]
    table, _, _ = evaluate({"a": model}, pairs, ways_to_tile(16, 8, 8), memory=True)
    scores = table.set_index("tiling")
    assert scores["TC"]["exact"] > 100 > scores["TC"]["two_pass"] > scores["TC"]["crop, no halo"]
    assert scores["TC"]["crop"] > scores["TC"]["mean"] and scores["TC"]["crop"] > scores["TC"]["crop, misaligned"]
    assert 0 < scores["MiB"]["exact"] < scores["MiB"].drop("whole").max() and (table["MiB"] > 0).all()


def test_means_and_the_gap(model):
    table, _, _ = evaluate({"a": model, "b": model}, PAIRS, tilings_of([(16, 0)]))
    table.loc[:, "PSNR-Y"] = 30.0
    table.loc[(table["variant"] == "a") & (table["tiling"] != "whole"), "PSNR-Y"] = 28.0
    table.loc[(table["variant"] == "b") & (table["tiling"] != "whole"), "PSNR-Y"] = 29.5
    assert means(table).loc[("b", "tile 16 halo 0"), "PSNR-Y"] == 29.5
    assert gap_closed(table, "tile 16 halo 0", "a").to_dict() == {"a": 0.0, "b": 75.0}


def test_seams_of(model):
    assert seams_of(model, PAIRS[0]["lr"], 16, 0) == ([32], [32])


def test_pictures_are_not_kept_unless_asked_and_a_large_whole_is_exact(model):
    table, pictures, _ = evaluate({"a": model}, PAIRS, tilings_of([(16, 0)]), keep=False)
    assert not pictures
    exact, pictures, _ = evaluate({"a": model}, PAIRS, tilings_of([(16, 0)]), whole_limit=0.0)
    lr = PAIRS[0]["lr"][None]
    with torch.no_grad():
        answer = model.tiled(lr, statistics="exact", tile=64)[0].clamp(0, 1)
    assert torch.equal(pictures["p0", "a", "whole"], answer[0])
    assert torch.equal(model.whole(lr, limit=0.0).clamp(0, 1), answer)
    assert torch.equal(model.whole(lr), model.erase(model.hat_model(lr)))
    assert np.allclose(table["PSNR-Y"], exact["PSNR-Y"], atol=1e-3)


def test_best_median_and_worst_are_ranked_by_the_gain_over_bicubic():
    def table(*gains):
        rows = []
        for i, gain in enumerate(gains):
            rows.append({"picture": f"p{i}", "variant": "bicubic", "tiling": "whole", "PSNR-Y": 30.0 + i})
            rows.append({"picture": f"p{i}", "variant": "a", "tiling": "t", "PSNR-Y": 30.0 + i + gain})
        return pd.DataFrame(rows)

    assert best_median_worst(table(1, 3, 2, 5, 4), "a", "t") == {"best": "p3", "median": "p1", "worst": "p0"}
    assert best_median_worst(table(1, 3), "a", "t") == {"best": "p1", "worst": "p0"}
    assert best_median_worst(table(1), "a", "t") == {"best": "p0"}


def test_the_self_check_is_the_evaluations_bicubic_and_knows_set5():
    names = ["baby", "bird", "butterfly", "head", "woman"]
    pictures = [(f"{name}_GT.png", draw(i, 61, 74)) for i, name in enumerate(names)]
    check = bicubic_check(pictures)
    assert check["published"].to_dict() == {2: 33.66, 3: 30.39, 4: 28.42}
    assert check["PSNR-Y"][2] > check["PSNR-Y"][3] > check["PSNR-Y"][4]
    assert "published" not in bicubic_check(pictures[:4])
