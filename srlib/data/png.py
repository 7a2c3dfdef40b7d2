"""PNG files: their chunks, their pixels in every colour type and depth, and writing them."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import fpng
import kornia_rs
import numpy as np
from PIL import Image

from srlib.data.picture import Picture, from_channels, orientation_of, upright
from srlib.data.profiles import with_profile

_GREY, _PALETTE, _RGB8 = (0, 4), 3, b"\x08\x02"  # colour types; bits and colour type, as the header has them
_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # cHRM's white, red, green, blue; in 1/100000
_CICP_SRGB = b"\1\x0d\0\1"


class Header(NamedTuple):
    """What a PNG says before its pixels. simple: no transparent colour, orientation or animation.

    kind: bits and colour type, two bytes; chunks: those about colour, by name.
    """

    height: int
    width: int
    kind: bytes
    simple: bool
    chunks: dict[bytes, bytes]


def png_header(file: BinaryIO) -> Header | None:
    """Read the chunks' headers, not the pixels. None for every other file, and for one that is too large."""
    start = file.read(26)
    if start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR" or len(start) < 26:
        return None
    width, height = struct.unpack(">II", start[16:24])
    if width * height > 2 * (Image.MAX_IMAGE_PIXELS or 2**62):  # damaged, or a decompression bomb: Pillow's own limit
        return None
    simple, chunks = True, {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        simple &= kind not in (b"tRNS", b"eXIf", b"acTL")
        keep = kind in (b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"tEXt", b"zTXt", b"iTXt")
        content = file.read(length) if keep else b""
        if b"exif" in content[:40].lower() or b"xmp" in content[:40].lower():
            simple = False  # an orientation written as text
        elif keep and not kind.endswith(b"Xt"):
            chunks[kind] = content
        file.seek(4 if keep else length + 4, 1)
    return Header(height, width, start[24:26], simple, chunks)


def plain_png(path: Path | str, content: bytes) -> Picture | None:
    """8-bit RGB PNG, decoded in a third of Pillow's time; None for every other file, damaged ones included."""
    try:
        header = png_header(io.BytesIO(content))
        if header is None or not header.simple or header.kind != _RGB8:
            return None
        rgb = kornia_rs.io.decode_image_png_u8(content, header[:2], "rgb")
    except Exception:  # whatever is wrong, the caller's slower way names it
        return None
    return with_profile(Picture(rgb), _profile(header, path), path)


def read_png(path: Path | str, content: bytes) -> Picture:
    """Any PNG, upright: 1 to 16 bits, palette, transparent colours; of an animation the default picture.

    Raises whatever the decoders do when the file is damaged or cut short.
    """
    import imagecodecs

    header, orientation, pages = png_header(io.BytesIO(content)), 1, 1
    if header is None or not header.simple or header.kind[1] == _PALETTE:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            orientation, pages = orientation_of(image), getattr(image, "n_frames", 1)
            _check_palette(image)
    array = imagecodecs.png_decode(content)  # which notices a flipped bit, as Pillow does not
    array = upright(array[..., None] if array.ndim == 2 else array, orientation)
    return with_profile(from_channels(array, pages=pages), header and _profile(header, path), path)


def channels(image: Image.Image) -> np.ndarray:
    """(H, W, 1, 3 or 4) uint8 of a picture that Pillow has opened: grey, RGB, or RGB and alpha.

    Raises ValueError for other pixels than black and white, grey, of a palette, RGB or RGBA, and for colours that are
    not in the palette.
    """
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    if image.mode not in ("P", "RGB", "RGBA"):
        raise ValueError(f"pixels of the kind {image.mode}")
    _check_palette(image)
    return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))  # asarray cannot be written to


def _check_palette(image: Image.Image) -> None:
    """ValueError when a pixel's colour is not in the palette: decoders make it black."""
    if image.mode == "P" and 3 * (highest := int(np.asarray(image).max())) >= len(image.getpalette() or ()):
        raise ValueError(f"some pixels have the colour number {highest}, which its palette does not have")


def _profile(header: Header, path: Path | str) -> bytes | None:
    """The colour profile of a PNG: as it is there, or made of its gamma and primaries where they are not sRGB's.

    Of several ways of saying it the PNG specification prefers cICP, of which only sRGB's is understood, then
    iCCP, sRGB, gAMA and cHRM.
    """
    chunks = header.chunks
    if packed := chunks.get(b"iCCP"):
        try:
            return zlib.decompress(packed[packed.index(b"\0") + 2 :])
        except (ValueError, zlib.error):
            return packed  # no profile: whoever looks at it says that it is damaged
    if chunks.get(b"cICP", _CICP_SRGB) != _CICP_SRGB:
        warnings.warn(f"{path}: its colours are not sRGB, says its cICP, which is left out", stacklevel=2)
        return None
    if b"sRGB" in chunks or b"cICP" in chunks:
        return None
    try:
        (gamma,) = struct.unpack(">I", chunks.get(b"gAMA", struct.pack(">I", 45455)))
        points = struct.unpack(">8I", chunks.get(b"cHRM", struct.pack(">8I", *_SRGB)))
    except struct.error:
        return None
    grey = header.kind[1] in _GREY
    usual = grey or all(abs(one - other) <= 500 for one, other in zip(points, _SRGB, strict=True))
    if gamma == 0 or usual and abs(gamma - 45455) <= 1000:
        return None
    import imagecodecs

    white, *primaries = [(points[n] / 1e5, points[n + 1] / 1e5, 1.0) for n in (0, 2, 4, 6)]
    try:
        if grey:
            return imagecodecs.cms_profile("gray", gamma=1e5 / gamma)
        return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=sum(primaries, ()), gamma=1e5 / gamma)
    except Exception:  # primaries that are none
        return None


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
