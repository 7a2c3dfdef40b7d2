"""Exposures obey SPEC 5 by their text files, are drawn by name, and bad light is left out by name."""

import cv2
import numpy as np
import pytest
import tifffile

from srlib.data import exposures
from srlib.data.exposures import exposed_pairs
from srlib.data.hdr import PEAK, is_hdr, ldr_of, read_gain, read_hdr, write_hdr
from srlib.data.pairs import prepare_pairs
from srlib.data.pictures import read_picture


def light(seed, height=40, width=60):
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(-3, 4, (5, 7, 3)).astype(np.float32), (width, height))
    return (100 * np.exp2(smooth)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "light"
    (source / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.npy", "b.hdr", "c.exr", "sub/a.npy", "d.npy", "e.npy")):
        write_hdr(source / name, light(number))
    tifffile.imwrite(source / "f.tif", light(7), photometric="rgb")
    tifffile.imwrite(source / "ordinary.tif", np.zeros((40, 60, 3), np.uint8), photometric="rgb")
    return source


def texts(pairs):
    return {path.relative_to(pairs).as_posix(): path.read_text() for path in pairs.glob("*/input/*.txt")}


def test_pairs_obey_the_specification_and_are_drawn_by_name(folder, tmp_path):
    assert exposed_pairs(folder, tmp_path / "pairs", exposures=3) == {}
    found = texts(tmp_path / "pairs")
    assert len(found) == 3 * 7  # the 8-bit TIFF is none
    shares = []
    for name in found:
        path = tmp_path / "pairs" / name
        dgain, gamma = read_gain(path)
        truth = read_hdr(path.parents[1] / "gt" / f"{path.stem}.npy")
        ldr = read_picture(path.with_suffix(".png")).rgb
        assert np.array_equal(ldr, np.round(ldr_of(truth, dgain, gamma) * 255).astype(np.uint8))
        shares.append((truth.max(2) > PEAK / dgain).mean())
    assert min(shares) < 0.1 < 0.3 < max(shares) <= 0.42
    (tmp_path / "pairs" / next(iter(found))).unlink()
    exposed_pairs(folder, tmp_path / "pairs", exposures=3)
    assert texts(tmp_path / "pairs") == found
    for name in ("c.exr", "d.npy"):
        (folder / name).unlink()
    exposed_pairs(folder, tmp_path / "fewer", exposures=2)
    gains = {name.split("/")[-1]: text for name, text in found.items()}
    assert all(gains[name.split("/")[-1]] == text for name, text in texts(tmp_path / "fewer").items())


def test_they_are_what_prepare_pairs_reads(folder, tmp_path):
    exposed_pairs(folder, tmp_path / "pairs", exposures=1)
    result, split = prepare_pairs(tmp_path / "pairs", tmp_path / "data", scale=1, progress=False)
    assert not result.stats["failures"] and sorted(split.values()).count("test") == 1


def test_larger_pictures_are_reduced_by_averaging_light(tmp_path):
    (tmp_path / "light").mkdir()
    for number in range(3):
        write_hdr(tmp_path / "light" / f"{number}.npy", light(number, 80, 120))
    exposed_pairs(tmp_path / "light", tmp_path / "pairs", exposures=1, size=60)
    for path in (tmp_path / "pairs").glob("*/gt/*.npy"):
        expected, found = light(int(path.stem[0]), 80, 120).reshape(40, 2, 60, 2, 3).mean((1, 3)), read_hdr(path)
        assert found / found.mean() == pytest.approx(expected / expected.mean(), rel=1e-3)  # the unit is drawn


def test_bad_light_is_left_out_by_name(folder, tmp_path):
    np.save(folder / "g.npy", np.full((40, 60, 3), np.nan, np.float32))
    np.save(folder / "h.npy", -light(1))
    np.save(folder / "i.npy", np.zeros((40, 60, 3), np.float32))
    (folder / "j.exr").write_bytes(b"nonsense")
    np.save(folder / "k.npy", light(3)[..., :1])  # grey is repeated
    left_out = exposed_pairs(folder, tmp_path / "pairs", exposures=1)
    assert set(left_out) == {"g.npy", "h.npy", "i.npy", "j.exr"}
    for name, says in (("g.npy", "infinite or no number"), ("h.npy", "negative"), ("i.npy", "black"), ("j.exr", "EXR")):
        assert says in left_out[name] and name in left_out[name]
    with pytest.raises(ValueError, match="holds no HDR pictures"):
        (tmp_path / "empty").mkdir()
        exposed_pairs(tmp_path / "empty", tmp_path / "pairs", exposures=1)


def test_tiffs_are_hdr_by_what_they_hold(folder):
    assert is_hdr(folder / "f.tif") and not is_hdr(folder / "ordinary.tif") and not is_hdr(folder / "missing.tif")
    assert read_hdr(folder / "f.tif") == pytest.approx(light(7))
    with pytest.raises(ValueError, match="ordinary.tif holds uint8, which is no HDR"):
        read_hdr(folder / "ordinary.tif")


@pytest.mark.parametrize("suffix, error", [(".npy", 0), (".exr", 0), (".hdr", 1 / 128)])
def test_written_and_read_back(suffix, error, tmp_path):
    write_hdr(tmp_path / f"a{suffix}", light(0))
    largest = light(0).max(2, keepdims=True)  # .hdr has 8 bits of it, and the others have its exponent
    assert (np.abs(read_hdr(tmp_path / f"a{suffix}") - light(0)) <= error * largest).all()
    for bad in (np.full((4, 4, 3), np.inf, np.float32), -light(0), light(0)[..., 0]):
        with pytest.raises(ValueError, match="must be"):
            write_hdr(tmp_path / f"b{suffix}", bad)
    assert not list(tmp_path.glob("*b*"))


@pytest.mark.parametrize("text", ["dgain: 1e9\ngamma: 2.2\n", "dgain: 2\ngamma: 40\n", "dgain: 1e-9\ngamma: 2\n"])
def test_absurd_values_are_refused_by_name(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"a.txt: (dgain|gamma) .* is not from .*: check it"):
        read_gain(tmp_path / "a.txt")


def test_without_the_package_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(exposures, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps viser"):
        exposed_pairs("embedded", "nowhere", exposures=1)


@pytest.mark.parametrize(
    "first,then",
    [
        ({"exposures": 2}, {"exposures": 1}),
        ({"exposures": 1}, {"exposures": 1, "size": 16}),
        ({"exposures": 2, "fraction": 0.3}, {"exposures": 2, "fraction": 0.3, "seed": 1}),
        ({"exposures": 1, "fraction": 0.15}, {"exposures": 1, "fraction": 0.4}),
    ],
)
def test_other_settings_leave_nothing_of_the_earlier_ones(folder, tmp_path, first, then):
    exposed_pairs(folder, tmp_path / "pairs", **first)
    prepare_pairs(tmp_path / "pairs", tmp_path / "data", scale=1, progress=False)
    exposed_pairs(folder, tmp_path / "pairs", **then)
    exposed_pairs(folder, tmp_path / "fresh", **then)
    assert texts(tmp_path / "pairs") == texts(tmp_path / "fresh")
    truths = [
        {p.relative_to(tmp_path / n).as_posix() for p in (tmp_path / n).rglob("*_?.*")} for n in ("pairs", "fresh")
    ]
    assert truths[0] == truths[1]
    _, split = prepare_pairs(tmp_path / "pairs", tmp_path / "data", scale=1, progress=False)
    _, expected = prepare_pairs(tmp_path / "fresh", tmp_path / "other", scale=1, progress=False)
    assert split == expected


def test_another_folder_and_changed_pictures_are_exposed_anew(folder, tmp_path):
    exposed_pairs(folder, tmp_path / "pairs", exposures=1)
    write_hdr(folder / "a.npy", light(20, 30, 50))
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "pairs").rglob("*.npy")}
    exposed_pairs(folder, tmp_path / "pairs", exposures=1)
    (made,) = (tmp_path / "pairs").glob("*/gt/a_0.npy")
    assert read_hdr(made).shape == (30, 50, 3)
    assert [p for p, time in times.items() if p.stat().st_mtime_ns != time] == [made]  # no other is made again
    other = tmp_path / "other"
    other.mkdir()
    for number in range(4):
        write_hdr(other / f"z{number}.npy", light(number))
    exposed_pairs(other, tmp_path / "pairs", exposures=1)
    assert {path.stem for path in (tmp_path / "pairs").glob("*/gt/*.npy")} == {f"z{n}_0" for n in range(4)}


def test_two_pictures_whose_exposures_would_have_one_name(folder, tmp_path):
    write_hdr(folder / "a.hdr", light(9))
    write_hdr(folder / "sub__a.npy", light(10))
    write_hdr(folder / "{odd} %s.npy", light(11))
    left_out = exposed_pairs(folder, tmp_path / "pairs", exposures=1)
    assert left_out == {
        "a.npy": "its exposures would be called as those of a.hdr: rename it",
        "sub__a.npy": "its exposures would be called as those of sub/a.npy: rename it",
    }
    assert len(list((tmp_path / "pairs").glob("*/gt/{odd} %s_0.npy"))) == 1
