"""Colours mean the same after reading and writing: a profile is kept, or applied, or its loss is said."""

import io
import struct
import warnings
import zlib
from itertools import product

import numpy as np
import pytest
import tifffile
from icc import cmyk_profile, grey_profile, rgb_profile
from PIL import Image, ImageCms

from srlib.data.picture import Picture
from srlib.data.pictures import check_format, read_picture, write_picture, write_png
from srlib.data.profiles import to_srgb

SUFFIXES = [".png", ".tif", ".webp", ".jpg", ".jfif", ".jpe", ".bmp"]
KINDS = list(product(SUFFIXES, [False, True], [False, True], [np.uint8, np.uint16], [False, True]))


def ramp(dtype=np.uint8) -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    return (np.stack([x / 64, y / 48, (x + y) / 112], 2) * np.iinfo(dtype).max).astype(dtype)


def half_light(grey: bool, profile: bytes | None) -> Picture:
    return Picture(np.full((16, 16, 3), 128, np.uint8), None, grey, profile)


@pytest.mark.parametrize(("suffix", "grey", "alpha", "dtype", "profiled"), KINDS)
def test_every_format_keeps_the_picture_or_converts_its_colours_or_refuses(
    tmp_path, suffix, grey, alpha, dtype, profiled
):
    rgb = ramp(dtype)
    rgb = np.repeat(rgb[..., :1], 3, 2) if grey else rgb
    profile = (grey_profile() if grey else rgb_profile()) if profiled else None
    picture = Picture(rgb, rgb[..., 1].copy() if alpha else None, grey, profile)
    path = tmp_path / f"picture{suffix}"
    lossless, jpeg = suffix in (".png", ".tif"), suffix in (".jpg", ".jfif", ".jpe")
    if alpha and (jpeg or suffix == ".bmp") or dtype == np.uint16 and not lossless:
        for refuse in (check_format, write_picture):
            with pytest.raises(ValueError, match="cannot hold (transparency|16 bits); choose png"):
                refuse(path, picture)
        assert not list(tmp_path.iterdir())
        return
    write_picture(path, picture, quality=100)
    back = read_picture(path)
    kept = suffix != ".bmp" and not (suffix == ".webp" and grey)
    rare = suffix == ".tif" and alpha and dtype == np.uint16 and not profiled  # which few readers know as grey
    assert back.icc == (profile if kept else None) and back.grey == (grey and suffix != ".webp" and not rare)
    expected = picture if kept else to_srgb(picture)
    assert back.rgb.dtype == dtype and np.abs(back.rgb.astype(int) - expected.rgb).max() <= (4 if jpeg else 0)
    assert (back.alpha is not None) == alpha and (not alpha or np.array_equal(back.alpha, picture.alpha))


@pytest.mark.parametrize(("grey", "suffix"), [(False, ".bmp"), (True, ".bmp"), (True, ".webp")])
def test_what_cannot_hold_the_profile_gets_the_colours_converted(tmp_path, grey, suffix):
    write_picture(tmp_path / f"a{suffix}", half_light(grey, grey_profile() if grey else rgb_profile()), quality=100)
    assert (read_picture(tmp_path / f"a{suffix}").rgb == 188).all()  # half the light, in sRGB
    bent = b"".join((rgb_profile()[:16], b"GRAY", rgb_profile()[20:]))  # opens, but cannot be applied
    with pytest.raises(ValueError, match=f"b{suffix}: {suffix} cannot hold this profile, and .* choose png or tif"):
        check_format(tmp_path / f"b{suffix}", half_light(True, bent))


