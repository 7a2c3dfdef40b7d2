"""Which pictures count: a mean over pictures leaves out blank and tiny ones and those restored exactly, and names them.

PSNR is the logarithm of an error. Of a blank picture it is anything from 50 dB to infinity, and in a mean one such
picture outweighs all others.
"""

from typing import Protocol

import numpy as np
import pandas as pd

from srlib.evaluation.metrics import blank

_REASONS = {  # why a picture lacks a score
    "TC": "tiled and whole are equal",
    "SGR": "no seam, or flat along the seams",
    "MS-SSIM-Y": "below 161 pixels a side",
    "LPIPS": "below 32 pixels a side",
}


class Pairs(Protocol):
    """Whole pictures to score on: items {"lr": (C, h, w), "hr": (C, H, W), "name": str}, as PicturePairs has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict: ...


def need_detail(pairs: Pairs, border: int) -> None:
    """ValueError naming the pictures when all are blank or too small. Reads no further than the first that is not."""
    names = []
    for index in range(len(pairs)):
        item = pairs[index]
        if not blank(item["hr"][None], border).item():
            return
        names.append(item["name"])
    if names:
        raise ValueError(
            f"nothing can be measured, all pictures are blank or too small: {listed(names)}; choose others"
        )


def left_out(table: pd.DataFrame) -> dict[str, str]:
    """{picture: why} of those in `evaluate`'s table that no mean counts, for any model: they are blank or tiny
    (metrics.blank), or one of the models' PSNR-Y is infinite.
    """
    exact = table.loc[np.isposinf(table["PSNR-Y"]), "picture"]
    flat = table.loc[table["blank"].eq(True), "picture"] if "blank" in table else ()
    return dict.fromkeys(exact, "restored exactly") | dict.fromkeys(flat, "blank or too small")


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pictures that count. Raises ValueError when there are none."""
    why = left_out(table)
    kept = table[~table["picture"].isin(list(why))]
    if kept.empty:
        raise ValueError(f"no picture is left to take means of: {listed([f'{n} ({w})' for n, w in why.items()])}")
    return kept


def not_counted(table: pd.DataFrame) -> list[str]:
    """Lines to print: which pictures are not in the means of `table`, and which not in those of one score alone."""
    lines = []
    if why := left_out(table):
        lines.append(f"not in the means: {listed([f'{name} ({reason})' for name, reason in why.items()])}")
    rows = counted(table)
    for column, reason in _REASONS.items():
        if column not in rows or "TC" not in rows:
            continue
        tiled = rows[rows["TC"].notna()]
        lacking = ~np.isfinite(tiled[column])
        some = lacking & ~lacking.groupby([tiled["variant"], tiled["tiling"]]).transform("all")
        if some.any():
            names = list(dict.fromkeys(tiled.loc[some, "picture"]))
            lines.append(f"not in every mean of {column}: {listed(names)} ({reason})")
    return lines


def listed(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
