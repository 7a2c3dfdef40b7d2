"""A decoded picture: what every reader of picture files hands out and every writer takes."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    rgb: (H, W, 3), uint8 or uint16; alpha: (H, W) of the same type, or None; grey: the three channels are the same;
    icc: the colour profile, as the file had it, or None; pages: how many pages or frames the file holds, of which this
    is the first.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    icc: bytes | None = None
    pages: int = 1


def from_channels(array: np.ndarray, *, icc: bytes | None = None, pages: int = 1) -> Picture:
    """A Picture of (H, W, 1 to 4): grey, grey and alpha, RGB, or RGB and alpha; uint8 or uint16."""
    colours = array.shape[2] - 1 + array.shape[2] % 2  # 1 or 3
    grey = colours == 1
    rgb = np.repeat(array[..., :1], 3, 2) if grey else np.ascontiguousarray(array[..., :3])
    alpha = array[..., colours].copy() if array.shape[2] > colours else None
    return Picture(rgb, alpha, grey, icc, pages)


def orientation_of(image: Image.Image) -> int:
    """A picture's orientation by EXIF (or XMP), 1-8; 1 where other tags are so damaged that it cannot be known."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever is wrong there, the pixels are no less good
        return 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) with an EXIF or TIFF orientation (1-8) undone; any other number is taken as 1, as it is."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]