def test_16_bits_are_never_converted_in_8():
    deep = Picture(ramp(np.uint16), icc=rgb_profile())
    with pytest.raises(ValueError, match="16-bit colours cannot be converted"):
        to_srgb(deep)
    assert to_srgb(Picture(ramp(np.uint16))).icc is None


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("profile", ["its own", "none", "damaged", "for RGB"])
def test_cmyk_becomes_srgb_by_its_profile(tmp_path, suffix, profile):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    icc = {"its own": cmyk_profile(), "none": None, "for RGB": rgb_profile()}.get(profile, cmyk_profile()[:300])
    cyan.save(tmp_path / f"a.{suffix}", icc_profile=icc, quality=100)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        picture = read_picture(tmp_path / f"a.{suffix}")
    by_profile = ImageCms.profileToProfile(
        cyan, io.BytesIO(cmyk_profile()), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    expected = by_profile.getpixel((0, 0)) if profile == "its own" else (0, 255, 255)
    assert np.abs(picture.rgb.astype(int) - expected).max() <= 2 and picture.icc is None and not picture.grey
    assert [f"a.{suffix}" in str(w.message) and "approximate" in str(w.message) for w in said] == [True] * (
        profile != "its own"
    )
    if profile == "its own":
        assert picture.rgb[0, 0, 2] > 150 > 80 > picture.rgb[0, 0, 1]  # a dark blue, as the profile has it


def test_inverted_cmyk_of_photoshop_is_not_read_as_a_negative(tmp_path):
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "black.jpg", icc_profile=cmyk_profile())
    assert b"Adobe" in (tmp_path / "black.jpg").read_bytes()[:4000]
    assert read_picture(tmp_path / "black.jpg").rgb.max() < 8


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(
    ("icc", "word"),
    [(rgb_profile()[:200], "damaged"), (b"no profile", "damaged"), (cmyk_profile(), "for CMYK"), (None, "")],
)
def test_a_profile_that_cannot_be_kept_is_left_out_with_a_warning(tmp_path, suffix, icc, word):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp()).save(path, icc_profile=icc or grey_profile())
    with pytest.warns(UserWarning, match=f"a.{suffix}: its colour profile is .*{word or 'for grey'}"):
        picture = read_picture(path)
    assert picture.icc is None and picture.rgb.shape == (48, 64, 3)


def test_a_grey_picture_with_a_profile_for_rgb_says_so(tmp_path):
    Image.fromarray(ramp()[..., 0]).save(tmp_path / "a.jpg", icc_profile=rgb_profile())
    with pytest.warns(UserWarning, match="a.jpg: its colour profile is for RGB, the picture is grey"):
        assert read_picture(tmp_path / "a.jpg").icc is None


def test_a_profile_survives_16_bits_and_tiles(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(np.uint16), photometric="rgb", tile=(16, 16), iccprofile=rgb_profile(2.2))
    picture = read_picture(tmp_path / "a.tif")
    assert picture.icc == rgb_profile(2.2) and np.array_equal(picture.rgb, ramp(np.uint16))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_a_png_that_gives_its_gamma_keeps_it_as_a_profile(tmp_path, grey, deep):
    """Linear light: half of it is 188 in sRGB."""
    path, array = tmp_path / "a.png", np.full((16, 16) if grey else (16, 16, 3), 128, np.uint8)
    write_png(path, array * np.uint16(257) if deep else array)
    content = path.read_bytes()

    def with_chunks(*chunks: tuple[bytes, bytes]) -> Picture:
        made = b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        return read_picture(path, content[:33] + made + content[33:])

    linear, usual = (b"gAMA", struct.pack(">I", 100000)), (b"gAMA", struct.pack(">I", 45455))
    wide = (b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))  # Rec. 2020's
    picture = with_chunks(linear)
    assert picture.icc and picture.grey == grey
    if not deep:
        assert np.abs(to_srgb(picture).rgb.astype(int) - 188).max() <= 1
    assert with_chunks(usual).icc is None and with_chunks((b"sRGB", b"\0"), linear).icc is None
    assert bool(with_chunks(usual, wide).icc) == (not grey)
    assert with_chunks((b"cICP", b"\1\x0d\0\1"), linear).icc is None  # which says that it is sRGB
    with pytest.warns(UserWarning, match="a.png: its colours are not sRGB, says its cICP"):
        assert with_chunks((b"cICP", b"\x09\x10\0\1")).icc is None  # PQ
    for broken in ((b"gAMA", bytes(4)), (b"gAMA", b"\1"), (b"cHRM", bytes(32))):
        assert with_chunks(broken).rgb.shape == (16, 16, 3)
    write_picture(tmp_path / "b.png", picture)
    assert read_picture(tmp_path / "b.png").icc == picture.icc


def test_the_profile_within_a_bmp_is_read(tmp_path):
    icc, pixels = rgb_profile(), ramp()[:, :, ::-1].tobytes()  # 64 pixels a row, so that none is padded
    header = struct.pack("<IiiHHIIiiII", 124, 64, -48, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(icc), 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(pixels) + len(icc), 0, 0, 14 + 124)
    (tmp_path / "a.bmp").write_bytes(start + header + pixels + icc)
    picture = read_picture(tmp_path / "a.bmp")
    assert np.array_equal(picture.rgb, ramp()) and picture.icc == icc


@pytest.mark.parametrize("pixels", [50, 90])  # under and over what Pillow warns of; above twice that it refuses
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_png_keeps_its_profile(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    write_picture(tmp_path / "a.png", Picture(np.zeros((pixels // 10, 10, 3), np.uint8), icc=rgb_profile()))
    assert read_picture(tmp_path / "a.png").icc == rgb_profile()
