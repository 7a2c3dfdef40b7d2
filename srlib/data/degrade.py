"""Degradations besides downscaling: blur, noise and compression, the same in every run."""

import hashlib
import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

CODECS = {"jpeg": 65500, "webp": 16383}  # the most pixels a side that each can hold
_FAINTEST = 0.05  # a smaller sigma of blur weighs the neighbours with less than exp(-200)


@dataclass(frozen=True)
class Degradation:
    """Blur, noise and compression, each drawn for every picture uniformly from a range (low, high).

    blur: sigma of a Gaussian, in HR pixels; noise: sigma of Gaussian noise on the LR picture, in levels of 255;
    before, after: compression before and after downscaling, "jpeg", "webp" or "" for none; quality: theirs, 1-100.
    What is drawn depends on `seed`, the step and the picture's name, not on the order or the number of processes.
    Raises ValueError for a range or codec that makes no sense.
    """

    blur: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    before: str = ""
    after: str = ""
    quality: tuple[int, int] = (60, 95)
    seed: int = 0

    def __post_init__(self) -> None:
        for field, lowest, highest in (("blur", 0, math.inf), ("noise", 0, math.inf), ("quality", 1, 100)):
            value, number = getattr(self, field), int if field == "quality" else float
            try:
                low, high = (number(end) for end in value)
                right = lowest <= low <= high <= highest and high < math.inf and [low, high] == list(value)
            except (TypeError, ValueError, OverflowError):
                right = False
            if not right:
                limits = "whole numbers and 1 <= low <= high <= 100" if field == "quality" else "0 <= low <= high"
                raise ValueError(f"{field} = {value!r} is no range; give it as (low, high) with {limits}")
            object.__setattr__(self, field, (low, high))  # frozen: a list, as JSON gives it, becomes a tuple once
        for field in ("before", "after"):
            if (codec := getattr(self, field)) not in ("", *CODECS):
                raise ValueError(f"{field} = {codec!r} is no compression known; choose {', '.join(CODECS)} or ''")

    @property
    def nothing(self) -> bool:
        """Whether every picture would be left as it is."""
        return self.blur[1] < _FAINTEST and not (self.noise[1] or self.before or self.after)

    def hr(self, picture: np.ndarray, name: str) -> np.ndarray:
        """Degrade an HR picture, before downscaling: blur, then the compression `before`.

        picture: (H, W, 3) uint8 or uint16; name: seeds the draw, such as "dir/a.png". Returns a new array of the same
        shape and type, or the picture itself when there is nothing to do. Blur keeps 16 bits; compression rounds to
        8 and scales back. Raises ValueError for a picture of another type, or too large for the codec.
        """
        if self.nothing:
            return picture
        random = self._random("hr", picture, name)
        # both are drawn, needed or not, so that switching one on does not change the other
        sigma, quality = random.uniform(*self.blur), random.integers(*self.quality, endpoint=True)
        return _compressed(_blurred(picture, sigma), self.before, int(quality), name)

    def lr(self, picture: np.ndarray, name: str) -> np.ndarray:
        """Degrade an LR picture, after downscaling: noise, then the compression `after`. As `hr`; noise keeps 16 bits.

        name: with scale and method, such as "2x/bicubic/dir/a.png", so that each LR picture gets noise of its own.
        """
        if self.nothing:
            return picture
        random = self._random("lr", picture, name)
        sigma, quality = random.uniform(*self.noise), random.integers(*self.quality, endpoint=True)
        return _compressed(_noisy(picture, sigma, random), self.after, int(quality), name)

    def _random(self, step: str, picture: np.ndarray, name: str) -> np.random.Generator:
        if picture.dtype not in (np.uint8, np.uint16) or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"{name} is {picture.dtype} of shape {picture.shape}; give (height, width, 3) of uint8 or uint16"
            )
        text = f"{self.seed}/{step}/{name}".encode("utf-8", "surrogatepass")  # a name may be no valid text
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()))


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a Gaussian cut at 3 sigma, the border mirrored with its edge pixel."""
    if sigma < _FAINTEST:
        return picture
    size = 2 * math.ceil(3 * sigma) + 1
    values = cv2.GaussianBlur(picture.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REFLECT)
    return _rounded(values, picture.dtype)


def _noisy(picture: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Independent noise on every channel of every pixel; sigma in levels of 255."""
    if sigma == 0:
        return picture
    noise = random.standard_normal(picture.shape, np.float32) * np.float32(sigma * np.iinfo(picture.dtype).max / 255)
    return _rounded(picture + noise, picture.dtype)


def _compressed(picture: np.ndarray, codec: str, quality: int, name: str) -> np.ndarray:
    """Encoded and decoded in memory, at Pillow's default subsampling; 16 bits by way of 8."""
    if not codec:
        return picture
    if (side := max(picture.shape[:2])) > CODECS[codec]:
        raise ValueError(f"{name}: {codec} holds at most {CODECS[codec]} pixels a side, not {side}; cut it into parts")
    deep = picture.dtype == np.uint16
    eight = _rounded(picture / np.float32(257), np.uint8) if deep else picture
    file = io.BytesIO()
    Image.fromarray(eight).save(file, codec, quality=quality)
    with Image.open(file) as image:
        result = np.array(image.convert("RGB"))
    return result * np.uint16(257) if deep else result


def _rounded(values: np.ndarray, dtype: np.dtype | type[np.uint8]) -> np.ndarray:
    """float32 to the nearest integer, half up, within the type's range."""
    return np.floor(values + np.float32(0.5)).clip(0, np.iinfo(dtype).max).astype(dtype)
