"""Tables of scores for people: what a column means and its unit in words, as many digits as say something."""

import math

import pandas as pd

# name in the files: (in words, factor, digits after the point)
COLUMNS = {
    "PSNR-Y": ("PSNR-Y, dB", 1, 2),
    "SSIM-Y": ("SSIM-Y", 1, 4),
    "MS-SSIM-Y": ("MS-SSIM-Y", 1, 4),
    "seconds": ("time, s", 1, 2),
    "MiB": ("memory, MiB", 1, 1),
    "TC": ("TC, dB", 1, 1),
    "SGR": ("SGR", 1, 3),
    "max_difference": ("largest difference, levels of 255", 255, 2),
    "differing_share": ("differing 8-bit values, %", 100, 2),
    "published": ("published, dB", 1, 2),
}


def in_words(means: pd.DataFrame) -> pd.DataFrame:
    """The table as texts: columns of `evaluate` and its means by their names in words, others as they are named.

    What is not known is empty; an infinite TC, of equal pictures, is "equal"; what rounds to 0 is "< 0.01" or the like.
    """
    shown = {}
    for column in means:
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
