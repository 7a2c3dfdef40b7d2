"""Every kind of picture file that can be written here is read back as it was written, or refused by name.

TIFF and PNG are also written by hand, from the specifications, for what no library writes: odd bits, bit order, planes.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from srlib.data.pictures import picture_size, read_picture

pytestmark = pytest.mark.filterwarnings("ignore:.*colours are approximate")  # CMYK without a profile
HEIGHT, WIDTH = 37, 21


class Tally:
    """Reads files back; counts what was equal and, by reason, what was refused."""

    def __init__(self, folder) -> None:
        self.folder, self.equal, self.refused = folder, 0, Counter()

    def check(self, name: str, content: bytes, rgb, alpha=None, *, tolerance=0, must: bool = False, grey=None) -> None:
        """rgb: (H, W) or (H, W, 3), alpha: (H, W) or None, as expected; must: being refused is a fault, too."""
        path = self.folder / name.replace("/", "-").replace(" ", "_")
        path.write_bytes(content)
        try:
            picture = read_picture(path)
        except ValueError as error:
            start, _, rest = str(error).partition(" holds ")
            assert start == str(path) and ", which is not read; " in rest, f"{name}: {error}"
            assert not must, f"{name}: {error}"
            self.refused[rest.split(", which")[0]] += 1
            return
        assert picture_size(path) == picture.rgb.shape[:2] == rgb.shape[:2], name
        expected = np.repeat(rgb[..., None], 3, 2) if rgb.ndim == 2 else rgb
        assert picture.rgb.dtype == expected.dtype and picture.rgb.flags.writeable, name
        assert picture.rgb.flags.c_contiguous, name
        assert np.abs(picture.rgb.astype(int) - expected).max() <= tolerance, name
        assert (picture.alpha is None) == (alpha is None), name
        assert alpha is None or np.array_equal(picture.alpha, alpha), name
        assert grey is None or picture.grey == grey, name
        self.equal += 1

    def say(self, title: str, equal: int, refused: int) -> None:
        """Print the counts, of which there must be at least so many."""
        print(f"{title}: {self.equal} equal, {sum(self.refused.values())} refused by name: {dict(self.refused)}")
        assert self.equal >= equal and sum(self.refused.values()) >= refused


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits at full scale: of up to 8 bits in uint8, of more in uint16."""
    top, dtype = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    return np.floor(values * top / (2**bits - 1) + 0.5).astype(dtype)


def packed(rows: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """(H, n) -> H rows of bytes: whole bytes in this order, other bits one after the other, the greatest first."""
    if bits in (8, 16, 32):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    planes = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in planes]


def tiff(array: np.ndarray, bits: int, photometric: int, *, order="<", planar=1, fill=1, rows=16, **more) -> bytes:
    """(H, W, samples) as an uncompressed TIFF. more: further tags, as _<number>=(type, values)."""
    height, width, samples = array.shape
    strips = []
    for plane in [array] if planar == 1 else [array[..., n : n + 1] for n in range(samples)]:
        lines = packed(plane.reshape(height, -1), bits, order)
        strips += [b"".join(lines[top : top + rows]) for top in range(0, height, rows)]
    if fill == 2:
        strips = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) for strip in strips]
    counts = [len(strip) for strip in strips]
    tags = {256: ("H", [width]), 257: ("H", [height]), 258: ("H", [bits] * samples), 259: ("H", [1])}
    tags |= {262: ("H", [photometric]), 266: ("H", [fill]), 277: ("H", [samples]), 278: ("H", [rows])}
    tags |= {273: ("I", list(8 + np.cumsum([0, *counts[:-1]]))), 279: ("I", counts), 284: ("H", [planar])}
    tags |= {int(name[1:]): value for name, value in more.items()}
    entries, beyond, start = b"", b"", 8 + sum(counts) + sum(counts) % 2
    end = start + 2 + 12 * len(tags) + 4
    for number, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{kind}", *map(int, values))
        entries += struct.pack(f"{order}HHI", number, {"H": 3, "I": 4}[kind], len(values))
        entries += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(f"{order}I", end + len(beyond))
        beyond += content if len(content) > 4 else b""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    body = b"".join(strips).ljust(start - 8, b"\0")
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """As Pillow turns a picture with this orientation upright, in any depth."""
    index = np.arange(array.shape[0] * array.shape[1], dtype=np.int32).reshape(array.shape[:2])
    image = Image.fromarray(index)
    image.getexif()[0x0112] = orientation
    return array.reshape(-1, *array.shape[2:])[np.asarray(ImageOps.exif_transpose(image))]


