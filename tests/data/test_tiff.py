"""TIFF beyond pixels: pages, previews, orientation, damage, and what is refused with which remedy."""

import io
import struct

import numpy as np
import pytest
import tifffile
from icc import rgb_profile
from PIL import Image

from srlib.data.pictures import picture_size, read_picture


def ramp(height=48, width=64, dtype=np.uint8) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (np.stack([x / width, y / height, (x + y) / (width + height)], 2) * np.iinfo(dtype).max).astype(dtype)


def written(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "rgb" if array.ndim == 3 else "minisblack"} | options)
    return file.getvalue()


def changed(content: bytes, tag: int, value: int, item: int = 0) -> bytes:
    """The file with one value of a tag of its first page overwritten."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        entry, order = file.pages[0].tags[tag], file.byteorder
    kind = {3: "H", 4: "I", 16: "Q"}[int(entry.dtype)]
    edited = bytearray(content)
    struct.pack_into(order + kind, edited, entry.valueoffset + item * struct.calcsize(kind), value)
    return bytes(edited)


def test_the_first_page_is_read_and_the_others_are_counted(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number in range(3):
            file.write(ramp() // (number + 1), photometric="rgb", compression="lzw")
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.rgb, ramp()) and picture.pages == 3


def test_previews_and_masks_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(ramp()[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(ramp(), photometric="rgb")
        file.write(ramp()[..., 0] > 99, photometric="mask", subfiletype=4)
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.rgb, ramp()) and picture.pages == 1
    assert picture_size(tmp_path / "a.tif") == (48, 64)
    raw = written(ramp()[::4, ::4], subfiletype=1)
    with pytest.raises(ValueError, match="raw.tif holds only a preview or a mask.*; export it"):
        read_picture("raw.tif", raw)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_frames_are_counted_in_every_format(tmp_path, suffix, frames):
    pictures = [Image.fromarray(ramp() // (n + 1)) for n in range(frames)]
    kind = {"jpg": "MPO", "tif": "TIFF"}.get(suffix, suffix)  # MPO: a JPEG with previews behind it, as phones write
    pictures[0].save(tmp_path / f"a.{suffix}", kind, save_all=True, append_images=pictures[1:])
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.pages == (1 if suffix == "jpg" else frames) and picture.rgb.shape == (48, 64, 3)


@pytest.mark.parametrize("bits", ["8", "16"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_orientation_and_profile(tmp_path, orientation, bits):
    array = ramp(dtype=np.dtype(f"u{int(bits) // 8}"))
    content = written(array, iccprofile=rgb_profile(), extratags=[(274, 3, 1, orientation, True)])
    (tmp_path / "a.tif").write_bytes(content)
    turned = {2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.swapaxes(0, 1)}
    turned |= {6: np.rot90(array, -1), 7: np.rot90(array, -1)[:, ::-1][::-1, ::-1], 8: np.rot90(array)}
    picture = read_picture(tmp_path / "a.tif")
    if orientation == 7:
        assert np.array_equal(picture.rgb, array[::-1, ::-1].swapaxes(0, 1))
    else:
        assert np.array_equal(picture.rgb, turned.get(orientation, array))
    assert picture.icc == rgb_profile() and picture_size(tmp_path / "a.tif") == picture.rgb.shape[:2]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "lzma", "zstd", "jpeg", "webp"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_what_is_cut_or_missing_is_refused_rather_than_filled_with_zeros(compression, tile):
    content = written(ramp(), compression=compression, tile=tile, rowsperstrip=None if tile else 16)
    whole = read_picture("a.tif", content).rgb
    for size in {*range(0, len(content), len(content) // 40), *range(len(content) - 10, len(content))}:
        try:
            assert np.array_equal(read_picture("a.tif", content[:size]).rgb, whole)
        except ValueError as error:
            assert str(error).startswith("a.tif ") and "remove it" in str(error)
    offsets, counts = (324, 325) if tile else (273, 279)
    for tag, value in ((offsets, 0), (counts, 0), (counts, 5), (offsets, 2**30)):
        with pytest.raises(ValueError, match="a.tif cannot be read .*; copy it again or remove it"):
            read_picture("a.tif", changed(content, tag, value, item=1))


@pytest.mark.parametrize("tag", [256, 258, 259, 262, 273, 277, 284, 338])
def test_a_damaged_tag_is_never_taken_for_a_missing_one(tag, caplog):
    content = bytearray(written(np.dstack([ramp()] * 2)[..., :4], extrasamples=["assocalpha"], compression="lzw"))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        entry = file.pages[0].tags[tag]
    content[entry.offset + 2 : entry.offset + 4] = b"\xff\xff"  # a type that does not exist
    with pytest.raises(ValueError, match="^a.tif (cannot be read .*copy it again or remove it|holds )"):
        read_picture("a.tif", bytes(content))


def test_a_chain_of_pages_that_loops_or_breaks_ends():
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        for _ in range(2):
            writer.write(ramp(), photometric="rgb", metadata=None)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as read:
        first, second = (page.offset for page in read.pages)
    content = bytearray(file.getvalue())
    (tags,) = struct.unpack_from("<H", content, second)
    for target in (first, second, len(content) + 100, 3):
        struct.pack_into("<I", content, second + 2 + 12 * tags, target)
        picture = read_picture("a.tif", bytes(content))
        assert np.array_equal(picture.rgb, ramp()) and picture.pages >= 2


def test_too_large_a_page_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="a.tif has more than 0 million pixels; cut it into parts"):
        read_picture("a.tif", written(ramp()))


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (
            ramp().astype(np.float32),
            {},
            "samples of the format IEEEFP, 32 bits, which is not read; scale it to 8 or 16",
        ),
        (ramp().astype(np.int16), {}, "samples of the format INT, 16 bits, which is not read; scale it"),
        (ramp().astype(np.uint32), {}, "32-bit samples, which is not read; scale it"),
        (ramp(), {"compression": "jpegxl"}, "the compression JPEGXL, which is not read; save it with LZW or Deflate"),
        (np.dstack([ramp()] * 2), {}, r"more channels than colours \(UNSPECIFIED, .*; leave out all but the transp"),
        (ramp()[..., 0], {"photometric": "cfa"}, "colours of the kind CFA, which is not read; convert it to RGB"),
        (
            np.zeros((16, 16, 16), np.uint8),
            {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
            r"a volume .*; save its slices",
        ),
    ],
)
def test_what_is_not_read_is_named_with_its_remedy(array, options, words):
    with pytest.raises(ValueError, match=f"^a.tif holds {words}"):
        read_picture("a.tif", written(array, **options))


@pytest.mark.parametrize(("tag", "value", "words"), [(332, 2, "inks other than CMYK"), (336, 255, "inks other")])
def test_other_inks_are_no_cmyk(tag, value, words):
    content = written(
        np.dstack([ramp()] * 2)[..., :4], photometric="separated", extratags=[(tag, 3, 2, (value, 0), True)]
    )
    with pytest.raises(ValueError, match=f"^a.tif holds {words}"):
        read_picture("a.tif", content)


def test_colours_multiplied_by_alpha_are_divided_and_old_palettes_have_8_bits():
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (16, 16, 1))
    colours = rng.integers(0, 256, (16, 16, 3))
    stored = np.dstack([np.round(colours * alpha / 255), alpha]).astype(np.uint8)
    picture = read_picture("a.tif", written(stored, extrasamples=["assocalpha"]))
    assert np.array_equal(picture.alpha, alpha[..., 0]) and (picture.rgb[alpha[..., 0] == 0] == 0).all()
    again = np.round(picture.rgb * (alpha / 255))
    assert np.abs(again - stored[..., :3]).max() <= 1
    index, table = rng.integers(0, 256, (16, 16), dtype=np.uint8), rng.integers(0, 256, (3, 256), dtype=np.uint16)
    for factor in (1, 256, 257):
        picture = read_picture("a.tif", written(index, photometric="palette", colormap=table * np.uint16(factor)))
        assert np.array_equal(picture.rgb, table.T[index])


def test_ycbcr_within_jpeg_and_rgb_within_jpeg_are_read_alike():
    planes = np.asarray(Image.fromarray(ramp()).convert("YCbCr"))  # tifffile takes what is to be stored
    best = {"compression": "jpeg", "compressionargs": {"level": 95}}
    for content in (
        written(ramp(), **best),
        *(written(planes, photometric="ycbcr", subsampling=one, **best) for one in ((1, 1), (2, 1), (2, 2))),
    ):
        picture = read_picture("a.tif", content)
        assert np.abs(picture.rgb.astype(int) - ramp()).max() < 12 and not picture.grey
