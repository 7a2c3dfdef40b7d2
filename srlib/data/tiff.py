"""TIFF: what its tags say is checked against lists of what is read here; everything else is refused by name.

Read are unsigned integers of 1 to 16 bits, grey (either way round), palette, RGB, CMYK, and YCbCr within JPEG; together
or in planes, in strips or tiles; one channel of alpha; eleven compressions. Up to 8 bits become uint8, more uint16, so
that full scale is 255 or 65535. Decoded by tifffile.
"""

import io
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from srlib.data.picture import Picture, from_channels, upright
from srlib.data.profiles import from_cmyk, with_profile

if TYPE_CHECKING:
    from tifffile import TiffPage

# tags
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION = 256, 257, 258, 259, 262, 266, 274
_SAMPLES, _PLANAR, _PREDICTOR, _COLOURS, _INKS, _DOT_RANGE, _EXTRA, _FORMAT = 277, 284, 317, 320, 332, 336, 338, 339
_PROFILE, _DEPTH = 34675, 32997
_STRIPS = (273, 278, 279, 322, 323, 324, 325, 347)  # where the pixels are, and the tables of JPEG
_NEEDED = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _SAMPLES, _PLANAR, _EXTRA}
_NEEDED |= {_PREDICTOR, _COLOURS, _INKS, _DOT_RANGE, _FORMAT, _DEPTH, *_STRIPS}

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}  # without alpha
_NONE, _FAX, _JPEG, _WEBP = 1, (2, 3, 4), 7, 50001
_PACKED = (5, 8, 32946, 32773, 34925, 50000)  # LZW, Deflate (two numbers), PackBits, LZMA, Zstandard
_PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions before which differences may have been taken
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2  # alpha: unknown, colours multiplied by it, or not


_LOST = r"fromfile> raised.*TiffTag (\d+)"  # how tifffile says that it skips a tag


def is_tiff(content: bytes) -> bool:
    """Whether a file that begins so is a TIFF or a BigTIFF."""
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path | str, content: bytes) -> Picture:
    """The first page of a TIFF, upright, with its profile. Previews and masks are no pages.

    CMYK is converted to sRGB, colours that were multiplied by alpha are divided by it. A fourth channel that the file
    calls nothing (no ExtraSamples) is alpha, as OpenCV writes it.
    Raises ValueError naming the file and what about it is not handled, or that it is damaged.
    """
    with _opened(path, io.BytesIO(content)) as (page, pages):
        kind = _checked(page, path)
        _check_segments(page, content)
        array = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, H, W, channels)
        orientation, icc = page.tags.valueof(_ORIENTATION, 1), page.tags.valueof(_PROFILE)
        colours = page.tags.valueof(_COLOURS)
        bits = page.bitspersample
    array = np.moveaxis(array[:, 0], 0, 2).reshape(*array.shape[2:4], -1)  # (H, W, channels)
    samples, alpha = array[..., : _CHANNELS[kind]], array[..., _CHANNELS[kind] :]
    if kind == _PALETTE:
        samples, alpha = _coloured(samples[..., 0], colours, bits, path), _full_scale(alpha, bits)
    else:
        samples, alpha = _full_scale(samples, bits), _full_scale(alpha, bits)
    if kind == _WHITE_IS_ZERO:
        samples = np.iinfo(samples.dtype).max - samples
    if kind == _CMYK:
        samples, icc = from_cmyk(samples, icc, path), None
    if alpha.shape[2] and _extra(page) == _ASSOCIATED:
        samples = _divided(samples, alpha)
    picture = from_channels(upright(np.concatenate([samples, alpha], 2), orientation), pages=pages)
    return with_profile(picture, icc, path)


def tiff_size(path: Path | str, file: BinaryIO) -> tuple[int, int]:
    """(height, width) of the first page, upright, from its tags. ValueError when it has none."""
    with _opened(path, file) as (page, _):
        height, width = page.imagelength, page.imagewidth
        return (width, height) if page.tags.valueof(_ORIENTATION, 1) in (5, 6, 7, 8) else (height, width)