def without_profile(ink: np.ndarray) -> np.ndarray:
    """(H, W, 4) of 8 bits -> (H, W, 3), as Pillow converts CMYK."""
    return np.asarray(Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.astype(np.uint8).tobytes()).convert("RGB"))


CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 32803: 1, 34892: 3}
EXTRAS = {"no more": [], "alpha": [2], "premultiplied": [1], "unspecified": [0], "two": [2, 0], "unnamed": None}


def test_tiff_of_all_bits_and_kinds(tmp_path, capsys):
    tally, rng = Tally(tmp_path), np.random.default_rng(0)
    table = rng.integers(0, 256, (3, 256)) * 257
    cases = list(product(CHANNELS, [*range(1, 17), 24, 32], EXTRAS, (1, 2)))
    for number, (kind, bits, extra, planar) in enumerate(cases):
        if bits not in (1, 4, 8, 10, 12, 14, 16) and (number % 2 or kind > 6) or number % 3 and extra == "two":
            continue
        orientation, order, fill = number % 8 + 1, "<>"[number // 3 % 2], 1 + number // 5 % 2
        more = [2] if EXTRAS[extra] is None else EXTRAS[extra]
        array = rng.integers(0, 2**bits, (HEIGHT, WIDTH, CHANNELS[kind] + len(more)), dtype=np.uint32)
        alpha = array[..., -1]
        if extra == "premultiplied":
            array[..., :-1] = np.minimum(array[..., :-1], alpha[..., None])
        tags = {"_274": ("H", [orientation])}
        if kind == 3:
            tags["_320"] = ("H", table[:, : 2 ** min(bits, 8)].reshape(-1))
        if EXTRAS[extra]:
            tags["_338"] = ("H", EXTRAS[extra])
        content = tiff(array, bits, kind, order=order, planar=planar, fill=fill, rows=1 + number % 40, **tags)
        colours = array[..., : CHANNELS[kind]]
        named = extra in ("no more", "alpha") or extra == "unnamed" and kind == 2
        must = kind in (0, 1, 2) and bits <= 16 and named or kind == 3 and bits <= 8 and named
        must |= kind in (1, 2) and bits <= 16 and extra == "premultiplied" or kind == 5 and bits == 8 and named
        if kind == 0:
            colours = 2 ** min(bits, 31) - 1 - colours.astype(int)
        if kind == 3 and bits <= 8:
            rgb = (table.T >> 8).astype(np.uint8)[colours[..., 0]]
        elif kind == 5 and bits == 8:
            rgb = without_profile(colours)
        elif extra == "premultiplied" and bits <= 16:
            light, cover = (scaled(values, bits).astype(float) for values in (colours, alpha))
            top = 255 if bits <= 8 else 65535
            light = np.where(cover[..., None] > 0, light * top / np.maximum(cover, 1)[..., None], 0)
            rgb = np.floor(light + 0.5).astype(np.uint8 if bits <= 8 else np.uint16)
        else:
            rgb = scaled(colours, min(bits, 16)) if bits <= 16 else colours.astype(np.uint16)
        rgb = turned(rgb[..., 0] if rgb.shape[2] == 1 else rgb, orientation)
        alpha = turned(scaled(alpha, bits), orientation) if more and bits <= 16 else None
        name = f"{kind} {bits} bits {extra} planar {planar} {'le' if order == '<' else 'be'} fill {fill}.tif"
        tally.check(name, content, rgb, alpha, must=must, grey=kind in (0, 1))
    with capsys.disabled():
        tally.say("\nTIFF by hand", 230, 700)


TIFFFILE = {
    "none": None,
    "lzw": "lzw",
    "deflate": "zlib",
    "old deflate": 32946,
    "packbits": "packbits",
    "lzma": "lzma",
    "zstd": "zstd",
    "jpeg": "jpeg",
    "webp": "webp",
    "jpeg 2000": "jpeg2000",
    "jpeg xl": "jpegxl",
    "jpeg xr": "jpegxr",
    "png": "png",
    "lerc": "lerc",
    "pixarlog": "pixarlog",
}


def _by_tifffile() -> Iterator[tuple[str, np.dtype, str, str, str | None, dict, bool]]:
    kinds = [("minisblack", 1), ("miniswhite", 1), ("rgb", 3), ("separated", 4), ("rgb", 4), ("minisblack", 2)]
    dtypes = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.float16, np.float32, np.float64]
    for compression, dtype, (kind, samples) in product(TIFFFILE, dtypes, kinds):
        for planar, tiled, predicted in product(("contig", "separate"), (False, True), (False, True)):
            if samples == 1 and planar == "separate" or predicted and compression not in ("lzw", "zstd", "deflate"):
                continue
            yield compression, np.dtype(dtype), kind, samples, planar, tiled, predicted


