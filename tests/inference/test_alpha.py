"""Alpha comes out as it is where it is constant, stays in its range, and has edges as sharp as the colours'."""

import numpy as np
import pytest
import torch
from small_networks import strong

from srlib.data.pictures import Picture
from srlib.data.resize import upscale_integers
from srlib.inference import alpha as room
from srlib.inference.alpha import fill_hidden, upscale_alpha
from srlib.inference.upscale import upscale
from srlib.networks.eraser import TiledSR

SCALES = (1, 2, 3, 4, 8)
TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8}


def around(index: int, size: int, scale: int) -> list[int]:
    """The LR pixels, one or two, whose centres are around an output pixel's, along an axis."""
    place = (index + 0.5) / scale - 0.5
    return [int(np.clip(i, 0, size - 1)) for i in {np.floor(place), np.ceil(place)}]


def width_of_edge(row: np.ndarray, top: int) -> float:
    """10-90 % of a rising edge, in pixels."""
    row, x = row / top, np.arange(len(row))
    row = np.maximum.accumulate(row) + 1e-9 * x
    return float(np.interp(0.9, row, x) - np.interp(0.1, row, x))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "values"), [(np.uint8, (0, 1, 127, 255)), (np.uint16, (0, 1, 40001, 65534, 65535))])
def test_a_constant_stays_exactly_that(scale, dtype, values):
    for value in values:
        assert (upscale_alpha(np.full((5, 7), value, dtype), scale) == value).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_pixel_stays_between_those_around_it(scale, dtype):
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    noise = rng.integers(0, top, (9, 7), dtype, endpoint=True)
    blocks = np.kron(rng.choice([0, top // 2, top], (3, 3)), np.ones((4, 4))).astype(dtype)
    for alpha in (noise, blocks, noise[:1], noise[:, :1]):
        big = upscale_alpha(alpha, scale)
        assert big.dtype == dtype and big.shape == tuple(scale * side for side in alpha.shape)
        for y, x in np.ndindex(big.shape):
            near = alpha[np.ix_(around(y, alpha.shape[0], scale), around(x, alpha.shape[1], scale))]
            assert near.min() <= big[y, x] <= near.max()
    assert scale > 1 or np.array_equal(big, alpha)


@pytest.mark.parametrize("scale", SCALES[1:])
@pytest.mark.parametrize("middle", [None, 0.25, 0.5])
def test_edges_are_sharper_than_those_of_bicubic(scale, middle):
    edge = np.zeros((16, 16), np.uint16)
    edge[:, 8:] = 65535
    if middle is not None:
        edge[:, 8] = middle * 65535  # an edge across a pixel
    for alpha in (edge, edge.T):
        ours = upscale_alpha(alpha, scale)
        bicubic = upscale_integers(np.ascontiguousarray(alpha)[..., None], scale)[..., 0]
        ours, bicubic = (ours, bicubic) if alpha is edge else (ours.T, bicubic.T)
        assert width_of_edge(ours[8 * scale], 65535) < 0.95 * width_of_edge(bicubic[8 * scale], 65535)
        lost = ours.reshape(16, scale, 16, scale).mean((1, 3)) - edge
        assert np.abs(lost).max() < 0.05 * 65535  # and nothing becomes larger or smaller


def test_strips_are_the_whole(monkeypatch):
    alpha = np.random.default_rng(0).integers(0, 65535, (97, 21), np.uint16)
    whole = upscale_alpha(alpha, 2)
    monkeypatch.setattr(room, "_STRIP", 21)
    assert np.abs(upscale_alpha(alpha, 2).astype(int) - whole).max() <= 1


@pytest.fixture(scope="module")
def model() -> TiledSR:
    torch.manual_seed(0)
    return TiledSR(strong(**TINY), channels=8).eval()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("options", [{"statistics": "exact"}, {"halo": 8}])
def test_the_network_does_not_see_alpha(model, dtype, grey, options):
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    rgb = rng.integers(0, top, (24, 24, 1 if grey else 3), dtype).repeat(3 if grey else 1, 2)
    plain, _ = upscale(model, Picture(rgb, grey=grey), tile=16, **options)
    for value in (0, 1, top // 2, top):
        big, _ = upscale(model, Picture(rgb, np.full((24, 24), value, dtype), grey), tile=16, **options)
        assert (big.alpha == value).all() and big.alpha.dtype == dtype
        assert np.array_equal(big.rgb, plain.rgb) and big.grey == grey


def test_one_colour_under_what_is_transparent_leaves_no_halo(model):
    y, x = np.mgrid[:24, :24]
    alpha = np.where(np.hypot(y - 12, x - 12) < 8, 255, 0).astype(np.uint8)
    shows = np.full((24, 24, 3), (200, 30, 90), np.uint8)
    black = np.where(alpha[..., None] > 0, shows, 0).astype(np.uint8)
    big, _ = upscale(model, Picture(black, alpha), statistics="exact", tile=16)
    whole, _ = upscale(model, Picture(shows), statistics="exact", tile=16)
    assert np.array_equal(big.rgb[big.alpha > 0], whole.rgb[big.alpha > 0])
    assert (big.rgb[big.alpha == 0] == 0).all() and (big.alpha == 0).any()


def test_several_colours_under_what_is_transparent_are_somebodys_work():
    rgb = np.random.default_rng(0).integers(0, 255, (6, 6, 3), np.uint8)
    alpha = np.zeros((6, 6), np.uint8)
    assert fill_hidden(rgb, alpha) is None
    alpha[:3] = 9
    assert fill_hidden(rgb, alpha) is None and fill_hidden(rgb, alpha + np.uint8(1)) is None
    rgb[3:] = 255
    filled = fill_hidden(rgb, alpha)
    assert np.array_equal(filled[:3], rgb[:3]) and (filled[3:] == rgb[2]).all()
