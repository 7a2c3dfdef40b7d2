"""The conclusion is what the table says: gains, losses, no difference, and what could not be scored."""

import math

import pandas as pd
import pytest

from srlib.show.conclusion import conclusion

TILED, MORE = "tile 32 halo 0", "tile 32 halo 8"


def scores(models: dict[str, tuple], pictures: int = 4, bicubic: float = 30.0) -> pd.DataFrame:
    """models: {name: (PSNR-Y whole, tiled, tiled with context, SGR, TC)}; picture i has i dB more, throughout."""
    rows = []
    for i in range(pictures):
        rows.append({"picture": f"p{i}", "variant": "bicubic", "tiling": "whole", "PSNR-Y": bicubic + i})
        for name, (whole, tiled, more, sgr, tc) in models.items():
            seen = {"picture": f"p{i}", "variant": name, "max_difference": 0.1}
            rows.append(seen | {"tiling": "whole", "PSNR-Y": whole + i})
            rows.append(seen | {"tiling": TILED, "PSNR-Y": tiled + i, "SGR": sgr, "TC": tc + i})
            rows.append(seen | {"tiling": MORE, "PSNR-Y": more + i, "SGR": 1.0, "TC": 90.0})
            rows.append(seen | {"tiling": "exact", "PSNR-Y": whole + i, "SGR": 1.0, "max_difference": 3.457e-07})
    return pd.DataFrame(rows)


def said(table: pd.DataFrame) -> list[str]:
    return conclusion(table, 32, [0, 8], scale=2).splitlines()


HELPS = {
    "stage 1": (31.0, 30.86, 30.99, 1.8, 42.5),
    "stage 2": (31.3, 31.05, 31.3, 1.5, 43.5),
    "stage 3": (31.3, 31.28, 31.3, 1.2, 49.5),
}


def test_where_the_size_is_kept_the_input_is_what_is_gained_over():
    table = scores({"m": (31.0, 30.5, 30.9, 1.2, 40.0)}).replace({"variant": {"bicubic": "input"}})
    text = conclusion(table, 32, [0, 8], scale=1)
    assert "m gains 0.50 dB over the input" in text and "bicubic" not in text


def test_where_every_stage_helps():
    first, _, *rest = said(scores(HELPS))
    assert first == (
        "**In tiles of 32 LR pixels without context, stage 3 agrees with its whole picture to a TC of 51.0 dB, stage 2 "
        "to 45.0 dB, stage 1 to 44.0 dB.** Mean of 4 test pictures, x2."
    )
    assert rest == [
        "- Steps across the seams have, of the energy that they have in the whole picture (1 is ideal): stage 1: 1.80 "
        "times, stage 2: 1.50 times, stage 3: 1.20 times.",
        "- In PSNR-Y, tiled this way, stage 3 loses 0.02 dB to its whole picture, stage 2 loses 0.25 dB, stage 1 loses "
        "0.14 dB.",
        "- Tiled this way, stage 3 gains 1.28 dB over bicubic, stage 2 gains 1.05 dB, stage 1 gains 0.86 dB.",
        "- Tiled this way, stage 2 gains 0.19 dB over stage 1; better on 4 of 4 pictures.",
        "- Tiled this way, stage 3 gains 0.23 dB over stage 2; better on 4 of 4 pictures.",
        "- Tiled this way, stage 3 gains 0.42 dB over stage 1; better on 4 of 4 pictures.",
        "- Whole, stage 3 scores as stage 2 to the last digit: only tiles are changed.",
        "- With 8 LR pixels of context, stage 3 agrees with its whole picture to a TC of 90.0 dB, stage 2 to 90.0 dB, "
        "stage 1 to 90.0 dB; in PSNR-Y, stage 3 is level with its whole picture, to 0.01 dB, stage 2 is level, stage 1 "
        "loses 0.01 dB.",
        "- In exact tiles no value of any picture differs from the whole one's by as much as 0.01 levels of 255.",
    ]


def test_where_the_last_stage_hurts_it_is_said():
    hurts = HELPS | {"stage 3": (31.0, 30.7, 30.8, 2.1, 40.0)}
    text = "\n".join(said(scores(hurts, bicubic=30.9)))
    assert "stage 3 loses 0.30 dB to its whole picture" in text
    assert "stage 3 loses 0.20 dB to bicubic, stage 2 gains 0.15 dB, stage 1 loses 0.04 dB" in text
    assert "stage 3 loses 0.35 dB to stage 2; better on 0 of 4 pictures" in text
    assert "stage 3 loses 0.16 dB to stage 1" in text
    assert "stage 3 is further from it than stage 1" in text and "to the last digit" not in text


def test_one_model_without_a_gap():
    first, _, *rest = said(scores({"mine | v2": (31.0, 31.0, 31.0, math.nan, math.inf)}, pictures=1))
    assert "mine | v2 equals its whole picture.**" in first
    assert "- In PSNR-Y, tiled this way, mine | v2 is level with its whole picture, to 0.01 dB." in rest
    assert [line for line in rest if "better on" in line] == []
    assert "- Seams: there are none in these pictures, or all lie in blank parts." in rest


@pytest.mark.parametrize(
    ("value", "why"),
    [(math.inf, "restored exactly"), (-math.inf, "a score is no number"), (math.nan, "a score is no number")],
)
def test_a_score_that_is_no_number_counts_nowhere_and_is_named(value, why):
    table = scores(HELPS)
    table.loc[(table["picture"] == "p0") & (table["variant"] == "stage 2"), ["PSNR-Y", "SGR"]] = value
    text = "\n".join(said(table))
    assert "Mean of 3 test pictures" in text and "stage 2 gains 0.19 dB over stage 1; better on 3 of 3" in text
    assert f"- Not counted: p0 ({why})." in text and "nan" not in text and "inf " not in text
    table["PSNR-Y"] = value
    (line,) = said(table)
    assert line.startswith("**No conclusion:** not one of the test pictures can be counted: p0 (") and "p3 (" in line


def test_a_blank_picture_counts_nowhere_and_is_named():
    table = scores(HELPS).assign(blank=False)
    table.loc[table["picture"] == "p1", ["blank", "PSNR-Y"]] = True, 69.0
    text = "\n".join(said(table))
    assert "stage 1 to 44.2 dB.** Mean of 3 test pictures" in text and "stage 1 loses 0.14 dB." in text
    assert "- Not counted: p1 (blank or too small)." in text


def test_lpips_is_said_where_it_was_scored_and_defined():
    def with_lpips(value):
        table = scores(HELPS, pictures=2)
        return table.assign(LPIPS=[value * (1 + HELPS.get(v, (0,))[0]) for v in table["variant"]])

    line = (
        "- LPIPS, tiled this way (lower is better): stage 3: 0.3230, stage 2: 0.3230, stage 1: 0.3200, bicubic: 0.0100."
    )
    assert [text for text in said(with_lpips(0.01)) if "LPIPS" in text] == [line]
    (small,) = [text for text in said(with_lpips(math.nan)) if "LPIPS" in text]
    assert small == "- LPIPS: not defined for pictures this small."
    assert not [text for text in said(scores(HELPS)) if "LPIPS" in text]
