"""Scores carry the right comparisons: tiled against the same model's whole picture, all against the truth."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_networks import strong

from srlib.data.drawings import draw
from srlib.data.resize import upscale
from srlib.evaluation.counted import counted, left_out, need_detail, not_counted
from srlib.evaluation.evaluate import (
    baseline_on,
    best_median_worst,
    bicubic_check,
    evaluate,
    gap_closed,
    gap_in_words,
    means,
    pictures_of,
    seams_of,
    tiling_name,
    tilings_of,
    validate_on,
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


def test_pictures_are_kept_while_they_fit_and_made_again_when_they_did_not(model):
    class Named(list):
        names = [pair["name"] for pair in PAIRS]

    ways, pairs = tilings_of([(16, 0)]), Named(PAIRS)
    _, all_of_them, _ = evaluate({"a": model}, pairs, ways)
    size = sum(picture.nbytes for picture in all_of_them.values())
    assert len(all_of_them) == 3 * len(PAIRS)
    assert len(evaluate({"a": model}, pairs, ways, keep=size / 2**30)[1]) == len(all_of_them)
    _, none, _ = evaluate({"a": model}, pairs, ways, keep=(size - 1) / 2**30)
    assert not none
    last = PAIRS[-1]["name"]
    for kept in (all_of_them, none):
        some = pictures_of([last], kept, {"a": model}, pairs, ways)
        assert some.keys() == {key for key in all_of_them if key[0] == last}
        assert all(torch.equal(picture, all_of_them[key]) for key, picture in some.items())


def test_a_large_whole_is_exact(model):
    table, _, _ = evaluate({"a": model}, PAIRS, tilings_of([(16, 0)]))
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


def pair(name: str, hr: torch.Tensor) -> dict:
    return {"lr": torch.nn.functional.avg_pool2d(hr, 2), "hr": hr, "name": name}


BLANK = pair("blank", torch.full((3, 48, 64), 0.5))
EXACT = pair("exact", torch.zeros(3, 48, 64).index_fill(2, torch.arange(32, 64), 1.0))  # finite PSNR-Y from networks


def test_blank_pictures_are_in_the_table_and_in_no_mean(model):
    models, tilings = {"a": model, "b": model}, tilings_of([(16, 0)])
    fine, _, _ = evaluate(models, PAIRS, tilings, memory=True)
    table, _, _ = evaluate(models, [BLANK, *PAIRS], tilings, memory=True)
    assert set(table["picture"]) == {"blank", "p0", "p1"} and not_counted(fine) == []
    assert left_out(table) == {"blank": "blank or too small"} and not_counted(table) == [
        "not in the means: blank (blank or too small)"
    ]
    scores = ["PSNR-Y", "SSIM-Y", "MS-SSIM-Y", "TC", "SGR", "max_difference", "differing_share"]
    assert means(table)[scores].equals(means(fine)[scores])
    assert means(table)["MiB"].notna().all()  # measured on the first picture, the blank one
    assert "blank" not in means(table) and list(means(table)) == list(means(fine))
    assert best_median_worst(table, "a", "tile 16 halo 0") == best_median_worst(fine, "a", "tile 16 halo 0")
    assert gap_closed(table, "tile 16 halo 0", "a").equals(gap_closed(fine, "tile 16 halo 0", "a"))
    with pytest.raises(ValueError, match=r"no picture is left to take means of: blank \(blank or too small\)"):
        means(evaluate(models, [BLANK], {})[0])


def test_a_picture_that_one_model_restores_exactly_is_in_no_model_s_mean():
    rows = [
        {"picture": p, "variant": v, "tiling": "whole", "PSNR-Y": score}
        for p, v, score in (("p", "a", 30.0), ("p", "b", 31.0), ("q", "a", 40.0), ("q", "b", float("inf")))
    ]
    table = pd.DataFrame(rows)
    assert means(table)["PSNR-Y"].to_dict() == {("a", "whole"): 30.0, ("b", "whole"): 31.0}
    assert not_counted(table) == ["not in the means: q (restored exactly)"]


def test_tc_of_equal_pictures_and_sgr_of_flat_ones_are_left_out_of_their_means_alone():
    inf, nan = float("inf"), float("nan")
    rows = []
    for picture, tc, sgr in (("p", 40.0, 2.0), ("q", inf, nan), ("r", 50.0, 4.0)):
        rows.append({"picture": picture, "variant": "a", "tiling": "whole", "PSNR-Y": 30.0})
        rows.append({"picture": picture, "variant": "a", "tiling": "t", "PSNR-Y": 30.0, "TC": tc, "SGR": sgr})
        rows.append({"picture": picture, "variant": "a", "tiling": "exact", "PSNR-Y": 30.0, "TC": inf, "SGR": nan})
    table = pd.DataFrame(rows)
    mean = means(table)
    assert mean.loc[("a", "t")].to_dict() == {"PSNR-Y": 30.0, "TC": 45.0, "SGR": 3.0}
    assert mean.loc[("a", "exact"), "TC"] == inf and mean.loc[("a", "whole")].isna().sum() == 2
    assert not_counted(table) == [
        "not in every mean of TC: q (tiled and whole are equal)",
        "not in every mean of SGR: q (no seam, or flat along the seams)",
    ]


def test_pictures_too_small_for_a_score_are_named():
    nan = float("nan")
    small = {"p": {"MS-SSIM-Y": 0.9, "LPIPS": 0.1}, "q": {"MS-SSIM-Y": nan, "LPIPS": nan}}
    row = {"variant": "a", "tiling": "t", "PSNR-Y": 30.0, "TC": 40.0}
    table = pd.DataFrame([{"picture": picture, **row, **scores} for picture, scores in small.items()])
    assert not_counted(table) == [
        "not in every mean of MS-SSIM-Y: q (below 161 pixels a side)",
        "not in every mean of LPIPS: q (below 32 pixels a side)",
    ]
    assert means(table)["LPIPS"].item() == 0.1
    assert not_counted(table[table["picture"] == "q"]) == []  # the column is empty


@pytest.mark.parametrize("gap", [0.0, -0.4, 0.015])
def test_where_tiling_costs_nothing_there_is_no_gap_to_close(gap):
    def table(gap):
        rows = [
            {"picture": "p", "variant": v, "tiling": t, "PSNR-Y": score}
            for v, cost in (("stage 1", gap), ("stage 2", 0.25))
            for t, score in (("whole", 30.0), ("t", 30.0 - cost))
        ]
        return pd.DataFrame(rows)

    assert gap_closed(table(gap), "t", "stage 1").isna().all()
    assert "stage 1 loses nothing by tiling (t: " in (said := gap_in_words(table(gap), "t", "stage 1"))
    assert f"{gap:+.3f} dB" in said and "no gap to close" in said
    words = gap_in_words(table(0.5), "t", "stage 1")
    assert words == "of stage 1's gap between whole and tiled (t: 0.50 dB PSNR-Y) stage 2 closes 50 %"


def test_validation_leaves_blank_pictures_out_and_says_so_once(model, capsys):
    fine = validate_on(PAIRS, 2)(model)
    validate = validate_on([BLANK, PAIRS[0], BLANK | {"name": "black"}, PAIRS[1]], 2)
    assert validate(model) == validate(model) == fine
    assert capsys.readouterr().out == "not in the validation's means: blank, black (blank or too small)\n"
    assert baseline_on([BLANK, *PAIRS], 2) == baseline_on(PAIRS, 2)
    scores = [psnr_y(upscale(p["lr"][None], 2, "bicubic"), p["hr"][None], 2).item() for p in PAIRS]
    assert baseline_on(PAIRS, 2) == np.mean(scores)


@pytest.mark.parametrize("size", [(2, 2), (2, 80), (80, 3), (7, 7)])
def test_pictures_too_small_for_a_score_do_not_count_and_stop_nothing(model, size, capsys):
    tiny = pair("tiny", torch.rand(3, *(2 * side for side in size)))
    assert validate_on([*PAIRS, tiny], 2)(model) == validate_on(PAIRS, 2)(model)
    assert "not in the validation's means: tiny (blank or too small)" in capsys.readouterr().out
    table, _, _ = evaluate({"a": model}, [*PAIRS, tiny], tilings_of([(16, 0)]))
    assert left_out(table) == {"tiny": "blank or too small"}
    assert means(table)["PSNR-Y"].equals(means(evaluate({"a": model}, PAIRS, tilings_of([(16, 0)]))[0])["PSNR-Y"])
    with pytest.raises(ValueError, match="all pictures are blank or too small: tiny"):
        validate_on([tiny], 2)


def test_only_blank_pictures_are_refused_at_the_door():
    class Counting(list):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    with pytest.raises(ValueError, match="all pictures are blank or too small: blank, black; choose others"):
        validate_on([BLANK, BLANK | {"name": "black"}], 2)
    many = Counting([BLANK, *PAIRS, *PAIRS])
    need_detail(many, 2)
    assert many.read == 2  # it stops at the first that is not blank


def test_a_picture_restored_exactly_does_not_decide_which_model_is_best():
    """It counts with what rounding allows: neither infinity nor a hundred decibels more for the last pixel."""

    class Answers(torch.nn.Module):
        use_tiling, window = True, 8

        def __init__(self, error):
            super().__init__()
            self.error = error

        def tiled(self, lr, **options):
            hr = next(p["hr"] for p in (EXACT, PAIRS[0]) if torch.equal(p["lr"], lr[0]))
            return (hr if hr is EXACT["hr"] else (hr - self.error).clamp(0, 1))[None], None

    validate = validate_on([EXACT, PAIRS[0]], 2)
    scores = [validate(Answers(error))["psnr_y"] for error in (0.1, 0.05)]
    assert np.isfinite(scores).all() and scores[0] < scores[1] < 60


def test_an_output_that_is_not_finite_is_named(model):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="a, whole: the output for p0 is not finite"):
        evaluate({"a": model}, PAIRS, {})


def test_the_self_check_leaves_blank_pictures_out():
    fine = [("a.png", draw(0, 61, 74)), ("b.png", draw(1, 61, 74))]
    assert bicubic_check([("blank.png", np.full((61, 74, 3), 200, np.uint8)), *fine]).equals(bicubic_check(fine))


def test_counted_keeps_a_table_without_blank_pictures_as_it_is(model):
    table, _, _ = evaluate({"a": model}, PAIRS, {})
    assert counted(table).equals(table)
