"""Picture files: read and write the usual formats, 8 and 16 bits; convert between integers and floats."""

import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import fpng
import kornia_rs
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from srlib.files import atomic

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp")
_JPEG = (".jpg", ".jpeg", ".jfif", ".jpe")
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _EXTRA_SAMPLES = 0x0112, 0x0102, 0x0106, 0x0152  # EXIF, TIFF


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


def read_picture(path: Path | str, content: bytes | None = None) -> Picture:
    """Read PNG, JPEG, WebP, TIFF or BMP: 8 or 16 bits, grey, palette, alpha; of several pages or frames the first.

    The EXIF orientation is applied. content: the file's bytes, if they have been read already.
    Raises ValueError naming the file when it is no picture, truncated, or of a kind not handled.
    """
    content = Path(path).read_bytes() if content is None else content
    if (plain := _plain_png(content)) is not None:
        return plain
    png, tiff = content[:4] == b"\x89PNG", content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    orientation, icc = 1, None
    try:
        with Image.open(io.BytesIO(content)) as image:
            # Pillow silently reads 16-bit colour as 8 bits, so the depth is read from the file itself
            tags = getattr(image, "tag_v2", {})  # TIFF's
            bits = (content[24],) if png else tags.get(_BITS_PER_SAMPLE, ())
            orientation = image.getexif().get(_ORIENTATION, 1)
            icc = image.info.get("icc_profile")
            if 16 in bits and (
                png
                and "transparency" in image.info
                or tiff
                and (tags.get(_PHOTOMETRIC) == 0 or 1 in tags.get(_EXTRA_SAMPLES, ()))
            ):
                raise ValueError("16 bits with inverted grey, premultiplied alpha or a transparent colour")
            image.load()  # raises when the file is cut short
            if 16 not in bits:
                picture = _from_pillow(ImageOps.exif_transpose(image), path)
                return replace(_with_profile(picture, icc), pages=_frames(image))
    except UnidentifiedImageError:
        if not tiff:  # some 16-bit TIFF is unknown to Pillow and known to OpenCV
            raise ValueError(f"{path} is not a picture ({', '.join(SUFFIXES)} are read); remove it") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ValueError(f"{path} has more than {limit} million pixels; cut it into parts") from None
    except Exception as error:  # on broken bytes decoders raise nearly anything: SyntaxError, struct.error, KeyError
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error
    if tiff and orientation != 1:  # OpenCV 5 garbles these
        raise ValueError(f"{path} is a 16-bit TIFF stored on its side; turn it upright and save it again")
    try:
        array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        array = None
    if array is None or array.dtype != np.uint16:
        raise ValueError(f"{path} is damaged, or holds samples of a kind not handled; convert it to 8 or 16 bits RGB")
    grey = array.ndim == 2 or png and content[25] == 4  # OpenCV hands out PNG's grey with alpha as BGRA
    return _with_profile(_from_opencv(_oriented(array, orientation), grey), icc)


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width), EXIF orientation applied, from the file's header alone. ValueError when it has none."""
    try:
        with open(path, "rb") as file:
            if (plain := _plain_header(file)) is not None:
                return plain[:2]
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", {})  # TIFF's, as Pillow's size has the orientation applied already
            width, height = (tags.get(tag, side) for tag, side in zip((256, 257), image.size, strict=True))
            return (width, height) if image.getexif().get(_ORIENTATION, 1) >= 5 else (height, width)
    except UnidentifiedImageError:
        return read_picture(path).rgb.shape[:2]  # some 16-bit TIFF
    except OSError as error:
        if error.errno is not None:  # no such file, no permission
            raise
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error


def _plain_header(file: BinaryIO) -> tuple[int, int, bool, bytes | None] | None:
    """(height, width, whether 8-bit RGB, its iCCP chunk) of a PNG without transparency, orientation or animation.

    Reads the chunks' headers, not the pixels. None for every other file, which is left to Pillow.
    """
    start = file.read(26)
    if start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR" or len(start) < 26:
        return None
    width, height = struct.unpack(">II", start[16:24])
    if width * height > (Image.MAX_IMAGE_PIXELS or 2**62):  # damaged, or a decompression bomb: Pillow's error says so
        return None
    icc = None
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"tRNS", b"eXIf", b"acTL"):
            return None
        keep = kind in (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
        content = file.read(length) if keep else b""
        if b"exif" in content[:40].lower() or b"xmp" in content[:40].lower():
            return None  # an orientation written as text
        if kind == b"iCCP":
            icc = content
        file.seek(4 if keep else length + 4, 1)
    return height, width, start[24:26] == b"\x08\x02", icc


def _plain_png(content: bytes) -> Picture | None:
    """8-bit RGB PNG, decoded in a third of Pillow's time; None for every other file, damaged ones included."""
    try:
        header = _plain_header(io.BytesIO(content))
        if header is None or not header[2]:
            return None
        icc = header[3] and zlib.decompress(header[3][header[3].index(b"\0") + 2 :])
        rgb = kornia_rs.io.decode_image_png_u8(content, header[:2], "rgb")
    except Exception:  # whatever is wrong, the caller's slower way names it
        return None
    return _with_profile(Picture(rgb), icc)


def _with_profile(picture: Picture, icc: bytes | None) -> Picture:
    """The picture with its profile, if that is for grey or RGB as the picture is: a CMYK file's no longer applies."""
    space = (icc or b"")[16:20]
    return replace(picture, icc=icc) if space == (b"GRAY" if picture.grey else b"RGB ") else picture


def _frames(image: Image.Image) -> int:
    """How many pages or frames; the previews that phones append to a JPEG are none."""
    return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)


