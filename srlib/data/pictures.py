"""Picture files: read and write the usual formats, 8 and 16 bits; convert between integers and floats."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from srlib.data.picture import Picture, from_channels, orientation_of, upright
from srlib.data.png import channels, plain_png, png, png_header, read_png
from srlib.data.profiles import from_cmyk, to_srgb, with_profile
from srlib.data.tiff import is_tiff, read_tiff, tiff_pages, tiff_size
from srlib.files import atomic

_JPEG, _TIFF = (".jpg", ".jpeg", ".jfif", ".jpe"), (".tif", ".tiff")
SUFFIXES = (".png", *_JPEG, ".webp", *_TIFF, ".bmp")
_BY_PILLOW = ("JPEG", "WEBP", "BMP")


def read_picture(path: Path | str, content: bytes | None = None) -> Picture:
    """Read PNG, JPEG, WebP, TIFF or BMP: 8 or 16 bits, grey, palette, alpha; of several pages or frames the first.

    The orientation is applied, CMYK converted to sRGB by its profile, other depths scaled to 8 or 16 bits. content:
    the file's bytes, if they have been read already. Warns when a profile cannot be kept.
    Raises ValueError naming the file when it is no picture, truncated, or of a kind not handled.
    """
    content = Path(path).read_bytes() if content is None else content
    if (plain := plain_png(path, content)) is not None:
        return plain
    if is_tiff(content):
        return read_tiff(path, content)
    with _named(path, file := io.BytesIO(content)):
        return read_png(path, content) if content[:4] == b"\x89PNG" else _by_pillow(path, file)


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header alone. ValueError when it has none."""
    with open(path, "rb") as file:
        if (header := png_header(file)) is not None and header.simple:
            return header.height, header.width
        file.seek(0)
        start = file.read(4)
        file.seek(0)
        if is_tiff(start):
            return tiff_size(path, file)
        with _named(path, file), Image.open(file, formats=("PNG", *_BY_PILLOW)) as image:
            width, height = image.size
            return (width, height) if orientation_of(image) in (5, 6, 7, 8) else (height, width)


def page_count(path: Path | str) -> int:
    """How many pages or frames a file holds, as Picture.pages, from its headers alone. ValueError when it has none."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        if is_tiff(start):
            return tiff_pages(path, file)
        if start[:2] in (b"\xff\xd8", b"BM") or (header := png_header(file)) is not None and header.simple:
            return 1
        file.seek(0)
        with _named(path, file), Image.open(file, formats=("PNG", "WEBP")) as image:
            return getattr(image, "n_frames", 1)


@contextmanager
def _named(path: Path | str, file: BinaryIO) -> Iterator[None]:
    """Whatever a decoder raises on the file's bytes becomes a ValueError that names the file."""
    try:
        yield
    except UnidentifiedImageError:
        what = f"is not a picture ({', '.join(SUFFIXES)} are read); remove it"
        if Path(path).suffix.lower() in (".hdr", ".exr"):
            what = "is HDR, which is not read here: tone-map it to one of " + ", ".join(SUFFIXES)
        with suppress(Exception), Image.open(file) as image:
            what = f"is a picture of the format {image.format}, which is not read; save it as PNG or remove it"
        raise ValueError(f"{path} {what}") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ValueError(f"{path} has more than {limit} million pixels; cut it into parts") from None
    except Exception as error:  # nearly anything: SyntaxError, struct.error, KeyError
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error


def _by_pillow(path: Path | str, file: BinaryIO) -> Picture:
    """JPEG, WebP or BMP, whose samples have 8 bits at most. The previews that phones append to a JPEG are no pages."""
    with Image.open(file, formats=_BY_PILLOW) as image:
        icc = image.info.get("icc_profile") if image.format != "BMP" else _bmp_profile(file)
        pages = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        image.load()  # raises when the file is cut short
        orientation = orientation_of(image)
    if image.mode == "CMYK":
        return Picture(from_cmyk(upright(np.asarray(image), orientation), icc, path))
    return with_profile(from_channels(upright(channels(image), orientation), pages=pages), icc, path)


def _bmp_profile(file: BinaryIO) -> bytes | None:
    """The profile of a BMP of version 5, which Pillow leaves alone: its header says where it is, and how long."""
    file.seek(0)
    header = file.read(138)
    if header[14:18] != b"\x7c\0\0\0" or header[70:74] != b"DEBM":  # 124 bytes of header, an embedded profile
        return None
    start, size = struct.unpack("<II", header[126:134])
    file.seek(14 + start)
    return file.read(size)


