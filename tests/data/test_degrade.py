"""A degradation is a function of seed, step and name, and does to the picture what its numbers say."""

import io
import math
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from PIL import Image

from srlib.data.degrade import Degradation

everything = Degradation(blur=(0.5, 2), noise=(2, 10), before="webp", after="jpeg", quality=(40, 90), seed=3)


def picture(dtype=np.uint8, height=64, width=48):
    """(H, W, 3) smooth with an edge and some grain: what codecs are made for."""
    y, x = np.mgrid[:height, :width] / height
    planes = np.stack([x, y, np.sin(9 * x * y) ** 2], 2) * 0.7 + 0.1
    planes[height // 3 : height // 2] += 0.2
    planes += np.random.default_rng(0).normal(0, 0.01, planes.shape)
    return (planes.clip(0, 1) * np.iinfo(dtype).max + 0.5).astype(dtype)


def error(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("step", ["hr", "lr"])
def test_the_same_name_gives_the_same_bytes_and_another_name_or_seed_others(step, dtype):
    x = picture(dtype)
    before = x.copy()
    y = getattr(everything, step)(x, "dir/a.png")
    assert y.shape == x.shape and y.dtype == dtype and not np.shares_memory(x, y) and not np.array_equal(x, y)
    getattr(everything, step)(x, "dir/b.png")  # nothing is carried from call to call
    assert np.array_equal(getattr(Degradation(**asdict(everything)), step)(x, "dir/a.png"), y)
    assert np.array_equal(x, before)
    other = Degradation(**{**asdict(everything), "seed": 4})
    assert not np.array_equal(getattr(everything, step)(x, "dir/b.png"), y)
    assert not np.array_equal(getattr(other, step)(x, "dir/a.png"), y)


def test_the_number_of_threads_changes_nothing():
    x, threads = picture(np.uint16, 500, 700), cv2.getNumThreads()
    try:
        results = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            results.append(everything.lr(everything.hr(x, "a"), "a"))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(results[0], result) for result in results)


def test_switching_one_on_leaves_the_other_as_it_was():
    x = picture()
    blurred, both = Degradation(blur=(0.5, 3)).hr(x, "a"), Degradation(blur=(0.5, 3), before="jpeg").hr(x, "a")
    qualities = [Degradation(before="jpeg", quality=(q, q)).hr(blurred, "b") for q in range(60, 96)]
    assert any(np.array_equal(both, y) for y in qualities)


def test_nothing_to_do_returns_the_picture_itself():
    x = picture()
    for none in (Degradation(), Degradation(blur=(0, 0.04), quality=(1, 1))):
        assert none.nothing and none.hr(x, "a") is x and none.lr(x, "a") is x
    blur, noise, before, after = (
        Degradation(blur=(0, 1)),
        Degradation(noise=(0, 1)),
        Degradation(before="jpeg"),
        Degradation(after="webp"),
    )
    assert not (blur.nothing or noise.nothing or before.nothing or after.nothing)
    assert blur.lr(x, "a") is x and before.lr(x, "a") is x and noise.hr(x, "a") is x and after.hr(x, "a") is x


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.7, 4.0])
def test_the_blur_of_a_point_is_a_gaussian(sigma):
    size = 51
    x = np.zeros((size, size, 3), np.uint16)
    x[25, 25] = 65535, 30000, 1000
    offsets = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    expected = np.zeros((size, size))
    expected[np.ix_(offsets + 25, offsets + 25)] = np.outer(kernel, kernel)
    y = Degradation(blur=(sigma, sigma)).hr(x, "a")
    for channel, peak in enumerate((65535, 30000, 1000)):
        assert np.abs(y[..., channel] - expected * peak).max() <= 0.52


def test_the_blur_keeps_flat_pictures_and_mirrors_the_border():
    for dtype, value in ((np.uint8, 255), (np.uint8, 1), (np.uint16, 65535)):
        flat = np.full((3, 7, 3), value, dtype)  # smaller than the kernel
        assert np.array_equal(Degradation(blur=(2, 2)).hr(flat, "a"), flat)
    x, blur = picture(np.uint16), Degradation(blur=(1.3, 1.3))
    mirrored = np.pad(x, ((8, 8), (8, 8), (0, 0)), mode="symmetric")
    assert np.abs(blur.hr(mirrored, "a")[8:-8, 8:-8].astype(int) - blur.hr(x, "a")).max() <= 1


