"""PNG files: their chunks, their pixels in every colour type and depth, and writing them."""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import fpng
import kornia_rs
import numpy as np
from PIL import Image

from srlib.data.picture import Picture, from_channels, upright
from srlib.data.profiles import with_profile

_RGB8 = b"\x08\x02"  # bits and colour type, as the header has them
_ORIENTATION = 0x0112  # EXIF


def png_header(file: BinaryIO) -> tuple[int, int, bytes, bytes | None] | None:
    """(height, width, bits and colour type, iCCP chunk) of a PNG without transparent colour, orientation or animation.

    Reads the chunks' headers, not the pixels. None for every other file.
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
    return height, width, start[24:26], icc


def plain_png(path: Path | str, content: bytes) -> Picture | None:
    """8-bit RGB PNG, decoded in a third of Pillow's time; None for every other file, damaged ones included."""
    try:
        header = png_header(io.BytesIO(content))
        if header is None or header[2] != _RGB8:
            return None
        icc = header[3] and zlib.decompress(header[3][header[3].index(b"\0") + 2 :])
        rgb = kornia_rs.io.decode_image_png_u8(content, header[:2], "rgb")
    except Exception:  # whatever is wrong, the caller's slower way names it
        return None
    return with_profile(Picture(rgb), icc, path)


def read_png(path: Path | str, content: bytes) -> Picture:
    """Any PNG, upright: 1 to 16 bits, palette, transparent colours; of an animation the default picture.

    Raises whatever the decoders do when the file is damaged or cut short.
    """
    import imagecodecs

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:  # reads no pixels, unless EXIF comes after them
        orientation, icc = image.getexif().get(_ORIENTATION, 1), image.info.get("icc_profile")
        pages = getattr(image, "n_frames", 1)
    array = imagecodecs.png_decode(content)
    array = array[..., None] if array.ndim == 2 else array
    return with_profile(from_channels(upright(array, orientation), pages=pages), icc, path)


def png(array: np.ndarray, icc: bytes | None = None) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16 as the bytes of a PNG, with the profile."""
    if array.dtype == np.uint8 and array.shape[2] >= 3:
        content = fpng.from_ndarray(np.ascontiguousarray(array))  # a tenth of libpng's time, files of the same size
    else:
        import imagecodecs

        array = np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)
        content = imagecodecs.png_encode(array, level=1, strategy=3, filter=16)  # fast: runs of horizontal differences
    if not icc:
        return content
    profile = b"iCCP" + b"profile\0\0" + zlib.compress(icc)  # name, its end, compression method 0
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    return content[:33] + chunk + content[33:]  # after the signature (8 bytes) and the header chunk (25)