def write_png(path: Path | str, array: np.ndarray) -> bytes:
    """Write (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16, in RGB order, as PNG; atomic. Returns the file's bytes."""
    content = png(array if array.ndim == 3 else array[..., None])
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return content


def write_picture(path: Path | str, picture: Picture, quality: int = 95) -> None:
    """Write a Picture in the format of the path's suffix (SUFFIXES), with alpha and profile; atomic.

    PNG and TIFF are lossless and hold 16 bits. JPEG and WebP are written with `quality`, 1-100, WebP lossless at 100.
    Where the format cannot hold the profile, the colours are converted to sRGB, which readers take for granted.
    Raises ValueError when the format cannot hold the picture.
    """
    check_format(path, picture)
    suffix = Path(path).suffix.lower()
    picture = picture if _holds_profile(suffix, picture) else to_srgb(picture)
    # WebP has no grey; and 16-bit grey with alpha few know in TIFF, so that only a profile for grey is a reason for it
    rare = suffix in _TIFF and picture.alpha is not None and picture.rgb.dtype != np.uint8 and not picture.icc
    grey = picture.grey and suffix != ".webp" and not rare
    planes = [picture.rgb[..., :1] if grey else picture.rgb]
    planes += [] if picture.alpha is None else [picture.alpha[..., None]]
    array = np.concatenate(planes, 2)  # (H, W, 1 to 4)
    with atomic(path) as temporary:
        if suffix == ".png":
            temporary.write_bytes(png(array, picture.icc))
        elif suffix in _TIFF:
            import tifffile

            tifffile.imwrite(
                temporary,
                array.squeeze(2) if array.shape[2] == 1 else array,
                photometric="minisblack" if grey else "rgb",
                planarconfig="contig" if array.shape[2] > 1 else None,
                extrasamples=None if picture.alpha is None else ["unassalpha"],
                compression="zlib",
                iccprofile=picture.icc,
            )
        else:
            options = {"lossless": quality == 100, "exact": True} if suffix == ".webp" else {"subsampling": "4:4:4"}
            image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
            image.save(temporary, quality=quality, icc_profile=picture.icc, **options)


def _holds_profile(suffix: str, picture: Picture) -> bool:
    """BMP holds none, WebP has no grey, and so no profile for it."""
    return suffix != ".bmp" and not (suffix == ".webp" and picture.grey)


def check_format(path: Path | str, picture: Picture, scale: float = 1) -> None:
    """Raise ValueError when the path's format cannot hold the picture, upscaled by `scale`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: {suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}")
    if picture.alpha is not None and suffix in (*_JPEG, ".bmp"):
        raise ValueError(f"{path}: {suffix} cannot hold transparency; choose png, webp or tif")
    if picture.rgb.dtype != np.uint8 and suffix not in (".png", *_TIFF):
        raise ValueError(f"{path}: {suffix} cannot hold 16 bits; choose png or tif")
    if picture.icc and not _holds_profile(suffix, picture):
        try:
            to_srgb(replace(picture, rgb=picture.rgb[:1, :1]))
        except ValueError as error:
            raise ValueError(f"{path}: {suffix} cannot hold this profile, and {error}; choose png or tif") from error
    side, limit = round(max(picture.rgb.shape[:2]) * scale), {".webp": 16383, **dict.fromkeys(_JPEG, 65500)}.get(suffix)
    if limit and side > limit:
        raise ValueError(f"{path}: {suffix} holds at most {limit} pixels a side, not {side}; choose png or tif")


def to_float(array: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1]; floats keep their values."""
    values = array.astype(np.float32)
    if array.dtype.kind == "u":
        values /= np.iinfo(array.dtype).max  # in place: half the time on a large picture
    return torch.from_numpy(values).permute(2, 0, 1)


def to_integers(picture: Tensor, dtype: np.dtype | type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C) uint8 or uint16, rounded half up. FloatingPointError where NaN or infinite."""
    if not (finite := picture.isfinite()).all():  # as integers these would be any number
        share = 100 * (~finite).any(0).double().mean().item()
        raise FloatingPointError(f"the picture holds NaN or infinity in {share:.3g} % of its pixels")
    top = np.iinfo(dtype).max
    return (picture.clamp(0, 1).permute(1, 2, 0).double() * top + 0.5).numpy().astype(dtype)
