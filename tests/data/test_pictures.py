"""Whatever people have is read or refused with a sentence."""

import contextlib
import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from srlib.data.pictures import picture_size, read_picture, to_float, to_integers, write_png


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_round_trip(dtype, tmp_path):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (9, 7, 3), endpoint=True, dtype=dtype)
    assert np.array_equal(to_integers(to_float(array), dtype), array)
    write_png(tmp_path / "a.png", array)
    assert np.array_equal(read_picture(tmp_path / "a.png").rgb, array)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_alpha_grey_palette_and_16_bits(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 65535, (6, 5, 4), dtype=np.uint16)
    write_png(tmp_path / "rgba16.png", rgba)
    picture = read_picture(tmp_path / "rgba16.png")
    assert np.array_equal(picture.rgb, rgba[..., :3]) and np.array_equal(picture.alpha, rgba[..., 3])
    grey = rng.integers(0, 65535, (6, 5), dtype=np.uint16)
    write_png(tmp_path / "grey16.png", grey)
    picture = read_picture(tmp_path / "grey16.png")
    assert picture.grey and picture.rgb.dtype == np.uint16 and np.array_equal(picture.rgb[..., 1], grey)
    rgb = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
    image = Image.fromarray(rgb)
    palette = image.quantize(8)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_picture(tmp_path / "palette.png").rgb, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "clear.png", transparency=0)
    assert read_picture(tmp_path / "clear.png").alpha.min() == 0
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert read_picture(tmp_path / "cmyk.tif").rgb.shape == (6, 5, 3)
    image.convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_picture(tmp_path / "bits.png").rgb)) <= {0, 255}
    for suffix in ("webp", "bmp", "tif"):
        image.save(tmp_path / f"x.{suffix}", lossless=True)
        assert np.array_equal(read_picture(tmp_path / f"x.{suffix}").rgb, rgb)