def tiff_pages(path: Path | str, file: BinaryIO) -> int:
    """How many pages the file holds, previews and masks apart. ValueError, as read_tiff."""
    with _opened(path, file) as (_, pages):
        return pages


@contextmanager
def _opened(path: Path | str, source: BinaryIO) -> Iterator[tuple["TiffPage", int]]:
    """The first page that is no preview and no mask, and how many such pages there are.

    Whatever a decoder raises on broken bytes becomes a ValueError that names the file.
    """
    import tifffile

    try:
        with _complaints() as complaints, tifffile.TiffFile(source) as file:
            page, pages = None, 0
            for one in _pages(file):
                if one.subfiletype & 0b101:
                    continue
                pages += 1
                if page is None:
                    page = one
                    if damaged := _NEEDED & {int(n) for text in complaints for n in re.findall(_LOST, text)}:
                        raise ValueError(f"its tag {min(damaged)} is damaged")
            if page is None:
                raise _refusal(path, "only a preview or a mask, as a camera's raw files do", "export it")
            if not (page.imagewidth > 0 and page.imagelength > 0):
                raise ValueError("it has no width or no height")
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
            if page.imagewidth * page.imagelength > limit:
                raise _Refused(f"{path} has more than {limit // 10**6} million pixels; cut it into parts")
            yield page, pages
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error


def _pages(file: Any) -> Iterator["TiffPage"]:
    """The pages up to the first that is damaged, if that is not the very first."""
    for number in range(len(file.pages)):
        try:
            page = file.pages[number]
        except Exception:
            if not number:
                raise
            return
        yield page


class _Refused(Exception):
    """A file whose kind is not handled: the message is the whole sentence."""


def _refusal(path: Path | str, what: str, remedy: str = "convert it to RGB with 8 or 16 bits") -> _Refused:
    return _Refused(f"{path} holds {what}, which is not read; {remedy}")


def _checked(page: "TiffPage", path: Path | str) -> int:
    """The photometric interpretation, one of _CHANNELS, when everything about the page is of a kind that is read."""
    tags = page.tags
    kind, bits, compression = tags.valueof(_PHOTOMETRIC), page.bitspersample, int(page.compression)
    if kind is None:
        raise _refusal(path, "no PhotometricInterpretation (what its numbers mean)")
    kind = int(kind)
    if kind not in _CHANNELS or kind == _YCBCR and compression != _JPEG:
        raise _refusal(path, f"colours of the kind {_name(page.photometric)}")
    if page.sampleformat != 1:
        raise _refusal(path, f"samples of the format {_name(page.sampleformat)}, {bits} bits", _SCALE)
    if not isinstance(bits, int):
        raise _refusal(path, f"channels of unequal bits {bits}")
    if not 1 <= bits <= 16:
        raise _refusal(path, f"{bits}-bit samples", _SCALE)
    if page.planarconfig not in (1, 2):
        raise _refusal(path, f"the planar configuration {page.planarconfig}")
    if tags.valueof(_DEPTH, 1) != 1:
        raise _refusal(path, "a volume (ImageDepth)", "save its slices one by one")
    extra = page.samplesperpixel - _CHANNELS[kind]
    if extra < 0:
        raise _refusal(path, f"{page.samplesperpixel} channels of the kind {_name(page.photometric)}")
    if extra > 1 or extra and _extra(page) not in (_ASSOCIATED, _UNASSOCIATED):
        names = ", ".join(_name(one) for one in page.extrasamples) or "unnamed"
        raise _refusal(path, f"more channels than colours ({names})", "leave out all but the transparency")
    if extra and _extra(page) == _ASSOCIATED and kind not in (_BLACK_IS_ZERO, _RGB):
        raise _refusal(path, f"premultiplied alpha with colours of the kind {_name(page.photometric)}")
    if kind == _PALETTE and bits > 8:
        raise _refusal(path, f"a palette of {bits} bits")
    if kind == _CMYK and (tags.valueof(_INKS, 1) != 1 or not _is_default(tags.valueof(_DOT_RANGE), bits)):
        raise _refusal(path, "inks other than CMYK, or in a part of their range (InkSet, DotRange)")
    if kind == _CMYK and bits != 8:
        raise _refusal(path, f"CMYK of {bits} bits", "convert it to 8 bits, or to RGB")
    _check_compression(page, kind, compression, bits, extra, path)
    return kind