def _from_pillow(image: Image.Image, path: Path | str) -> Picture:
    if image.mode in ("I", "F"):
        raise ValueError(f"{path} holds 32-bit samples; convert it to 8 or 16 bits")
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        array = np.asarray(image.convert("RGBA"))
        return Picture(array[..., :3].copy(), array[..., 3].copy(), grey)
    return Picture(np.array(image.convert("RGB")), None, grey)


def _from_opencv(array: np.ndarray, grey: bool) -> Picture:
    """(H, W) or (H, W, 3 or 4) in BGR order."""
    if array.ndim == 2:
        return Picture(np.repeat(array[..., None], 3, 2), None, grey)
    alpha = array[..., 3].copy() if array.shape[2] == 4 else None
    return Picture(array[..., 2::-1].copy(), alpha, grey)


def _oriented(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1-8): 5 to 8 swap the axes, then rows and columns may run backwards."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]


def write_png(path: Path | str, array: np.ndarray) -> bytes:
    """Write (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16, in RGB order, as PNG; atomic. Returns the file's bytes."""
    png = _png(array if array.ndim == 3 else array[..., None])
    with atomic(path) as temporary:
        temporary.write_bytes(png)
    return png


def write_picture(path: Path | str, picture: Picture, quality: int = 95) -> None:
    """Write a Picture in the format of the path's suffix (SUFFIXES), with alpha and profile; atomic.

    PNG and TIFF are lossless and hold 16 bits. JPEG and WebP are written with `quality`, 1-100, WebP lossless at 100.
    Raises ValueError when the format cannot hold the picture.
    """
    check_format(path, picture)
    path, deep = Path(path), picture.rgb.dtype != np.uint8
    suffix = path.suffix.lower()
    grey, icc = picture.grey, picture.icc
    if grey and (suffix == ".webp" or picture.alpha is not None and (suffix == ".png" or deep)):
        grey, icc = False, None  # WebP has no grey, and not every reader knows grey with alpha: as colour
    planes = [picture.rgb[..., :1] if grey else picture.rgb]
    planes += [] if picture.alpha is None else [picture.alpha[..., None]]
    array = np.concatenate(planes, 2)  # (H, W, 1 to 4)
    with atomic(path) as temporary:
        if suffix == ".png":
            temporary.write_bytes(_png(array, icc))
        elif suffix in (".tif", ".tiff"):
            import tifffile

            tifffile.imwrite(
                temporary,
                array.squeeze(2) if array.shape[2] == 1 else array,
                photometric="minisblack" if grey else "rgb",
                planarconfig="contig" if array.shape[2] > 1 else None,
                extrasamples=None if picture.alpha is None else ["unassalpha"],
                compression="zlib",
                iccprofile=icc,
            )
        else:
            options = {"lossless": quality == 100, "exact": True} if suffix == ".webp" else {"subsampling": "4:4:4"}
            image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
            image.save(temporary, quality=quality, icc_profile=icc, **options)


def check_format(path: Path | str, picture: Picture, scale: int = 1) -> None:
    """Raise ValueError when the path's format cannot hold the picture, upscaled by `scale`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: {suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}")
    if picture.alpha is not None and suffix in (*_JPEG, ".bmp"):
        raise ValueError(f"{path}: {suffix} cannot hold transparency; choose png, webp or tif")
    if picture.rgb.dtype != np.uint8 and suffix not in (".png", ".tif", ".tiff"):
        raise ValueError(f"{path}: {suffix} cannot hold 16 bits; choose png or tif")
    side, limit = max(picture.rgb.shape[:2]) * scale, {".webp": 16383, **dict.fromkeys(_JPEG, 65500)}.get(suffix)
    if limit and side > limit:
        raise ValueError(f"{path}: {suffix} holds at most {limit} pixels a side, not {side}; choose png or tif")


def _png(array: np.ndarray, icc: bytes | None = None) -> bytes:
    """(H, W, 1, 3 or 4) uint8 or uint16 as the bytes of a PNG, with the profile."""
    if array.dtype == np.uint8 and array.shape[2] >= 3:
        png = fpng.from_ndarray(np.ascontiguousarray(array))  # a tenth of OpenCV's time, files of the same size
    else:
        _, encoded = cv2.imencode(".png", array[..., [2, 1, 0, 3][: array.shape[2]]] if array.shape[2] > 1 else array)
        png = encoded.tobytes()
    if not icc:
        return png
    content = b"iCCP" + b"profile\0\0" + zlib.compress(icc)  # name, its end, compression method 0
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return png[:33] + chunk + png[33:]  # after the signature (8 bytes) and the header chunk (25)


def to_float(array: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1]; floats keep their values."""
    values = array.astype(np.float32)
    if array.dtype.kind == "u":
        values /= np.iinfo(array.dtype).max  # in place: half the time on a large picture
    return torch.from_numpy(values).permute(2, 0, 1)


def to_integers(picture: Tensor, dtype: np.dtype | type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C) uint8 or uint16, rounded half up."""
    top = np.iinfo(dtype).max
    return (picture.clamp(0, 1).permute(1, 2, 0).double() * top + 0.5).numpy().astype(dtype)