def test_16_bits_stay_16_bits_in_every_form(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65535, (6, 5, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "rgb.tif"), deep[..., ::-1])  # Pillow reads this as 8 bits
    assert np.array_equal(read_picture(tmp_path / "rgb.tif").rgb, deep)
    grey = deep[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    picture = read_picture(tmp_path / "grey.tif")
    assert picture.grey and np.array_equal(picture.rgb[..., 2], grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "side.tif", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "side.tif").rgb[..., 0], np.rot90(grey, -1))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 5, 6, 16, 4, 0, 0, 0)  # grey with alpha, which no library here writes
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep[..., :2])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "la.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    picture = read_picture(tmp_path / "la.png")
    assert picture.grey and np.array_equal(picture.rgb[..., 0], grey) and np.array_equal(picture.alpha, deep[..., 1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_exif_orientation_is_applied(orientation, deep, tmp_path):
    from PIL import ImageOps

    array = np.arange(30, dtype=np.uint16).reshape(6, 5) * 257
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = Image.fromarray((array >> 8).astype(np.uint8))
    small.save(tmp_path / "8.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "8.png")))
    if deep:
        Image.fromarray(array).save(tmp_path / "16.png", exif=exif)
        assert np.array_equal(read_picture(tmp_path / "16.png").rgb[..., 0] >> 8, expected)
    else:
        assert np.array_equal(read_picture(tmp_path / "8.png").rgb[..., 0], expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_truncated_and_foreign_files_are_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=f"cut.{suffix} .*remove it"):
        read_picture(path)
    path.write_text("not found")
    with pytest.raises(ValueError, match=f"cut.{suffix} is not a picture"):
        read_picture(path)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("suffix", "deep"),
    [("png", False), ("jpg", False), ("webp", False), ("tif", False), ("bmp", False), ("png", True), ("tif", True)],
)
def test_wherever_a_file_is_cut_it_is_whole_or_refused(suffix, deep, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    smooth = np.add.outer(np.arange(40), np.arange(30))[..., None] * np.array([1, 2, 3])
    if deep:
        cv2.imwrite(str(path), (smooth * 200).astype(np.uint16))
    else:
        Image.fromarray(smooth.astype(np.uint8)).save(path)
    whole, content = read_picture(path).rgb, path.read_bytes()
    for size in {*range(0, len(content), max(1, len(content) // 40)), *range(len(content) - 20, len(content))}:
        path.write_bytes(content[:size])
        try:
            assert np.array_equal(read_picture(path).rgb, whole)  # only what comes after the pixels was cut
        except ValueError as error:
            assert "cut." in str(error)


def test_too_large_a_picture_is_told_to_be_cut(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="vast.png has more than 0 million pixels; cut it into parts"):
        read_picture(tmp_path / "vast.png")


def test_deep_truncated_png_is_refused(tmp_path):
    path = tmp_path / "deep.png"
    write_png(path, np.random.default_rng(0).integers(0, 65535, (64, 64, 3), dtype=np.uint16))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match="deep.png"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_is_that_of_the_upright_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((20, 31, 3), np.uint8)).save(path, **({} if suffix == ".bmp" else {"exif": exif}))
    assert picture_size(path) == read_picture(path).rgb.shape[:2]
    assert picture_size(path) == ((31, 20) if orientation == 6 and suffix != ".bmp" else (20, 31))


def test_the_size_comes_from_the_header_alone(tmp_path):
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 65, 3), dtype=np.uint8))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    assert picture_size(tmp_path / "a.png") == (64, 65)
    huge = bytearray((tmp_path / "a.png").read_bytes())
    huge[16:24] = struct.pack(">II", 2**20, 2**20)  # a damaged header must not make anybody plan for it
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(ValueError, match="huge.png"):
        picture_size(tmp_path / "huge.png")
    (tmp_path / "b.png").write_text("404")
    with pytest.raises(ValueError, match="b.png"):
        picture_size(tmp_path / "b.png")


@pytest.mark.parametrize("key", ["Raw profile type exif", "XML:com.adobe.xmp"])
def test_an_orientation_written_as_text_is_applied(tmp_path, key):
    from PIL.PngImagePlugin import PngInfo

    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    text = {
        "Raw profile type exif": f"\nexif\n{len(raw):8}\n{raw.hex()}\n",
        "XML:com.adobe.xmp": '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF>'
        "</x:xmpmeta>",
    }
    info = PngInfo()
    info.add_itxt(key, text[key]) if "xmp" in key else info.add_text(key, text[key])
    Image.fromarray(np.zeros((20, 31, 3), np.uint8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_picture(tmp_path / "a.png").rgb.shape == (31, 20, 3) and picture_size(tmp_path / "a.png") == (31, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_a_flipped_bit_is_noticed(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 256, (64, 65, 3), dtype=np.uint8)
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 99) if mode == "I;16" else Image.fromarray(noise)
    (image.quantize(64) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) * 3 // 4] ^= 4
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png cannot be read"):
        read_picture(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")
def test_whatever_bytes_are_damaged_there_is_a_picture_or_a_sentence(tmp_path):
    rng, files = np.random.default_rng(0), []
    picture = Image.fromarray(np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8))
    for kind, mode in itertools.product(("PNG", "JPEG", "WEBP", "BMP", "TIFF"), ("1", "P", "RGB")):
        with contextlib.suppress(OSError):  # JPEG has no palette
            picture.convert(mode).save(file := io.BytesIO(), kind)
            files.append(file.getvalue())
    for number in range(600):
        content = bytearray(files[number % len(files)])
        for place in rng.integers(0, min(len(content), 400), 3):
            content[place] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):
            assert read_picture("a", bytes(content)).rgb.shape[2] == 3


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_colour_that_the_palette_lacks_is_no_black(tmp_path, suffix):
    index = Image.new("P", (9, 7), 5)
    index.putpalette(list(range(18)))
    index.save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert (read_picture(tmp_path / f"a.{suffix}").rgb == [15, 16, 17]).all()
    if suffix == "png":
        start, (size,) = content.index(b"PLTE") - 4, struct.unpack_from(">I", content, content.index(b"PLTE") - 4)
        body = b"PLTE" + content[start + 8 : start + 8 + 12]  # four colours are left
        content = (
            content[:start]
            + struct.pack(">I", 12)
            + body
            + struct.pack(">I", zlib.crc32(body))
            + (content[start + 12 + size :])
        )
    else:  # 256 colours are written, of which the header now says that there are four
        content = content[:46] + struct.pack("<I", 4) + content[50:]
    with pytest.raises(ValueError, match="b cannot be read .some pixels have the colour number 5, which its palette"):
        read_picture("b", content)


def test_other_formats_are_named(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png", "GIF")
    for look in (read_picture, picture_size):
        with pytest.raises(ValueError, match="a.png is a picture of the format GIF, which is not read; save it as PNG"):
            look(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_damaged_tags_are_no_reason_to_refuse_a_picture(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0  # XResolution, a ratio: written as text below
    content = (
        exif.tobytes()
        .replace(b"\x1a\x01\x05\x00", b"\x1a\x01\x02\x00")
        .replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02")
    )
    assert content != exif.tobytes()
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=content, **({} if suffix == "png" else {"quality": 95}))
    assert read_picture(tmp_path / f"a.{suffix}").rgb.shape == (13, 9, 3)
    assert picture_size(tmp_path / f"a.{suffix}") == (13, 9)
    broken = b"Exif\0\0" + bytes(range(40))
    Image.fromarray(pixels).save(tmp_path / f"b.{suffix}", exif=broken)
    assert read_picture(tmp_path / f"b.{suffix}").rgb.shape == (9, 13, 3)