_SCALE = "scale it to 8 or 16-bit unsigned integers"


def _check_compression(page: "TiffPage", kind: int, compression: int, bits: int, extra: int, path: Path | str) -> None:
    name = _name(page.compression)
    if compression not in (_NONE, *_FAX, _JPEG, _WEBP, *_PACKED):
        raise _refusal(path, f"the compression {name}", "save it with LZW or Deflate")
    fits = {_JPEG: bits == 8 and kind != _PALETTE and not extra, _WEBP: bits == 8 and kind == _RGB}
    fits |= dict.fromkeys(_FAX, bits == 1 and page.samplesperpixel == 1 and kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO))
    if not fits.get(compression, True):
        raise _refusal(path, f"{page.samplesperpixel} channels of {bits} bits in {name}", "save it with LZW or Deflate")
    predictor = int(page.predictor)
    if predictor == 1 or compression in (_JPEG, _WEBP):  # which ignore it
        return
    if predictor != 2 or compression not in _PREDICTED or bits not in (8, 16):
        raise _refusal(path, f"the predictor {_name(page.predictor)} of {bits} bits in {name}")


def _check_segments(page: "TiffPage", content: bytes) -> None:
    """ValueError when a strip or tile is missing or cut short: decoders fill with zeros what is not there."""
    offsets, counts, expected = page.dataoffsets, page.databytecounts, int(np.prod(page.chunked))
    if len(offsets) != expected or len(counts) != expected or not all(counts) or not all(offsets):
        raise ValueError(f"some of its {expected} strips or tiles are missing")
    end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    if page.is_contiguous:
        end = max(end, offsets[0] + page.nbytes)
    if end > len(content):
        raise ValueError(f"it is cut short: {len(content)} bytes of {end}")
    if page.compression == _JPEG:
        for offset, count in zip(offsets, counts, strict=True):
            if not content[offset : offset + count].rstrip(b"\0").endswith(b"\xff\xd9"):
                raise ValueError("one of its JPEG strips or tiles has no end")


def _extra(page: "TiffPage") -> int:
    """What the channel beside the colours is; without a word about it, alpha beside RGB."""
    if page.extrasamples:
        return int(page.extrasamples[0])
    return _UNASSOCIATED if page.photometric == _RGB else _UNSPECIFIED


def _is_default(dots: Any, bits: int) -> bool:
    return dots is None or tuple(dots) == (0, 2**bits - 1) * (len(dots) // 2)


def _full_scale(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits as uint8 or uint16, the greatest becoming 255 or 65535, rounded to nearest."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    top = 2**bits - 1
    if top == np.iinfo(dtype).max:
        return samples.astype(dtype, copy=False)
    scaled = (samples.astype(np.uint32) * np.iinfo(dtype).max * 2 + top) // (2 * top)
    return scaled.astype(dtype)


def _coloured(index: np.ndarray, colours: Any, bits: int, path: Path | str) -> np.ndarray:
    """(H, W) -> (H, W, 3) uint8 by the ColorMap, 16 bits a colour; if all are below 256, an old writer's 8 bits."""
    if colours is None or np.size(colours) != 3 * 2**bits:
        raise ValueError("its palette is missing or incomplete")
    table = np.asarray(colours, np.uint16).reshape(3, -1).T  # (2^bits, 3)
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)[index.astype(np.uint8)]


def _divided(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, divided by it; 0 where alpha is."""
    top, alpha = np.iinfo(samples.dtype).max, alpha.astype(np.uint64)
    colours = (samples.astype(np.uint64) * (2 * top) + alpha) // np.maximum(2 * alpha, 1)
    return np.where(alpha == 0, 0, np.minimum(colours, top)).astype(samples.dtype)


def _name(value: Any) -> str:
    return getattr(value, "name", str(value))


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile logs in this thread meanwhile, instead of printing it: it skips a tag that it cannot read."""
    texts, thread = [], threading.get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                texts.append(record.getMessage())

    logger, handler = logging.getLogger("tifffile"), Collect(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