def test_tiff_of_all_compressions(tmp_path, capsys):
    tally, rng, unwritten = Tally(tmp_path), np.random.default_rng(0), 0
    packers = ("none", "lzw", "deflate", "old deflate", "packbits", "lzma", "zstd")
    for number, (compression, dtype, kind, samples, planar, tiled, predicted) in enumerate(_by_tifffile()):
        whole = dtype.kind in "ui"
        smooth = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2)[..., None] + np.arange(samples) * 20
        array = smooth.astype(dtype) if compression == "jpeg" else rng.integers(0, 127, smooth.shape).astype(dtype)
        array = array * dtype.type(257) if dtype == np.uint16 else array
        alpha = array[..., -1] if (kind, samples) in (("rgb", 4), ("minisblack", 2)) else None
        stored = np.moveaxis(array, 2, 0) if planar == "separate" else array
        file = io.BytesIO()
        try:
            tifffile.imwrite(
                file,
                stored[..., 0] if samples == 1 else stored,
                photometric=kind,
                planarconfig=None if samples == 1 else planar,
                extrasamples=None if alpha is None else ["unassalpha"],
                compression=TIFFFILE[compression],
                predictor=predicted,
                tile=(16, 32) if tiled else None,
                rowsperstrip=None if tiled else 10,
                byteorder="<>"[number % 2],
                bigtiff=number % 3 == 0,
            )
        except Exception:  # the writer's own limits
            unwritten += 1
            continue
        fits = whole and dtype.kind == "u" and (dtype.itemsize <= 2 if kind != "separated" else dtype.itemsize == 1)
        must = fits and (compression in packers or compression == "jpeg" and dtype == np.uint8 and alpha is None)
        colours = array if alpha is None else array[..., :-1]
        if kind == "separated" and dtype == np.uint8:
            colours = without_profile(array)
        if kind == "miniswhite" and fits:
            colours = np.iinfo(dtype).max - colours
        colours = colours[..., 0] if colours.shape[2] == 1 else colours
        name = f"{compression} {dtype} {kind} {samples} {planar} {tiled} {predicted}.tif"
        tally.check(name, file.getvalue(), colours, alpha, must=must, tolerance=20 if compression == "jpeg" else 0)
    with capsys.disabled():
        tally.say(f"\nTIFF by tifffile ({unwritten} not written)", 350, 1000)


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F", "I;16")
PILLOW = ("raw", "tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg")
PILLOW += ("webp", "zstd", "lzma", "tiff_thunderscan", "tiff_raw_16", "tiff_sgilog", "jbig")


def drawn(mode: str) -> Image.Image:
    """A smooth picture of the mode."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([x * 8, y * 6, (x + y) * 3], 2).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode in ("I", "F", "I;16"):
        return Image.fromarray((x * 800).astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    if mode in ("P", "PA"):
        image = image.quantize(16).convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    if mode in ("RGBA", "LA", "PA"):
        image.putalpha(Image.fromarray((y * 6).astype(np.uint8)))
    return image.convert(mode)


def meant(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB or 16-bit grey, and alpha, as they are to be read."""
    if image.mode == "I;16":
        return np.asarray(image), None
    if image.mode in ("I", "F", "LAB"):
        return np.zeros((HEIGHT, WIDTH, 3), np.uint8), None
    if image.has_transparency_data:
        both = np.asarray(image.convert("RGBA"))
        return both[..., :3], both[..., 3]
    return np.asarray(image.convert("RGB")), None


