"""Linear light comes back as written, in RGB order, or is refused with a sentence; the formulas and their inverses."""

import builtins
import math

import cv2
import numpy as np
import pytest

from srlib.data.hdr import PEAK, SUFFIXES, ldr_of, linearised, log_mapped, log_unmapped, read_gain, read_hdr


def light(height=6, width=5, dtype=np.float32):
    """(H, W, 3) in [0, PEAK), every channel another: swapped ones show."""
    return (np.random.default_rng(0).random((height, width, 3)) * [PEAK, 100, 10]).astype(dtype)


def write_exr(path, channels, **header):
    OpenEXR = pytest.importorskip("OpenEXR")
    OpenEXR.File(header, channels).write(str(path))


def write(path, array):
    """(H, W, 3) float32, RGB, in the format of the suffix."""
    if path.suffix == ".exr":
        write_exr(path, {"RGB": array})
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        path.write_bytes(cv2.imencode(".hdr", array[..., ::-1])[1].tobytes())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_comes_back_in_rgb_order(suffix, tmp_path):
    array = light()
    write(tmp_path / f"a{suffix}", array)
    read = read_hdr(tmp_path / f"a{suffix}")
    assert read.dtype == np.float32 and read.shape == array.shape and read.flags.c_contiguous
    # RGBE shares one exponent: a 256th of the pixel's largest channel
    step = array.max(2, keepdims=True) / 128 if suffix == ".hdr" else 0
    assert (np.abs(read - array) <= step).all()
    write(tmp_path / f"a{suffix}", np.full((2, 2, 3), [64, 32, 16], np.float32))
    assert read_hdr(str(tmp_path / f"a{suffix}"))[1, 1].tolist() == [64, 32, 16]


def test_exr_in_every_form(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    path, array = tmp_path / "a.exr", light()
    half = array.astype(np.float16)
    write_exr(path, {"RGB": half}, compression=OpenEXR.PIZ_COMPRESSION)
    assert np.array_equal(read_hdr(path), half.astype(np.float32))
    write_exr(path, {"RGBA": np.concatenate([array, np.full((6, 5, 1), -1, np.float32)], 2)})
    assert np.array_equal(read_hdr(path), array)
    r, g, b = (array[..., c].copy() for c in range(3))
    write_exr(path, {"Z": -b, "B": b, "G": g, "R": r})  # depth beside the colour is left alone
    assert np.array_equal(read_hdr(path), array)
    write_exr(path, {"Y": g})
    assert np.array_equal(read_hdr(path), np.stack([g] * 3, 2))
    OpenEXR.File([OpenEXR.Part({}, {"RGB": array}), OpenEXR.Part({}, {"Z": b})]).write(str(path))
    assert np.array_equal(read_hdr(path), array)
    for channels in ({"R": r, "G": g}, {"left.R": r, "left.G": g, "left.B": b}, {"Y": g, "R": r}):
        write_exr(path, channels)
        with pytest.raises(ValueError, match="a.exr cannot be read .channels .*, where R, G and B, or Y alone, are"):
            read_hdr(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int32])
def test_npy_of_every_type_and_shape(dtype, tmp_path):
    path, array = tmp_path / "a.npy", light(dtype=dtype) if dtype != np.uint8 else (light() / 4).astype(np.uint8)
    expected = array.astype(np.float32)
    for stored, read in (
        (array, expected),
        (np.concatenate([array, array[..., :1]], 2), expected),
        (array[..., 0], expected[..., [0, 0, 0]]),
        (array[..., :1], expected[..., [0, 0, 0]]),
        (np.asfortranarray(array), expected),
    ):
        np.save(path, stored)
        assert np.array_equal(read_hdr(path), read) and read_hdr(path).flags.c_contiguous


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_and_foreign_files_are_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"cut{suffix}"
    write(path, light(20, 30))
    content = path.read_bytes()
    for size in (0, 3, 9, 60, len(content) // 3, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=f"cut{suffix} cannot be read .*copy it again or remove it"):
            read_hdr(path)
    for foreign in (b"not found", cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match=f"cut{suffix} cannot be read .*copy it again or remove it"):
            read_hdr(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"cut{suffix}"):
        read_hdr(path)
    with pytest.raises(ValueError, match="a.png: .png is none of .hdr, .exr, .npy, .tif, .*; convert it"):
        read_hdr("a.png")


def test_other_shapes_and_kinds_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    for array in (
        np.zeros(5),
        np.zeros((2, 3, 4, 3)),
        np.zeros((4, 4, 2)),
        np.zeros((0, 4, 3)),
        np.zeros((4, 4), bool),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=r"a.npy holds .*; save it as \(height, width, 3\) of float32"):
            read_hdr(path)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy cannot be read"):
        read_hdr(path)
    with path.open("wb") as file:
        np.savez(file, a=light())
    with pytest.raises(ValueError, match="a.npy cannot be read .an archive of several arrays"):
        read_hdr(path)


def test_values_that_are_no_light_are_counted_and_refused(tmp_path):
    path, array = tmp_path / "a.npy", light(dtype=np.float64)
    for values in ([math.nan, math.inf], [-math.inf, 1e300]):  # the last overflows float32
        array[0, 0, :2] = values
        np.save(path, array)
        with pytest.raises(ValueError, match="a.npy holds 2 values that are infinite or no number; repair it or"):
            read_hdr(path)
    array[0, 0, :2] = -0.5, -1e-5
    np.save(path, array)
    with pytest.raises(ValueError, match="a.npy holds 2 negative values, the lowest -0.5; .*set them to 0"):
        read_hdr(path)
    array[0, 0, :2] = PEAK, -0.9e-6 * PEAK  # a rounding beside the largest
    np.save(path, array)
    array[0, 0, 1] = 0
    assert np.array_equal(read_hdr(path), array.astype(np.float32))
    np.save(path, -np.ones((2, 2)))  # nothing but negative
    with pytest.raises(ValueError, match="a.npy holds 4 negative values"):
        read_hdr(path)


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01")
    whole = builtins.__import__

    def without(name, *rest):
        if name == "OpenEXR":
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="a.exr needs the OpenEXR package: pip install 'OpenEXR>=3.3'"):
        read_hdr(tmp_path / "a.exr")