@pytest.mark.parametrize(("dtype", "level"), [(np.uint8, 1), (np.uint16, 257)])
@pytest.mark.parametrize("sigma", [2.0, 12.0])
def test_the_noise_has_its_sigma_in_levels_of_255(sigma, dtype, level):
    grey = np.full((300, 200, 3), 128 * level, dtype)
    noise = (Degradation(noise=(sigma, sigma)).lr(grey, "a").astype(float) - grey) / level
    expected = math.sqrt(sigma**2 + (1 / 12 if level == 1 else 0))  # rounding adds its own
    assert noise.std() == pytest.approx(expected, rel=0.01) and abs(noise.mean()) < 0.01 * sigma
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02  # each channel its own
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02


def test_noise_is_clipped_and_never_wraps():
    for dtype in (np.uint8, np.uint16):
        top, noise = np.iinfo(dtype).max, Degradation(noise=(5, 5))
        assert noise.lr(np.zeros((50, 50, 3), dtype), "a").max() < 0.2 * top
        assert noise.lr(np.full((50, 50, 3), top, dtype), "a").min() > 0.8 * top


def test_the_sigma_is_drawn_uniformly_from_its_range():
    grey, noise = np.full((40, 40, 3), 32768, np.uint16), Degradation(noise=(4, 8))
    drawn = np.array([(noise.lr(grey, f"{i}.png").astype(float) - grey).std() / 257 for i in range(300)])
    assert drawn.min() > 3.8 and drawn.max() < 8.2
    assert drawn.mean() == pytest.approx(6, abs=0.25) and drawn.std() == pytest.approx(4 / math.sqrt(12), abs=0.15)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
@pytest.mark.parametrize("step", ["hr", "lr"])
def test_compression_is_the_codec_at_its_quality(step, codec):
    x = picture()

    def compressed(quality, x=x):
        field = "before" if step == "hr" else "after"
        return getattr(Degradation(**{field: codec}, quality=(quality, quality)), step)(x, "a")

    errors = [error(compressed(quality), x) for quality in (5, 30, 60, 95)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 2 * errors[3] and 0 < errors[3] < 4
    file = io.BytesIO()
    Image.fromarray(x).save(file, codec, quality=30)
    assert np.array_equal(compressed(30), np.asarray(Image.open(file).convert("RGB")))
    between = np.minimum(x.astype(int) * 257 + 128, 65535).astype(np.uint16)  # to the nearest 8 bits the same picture
    deep = compressed(30, between)
    assert deep.dtype == np.uint16 and np.array_equal(deep, compressed(30).astype(np.uint16) * 257)


def test_every_quality_of_the_range_is_drawn():
    x = picture()
    of = {Degradation(after="jpeg", quality=(q, q)).lr(x, "a").tobytes(): q for q in range(9, 14)}
    drawn = {of.get(Degradation(after="jpeg", quality=(10, 12)).lr(x, f"{i}").tobytes()) for i in range(60)}
    assert drawn == {10, 11, 12}


def test_16_bits_stay_16_bits_without_compression():
    x = picture(np.uint16)
    for y in (Degradation(blur=(0.5, 0.5)).hr(x, "a"), Degradation(noise=(1, 1)).lr(x, "a")):
        assert y.dtype == np.uint16 and len(np.unique(y % 257)) > 200


def test_lists_become_tuples():
    assert Degradation(blur=[0, 1], quality=[60.0, 80]) == Degradation(blur=(0.0, 1.0), quality=(60, 80))
    assert hash(Degradation(noise=[1, 2])) == hash(Degradation(noise=(1, 2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blur": (-1, 1)}, r"blur = \(-1, 1\) is no range; give it as \(low, high\) with 0 <= low <= high"),
        ({"blur": (2, 1)}, "blur"),
        ({"blur": 2.0}, "blur = 2.0"),
        ({"blur": (1, 2, 3)}, "blur"),
        ({"blur": (0, math.inf)}, "blur"),
        ({"noise": (0, math.nan)}, "noise"),
        ({"noise": ("1", "2")}, "noise"),
        ({"noise": None}, "noise = None"),
        ({"quality": (0, 50)}, r"quality = \(0, 50\) is no range; .* whole numbers and 1 <= low <= high <= 100"),
        ({"quality": (50, 101)}, "quality"),
        ({"quality": (50.5, 60)}, "quality"),
        ({"quality": (math.nan, 60)}, "quality"),
        ({"quality": (90, math.inf)}, "quality"),
        ({"before": "jpg"}, "before = 'jpg' is no compression known; choose jpeg, webp or ''"),
        ({"after": None}, "after = None is no compression known"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Degradation(**wrong)


def test_wrong_pictures_are_refused_by_name():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match=r"dir/a.png is .* of shape .*; give \(height, width, 3\) of uint8 or"):
            everything.hr(wrong, "dir/a.png")
    with pytest.raises(ValueError, match="dir/a.png: webp holds at most 16383 pixels a side, not 16384; cut it"):
        Degradation(after="webp").lr(np.zeros((1, 16384, 3), np.uint8), "dir/a.png")
