"""Exact resizing in floating point: by a whole number as products of small matrices, and to any size."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

METHODS = ("nearest", "bilinear", "bicubic", "lanczos", "area")
_ROWS = 64  # of the result, made at once by resize_integers


def crop_to_multiple(array: np.ndarray, scale: int) -> np.ndarray:
    """(H, W, ...) cropped at its right and bottom, so that H and W are multiples of `scale`."""
    height, width = array.shape[:2]
    return array[: height - height % scale, : width - width % scale]


def centre(array: np.ndarray, size: int | None) -> tuple[np.ndarray, int, int]:
    """(H, W, ...) cropped around its centre to at most size x size (None: whole), and the crop's top and left."""
    size = size or max(array.shape)
    top, left = (max(0, (side - size) // 2) for side in array.shape[:2])
    return array[top : top + size, left : left + size], top, left


def downscale(x: Tensor, scale: int, method: str = "bicubic") -> Tensor:
    """Downscale (..., H, W) in [0, 1] by the integer `scale`; H and W are multiples of it. Clamped to [0, 1].

    bicubic is MATLAB's imresize: kernel a = -0.5 stretched by the scale, the border mirrored with its edge
    pixel. bilinear and lanczos (3 lobes) are stretched likewise; area is the mean of scale x scale pixels;
    nearest takes the pixel at, or after, the centre of that square. On the CPU, without gradient.
    Raises ValueError for another method, or a side that is not a multiple.
    """
    _check(x.shape[-2], x.shape[-1], scale, method)
    return _by_plane(x, scale, method, upscaling=False)


def upscale(x: Tensor, scale: int, method: str = "bicubic") -> Tensor:
    """Upscale (..., H, W) in [0, 1] by the integer `scale`: the baseline that networks are compared with.

    method: "bicubic" (MATLAB's imresize), "bilinear" or "nearest". Clamped to [0, 1]. On the CPU, without gradient.
    """
    return _by_plane(x, scale, method, upscaling=True)


def downscale_integers(array: np.ndarray, scale: int, method: str = "bicubic") -> np.ndarray:
    """`downscale` of (H, W, C) uint8 or uint16, rounded half up to the same type: makes a data set's LR pictures.

    Works on the integer levels, for which the weights of scales 2 and 4 are exact, and strip by strip in the cache.
    Raises ValueError as `downscale`.
    """
    _check(array.shape[0], array.shape[1], scale, method)
    if method == "nearest":
        return array[scale // 2 :: scale, scale // 2 :: scale].copy()
    return _rounded(array, scale, method, upscaling=False)


def upscale_integers(array: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic `upscale` of (H, W, C) uint8 or uint16, rounded half up to the same type."""
    return _rounded(array, scale, "bicubic", upscaling=True)


def _check(height: int, width: int, scale: int, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} is not a multiple of the scale {scale}: crop_to_multiple first")


def _by_plane(x: Tensor, scale: int, method: str, *, upscaling: bool) -> Tensor:
    if method == "nearest":
        if upscaling:
            return x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        return x[..., scale // 2 :: scale, scale // 2 :: scale]
    planes = x.reshape(-1, *x.shape[-2:], 1)  # (P, H, W, 1)
    done = [torch.cat(list(_strips(plane, scale, method, upscaling=upscaling))) for plane in planes]
    result = torch.stack(done).clamp_(0, 1)  # (P, h, w, 1)
    return result.view(*x.shape[:-2], *result.shape[1:3])


def _rounded(array: np.ndarray, scale: int, method: str, *, upscaling: bool) -> np.ndarray:
    top = np.iinfo(array.dtype).max
    array = array if array.flags.writeable else array.copy()  # torch warns of what it must not write
    x = torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.int32))  # no arithmetic for uint16
    height, width = (n * scale if upscaling else n // scale for n in array.shape[:2])
    out = np.empty((height, width, array.shape[2]), array.dtype)
    row = 0
    for strip in _strips(x, scale, method, upscaling=upscaling):
        out[row : row + len(strip)] = strip.add_(0.5).clamp_(0, top).numpy()
        row += len(strip)
    return out


def _strips(x: Tensor, scale: int, method: str, *, upscaling: bool) -> Iterator[Tensor]:
    """Resample (H, W, C); yields the result in strips of rows, from the top, in float32, not clamped.

    A cell is the square that one LR pixel covers, scale x scale HR pixels. Every cell has the same weights, so that a
    block of neighbouring cells is one matrix product. It multiplies some zeros and is still the fastest way, as
    nothing is gathered and everything stays in the cache.
    """
    height, width, channels = x.shape
    into, out = (1, scale) if upscaling else (scale, 1)  # pixels of a cell, before and after
    tall, many, broad = (4, 4, 4) if upscaling else (4, 8, 8)  # cells of a block, blocks of a strip, cells across
    down, pad = _weights(method, scale, upscaling, tall)
    down, across = down.to(x.device), _for_channels(method, scale, upscaling, broad, channels).to(x.device)
    blocks, row = -(-width // (into * broad)), width * channels
    left, right = _mirrored(width, -pad, 0), _mirrored(width, width, blocks * broad * into + pad)
    rows = x.reshape(height, row)
    for cell in range(0, height // into, tall * many):
        top, bottom = cell * into - pad, (cell + tall * many) * into + pad
        inside = top >= 0 and bottom <= height
        strip = (rows[top:bottom] if inside else rows[_mirrored(height, top, bottom)]).float().contiguous()
        strip = strip.as_strided((many, down.shape[1], row), (tall * into * row, row, 1))  # overlapping blocks
        strip = torch.bmm(down.expand(many, -1, -1), strip).view(-1, width, channels)
        strip = torch.cat([strip[:, left], strip, strip[:, right]], 1)
        step, wide = broad * into * channels, strip.shape[1] * channels
        strip = strip.as_strided((blocks, len(strip), len(across)), (step, wide, 1))
        strip = torch.bmm(strip, across.expand(blocks, -1, -1))  # (blocks, rows, broad * out * C)
        strip = strip.transpose(0, 1).reshape(strip.shape[1], -1, channels)
        yield strip[: (height // into - cell) * out, : width // into * out]


@cache
def _weights(method: str, scale: int, upscaling: bool, cells: int) -> tuple[Tensor, int]:
    """Matrix (pixels out, pixels in) for a block of cells along one axis, and how many pixels it reads beyond it."""
    kernels = {"area": (0.5, _box), "bilinear": (1, _triangle), "bicubic": (2, _cubic), "lanczos": (3, _lanczos)}
    reach, kernel = kernels[method]
    centres: np.ndarray
    if upscaling:
        centres, inside, stretch, pad = (np.arange(cells * scale) + 0.5) / scale - 0.5, cells, 1, math.ceil(reach)
    else:
        centres, inside, stretch = (np.arange(cells) + 0.5) * scale - 0.5, cells * scale, scale
        pad = math.ceil((reach - 0.5) * scale)
    weights = kernel((centres[:, None] - np.arange(-pad, inside + pad)) / stretch)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float(), pad


@cache
def _for_channels(method: str, scale: int, upscaling: bool, cells: int, channels: int) -> Tensor:
    """The matrix of `_weights`, transposed, for rows in which a pixel's channels lie side by side."""
    return torch.kron(_weights(method, scale, upscaling, cells)[0], torch.eye(channels, device="cpu")).T.contiguous()


def _mirrored(size: int, start: int, stop: int) -> Tensor:
    """Indices of the pixels start..stop-1 of an axis that is mirrored at both ends, edge pixels included."""
    index = torch.arange(start, stop) % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)


def _box(x: np.ndarray) -> np.ndarray:
    return (np.abs(x) < 0.5).astype(float)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (Keys, 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def resized_alike(lr: Tensor, hr: Tensor | list[Tensor], factor: float) -> tuple[Tensor, Tensor | list[Tensor]]:
    """Resize both by about `factor`, rounded so that HR stays the same whole multiple of LR. In [0, 1].

    lr: (B, C, h, w); hr: (B, C, H, W), or several of them.
    """
    old, new = lr.shape[-2:], [max(1, round(side * factor)) for side in lr.shape[-2:]]

    def resized(picture: Tensor) -> Tensor:
        size = [side * n // o for side, n, o in zip(picture.shape[-2:], new, old, strict=True)]
        return F.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)

    return resized(lr), resized(hr) if isinstance(hr, Tensor) else [resized(picture) for picture in hr]


def resize_integers(array: np.ndarray, height: int, width: int, *, wrap: bool = False) -> np.ndarray:
    """(H, W, C) uint8 or uint16 -> (height, width, C) of the same type, rounded half up: any size, bicubic.

    The kernel of `downscale`, stretched along an axis that gets shorter, so that nothing aliases; the border mirrored
    with its edge pixel, or with `wrap` continued by the other side. Strip by strip: only a few rows are floats at once.
    """
    if array.shape[:2] == (height, width):
        return array
    top = np.iinfo(array.dtype).max
    (rows, down), (columns, across) = (_taps(o, n, wrap) for o, n in zip(array.shape[:2], (height, width), strict=True))
    out = np.empty((height, width, array.shape[2]), array.dtype)
    for start in range(0, height, _ROWS):
        part = rows[start : start + _ROWS]  # (rows, taps)
        needed = np.unique(part)
        x = torch.from_numpy(array[needed].astype(np.float32))
        x = sum(w[:, None] * x[:, i] for i, w in zip(columns.T, across.T, strict=True))  # (needed, width, C)
        at = np.searchsorted(needed, part)
        x = sum(w[:, None, None] * x[i] for i, w in zip(at.T, down[start : start + _ROWS].T, strict=True))
        out[start : start + _ROWS] = (x + 0.5).clamp_(0, top).numpy()
    return out


def _taps(old: int, new: int, wrap: bool) -> tuple[np.ndarray, Tensor]:
    """Of each pixel of an axis resized from old to new: which pixels it is made of, (new, taps), and their weights."""
    stretch = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.ceil(centres - 2 * stretch).astype(int)
    index = first[:, None] + np.arange(math.floor(4 * stretch) + 1)
    weights = _cubic((index - centres[:, None]) / stretch)
    index = index % old if wrap else _mirrored(old, int(index.min()), int(index.max()) + 1).numpy()[index - index.min()]
    return index, torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()