def test_gain_is_read_whatever_stands_around_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("dgain: 1.5\ngamma: 2.2\n")
    assert read_gain(path) == (1.5, 2.2)
    path.write_bytes(b"\xef\xbb\xbf  gamma :2\r\n\r\nscene: caf\xe9\r\n# made by hand\r\n dgain:  3e-1  \r\n")
    assert read_gain(str(path)) == (0.3, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dgain: 1", "a.txt has no line for gamma; add one, as gamma: 2.2"),
        ("gamma: 1", "a.txt has no line for dgain"),
        ("", "a.txt has no line for dgain"),
        ("dgain 1\ngamma: 2", "a.txt has no line for dgain"),
        ("\ndgain: much\ngamma: 2", "a.txt, line 2: dgain is 'much'; write a number above 0"),
        ("dgain: 1\ngamma:", "a.txt, line 2: gamma is ''; write a number"),
        ("dgain: 1,5", "a.txt, line 1: dgain is '1,5'"),
        ("dgain: 1\ngamma: 0", "a.txt, line 2: gamma is '0'"),
        ("dgain: -1", "a.txt, line 1: dgain is '-1'"),
        ("dgain: nan", "a.txt, line 1: dgain is 'nan'"),
        ("dgain: inf", "a.txt, line 1: dgain is 'inf'"),
        ("dgain: 1\ngamma: 2\ndgain: 3", "a.txt, line 3: dgain is given a second time; keep one"),
    ],
)
def test_a_wrong_gain_is_refused_with_its_line(text, message, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_gain(tmp_path / "a.txt")


def test_values_worked_out_by_hand():
    hdr = np.array([[[0, 125, 1000]]], np.float32)
    assert ldr_of(hdr, 2, 2).tolist() == [[[0, 0.5, 1]]]  # 0.125 * 2 = 0.25, its root 0.5; 2 is clipped
    assert linearised(np.array([[[0, 0.5, 1]]], np.float32), 2, 2).tolist() == [[[0, 125, 500]]]
    assert linearised(np.array([[[0.5, 1]]], np.float32), 0.5, 1).tolist() == [[[1000, 1000]]]  # 2 is clipped
    assert log_mapped(np.array([0, math.sqrt(1001) - 1, 1000, 1001**2 - 1])) == pytest.approx([0, 0.5, 1, 2])
    assert log_unmapped(np.array([0, 0.5, 1])) == pytest.approx([0, math.sqrt(1001) - 1, 1000])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("dgain", "gamma"), [(1.0, 2.2), (4.0, 1.8), (0.4, 2.4)])
def test_what_was_not_clipped_comes_back(dgain, gamma, dtype):
    hdr = light(40, 30, dtype)
    ldr = ldr_of(hdr, dgain, gamma)
    back = linearised(ldr, dgain, gamma)
    assert ldr.dtype == back.dtype == np.float32 and ldr.min() >= 0 and ldr.max() <= 1
    clipped = hdr * dgain > PEAK
    assert clipped.any() == (dgain > 1) and (ldr[clipped] == 1).all()
    assert np.allclose(back[~clipped], hdr[~clipped], rtol=2e-6, atol=0)
    assert np.allclose(back[clipped], PEAK / dgain)


def test_log_mapping_and_its_inverse():
    x = np.concatenate([[0], np.geomspace(1e-4, 4 * PEAK, 1000)]).astype(np.float32)
    mapped = log_mapped(x)
    assert mapped.dtype == log_unmapped(mapped).dtype == np.float32 and (np.diff(mapped) > 0).all()
    assert np.allclose(log_unmapped(mapped), x, rtol=2e-6, atol=0)
