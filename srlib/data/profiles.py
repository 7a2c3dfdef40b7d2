"""Colour profiles: which can be kept with a picture, and colours converted to sRGB by one.

Conversions are Little CMS's (PIL.ImageCms), with Pillow's own choice of rendering intent, perceptual, and of 8 bits.
"""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from srlib.data.picture import Picture

_SPACES = {b"GRAY": "grey", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "Lab"}  # as in a profile's bytes 16 to 20


def with_profile(picture: Picture, icc: bytes | None, path: Path | str) -> Picture:
    """The picture with its file's profile; without one, and with a warning, if it is damaged or for other colours.

    A grey picture cannot keep a profile for RGB: no format allows it.
    """
    if not icc:
        return picture
    wanted, space = b"GRAY" if picture.grey else b"RGB ", icc[16:20]
    if not _opens(icc):
        warnings.warn(f"{path}: its colour profile is damaged and is left out", stacklevel=2)
    elif space != wanted:
        other = _SPACES.get(space, space.decode("ascii", "replace").strip())
        text = f"{path}: its colour profile is for {other}, the picture is {_SPACES[wanted]}: the profile is left out"
        warnings.warn(text, stacklevel=2)
    else:
        return replace(picture, icc=icc)
    return picture


def to_srgb(picture: Picture) -> Picture:
    """An 8-bit picture whose colours are converted to sRGB by its profile, which is then no longer needed.

    A grey picture stays grey. Raises ValueError when the profile cannot be applied, or the picture has 16 bits.
    """
    if not picture.icc:
        return picture
    if picture.rgb.dtype != np.uint8:
        raise ValueError("16-bit colours cannot be converted to sRGB")
    image = Image.fromarray(picture.rgb[..., 0] if picture.grey else picture.rgb)
    rgb = _converted(image, picture.icc)
    return replace(picture, rgb=np.repeat(rgb[..., 1:2], 3, 2) if picture.grey else rgb, icc=None)


def from_cmyk(ink: np.ndarray, icc: bytes | None, path: Path | str) -> np.ndarray:
    """(H, W, 4) uint8, 255 where all ink is -> (H, W, 3) sRGB, by the file's profile.

    Without one, or with a damaged one, by Pillow's formula, (255 - c) (255 - k) / 255, and with a warning.
    """
    image = Image.frombytes("CMYK", ink.shape[1::-1], np.ascontiguousarray(ink).tobytes())
    if icc and icc[16:20] == b"CMYK":
        try:
            return _converted(image, icc)
        except ValueError:
            what = "its colour profile is damaged"
    else:
        what = "it has no colour profile for CMYK"
    warnings.warn(f"{path}: {what}, so that its colours are approximate", stacklevel=2)
    return np.array(image.convert("RGB"))


def _converted(image: Image.Image, icc: bytes) -> np.ndarray:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        result = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        raise ValueError(f"the colour profile cannot be applied ({error})") from error
    return np.array(result)


def _opens(icc: bytes) -> bool:
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (ImageCms.PyCMSError, OSError, TypeError):
        return False
    return True