@pytest.mark.parametrize(
    ("suffix", "equal", "refused"),
    [("tif", 60, 30), ("png", 7, 0), ("webp", 20, 0), ("jpg", 15, 0), ("bmp", 5, 0)],
)
def test_what_pillow_writes(tmp_path, capsys, suffix, equal, refused):
    tally = Tally(tmp_path)
    ways = [{"compression": one} for one in PILLOW] if suffix == "tif" else [{}]
    ways = [{"lossless": True, "exact": True}, {"quality": 95}] if suffix == "webp" else ways
    ways += [{"progressive": True}, {"quality": 100, "subsampling": 0}] if suffix == "jpg" else []
    for mode, way in product(MODES, ways):
        image = drawn(mode)
        if suffix == "webp" and mode in ("LAB", "I", "F", "I;16"):  # which are converted before they are written
            continue
        try:
            image.save(file := io.BytesIO(), {"tif": "TIFF", "jpg": "JPEG"}.get(suffix, suffix), **way)
        except Exception:  # a mode that the format, or the compression, does not have
            continue
        rgb, alpha = meant(image)
        alpha = None if suffix == "bmp" else alpha  # by its specification the fourth byte means nothing
        lossy = suffix == "jpg" or "quality" in way or way.get("compression") in ("jpeg", "webp")
        must = mode in ("1", "L", "P", "RGB") and (suffix != "tif" or way["compression"] in PILLOW[:6])
        name = f"{mode} {way.get('compression', way)}.{suffix}"
        tolerance = 0 if not lossy else 48 if mode in ("1", "P", "PA") else 32
        tally.check(name.replace(";", "_"), file.getvalue(), rgb, alpha, tolerance=tolerance, must=must)
    with capsys.disabled():
        tally.say(f"\n{suffix} by Pillow", equal, refused)


def png(array: np.ndarray, bits: int, kind: int, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """(H, W, samples) as a PNG of this colour type, with these chunks before the pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [array[y::dy, x::dx] for y, x, dy, dx in steps] if interlaced else [array]
    rows = [b"\0" + row for part in parts if part.size for row in packed(part.reshape(len(part), -1), bits)]
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, kind, 0, 0, interlaced)
    chunks = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def test_png_of_all_colour_types_bits_and_transparent_colours(tmp_path, capsys):
    tally, rng = Tally(tmp_path), np.random.default_rng(0)
    kinds = [(0, bits) for bits in (1, 2, 4, 8, 16)] + [(3, bits) for bits in (1, 2, 4, 8)]
    kinds += [(kind, bits) for kind in (2, 4, 6) for bits in (8, 16)]
    gamma, turn = (
        (b"gAMA", struct.pack(">I", 100000)),
        (b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    )
    for (kind, bits), clear, interlaced, extra in product(kinds, (False, True), (False, True), (None, gamma, turn)):
        if clear and kind in (4, 6):
            continue
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
        array = rng.integers(0, 2**bits, (HEIGHT, WIDTH, samples))
        table = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8) if kind == 3 else None
        chunks = [extra] if extra else []
        chunks += [(b"PLTE", table.tobytes())] if kind == 3 else []
        colours = array[..., : samples - 1 if kind in (4, 6) else samples]
        alpha = scaled(array[..., -1], bits) if kind in (4, 6) else None
        rgb = table[colours[..., 0]] if kind == 3 else scaled(colours, bits)
        if clear and kind == 3:  # for the first entries alone
            chunks.append((b"tRNS", bytes([7, 99][: 2**bits - 1])))
            alpha = np.array([7, 99, *[255] * 254][: 2**bits - 1] + [255], np.uint8)[array[..., 0]]
        elif clear:
            chunks.append((b"tRNS", b"".join(struct.pack(">H", value) for value in array[5, 5])))
            alpha = np.where((array == array[5, 5]).all(2), 0, np.iinfo(rgb.dtype).max).astype(rgb.dtype)
        rgb = rgb[..., 0] if rgb.shape[2] == 1 else rgb
        if extra == turn:
            rgb, alpha = turned(rgb, 6), None if alpha is None else turned(alpha, 6)
        name = f"{kind} {bits} {clear} {interlaced} {extra[0].decode() if extra else ''}.png"
        content = png(array, bits, kind, *chunks, interlaced=interlaced)
        tally.check(name, content, rgb, alpha, must=True, grey=kind in (0, 4))
    with capsys.disabled():
        tally.say("\nPNG by hand", 140, 0)
