"""Size, flips averaged, borders that wrap: what is asked of an upscaler besides."""

import numpy as np
import pytest
import torch
from foreign_files import foreign_file
from small_networks import strong
from torch import Tensor

from srlib.data.pictures import Picture, to_float, to_integers
from srlib.data.resize import resize_integers
from srlib.inference.extras import Extras, upscale_with
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.tiling.tiled import Execution


@pytest.fixture(scope="module")
def compact(tmp_path_factory) -> TiledSR:
    """Its reach is 5 pixels."""
    return load(foreign_file(tmp_path_factory.mktemp("files"), "Compact"))


def noise(height=21, width=30, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


@pytest.mark.parametrize("options", [{"tile": "auto"}, {"tile": 8, "halo": 8}])
def test_tta_is_the_mean_of_eight_answers_by_hand(compact, options):
    x, answers = to_float(noise())[None], []
    with torch.no_grad():
        for turns in range(4):
            for flip in (False, True):
                turned = torch.rot90(x.flip(3) if flip else x, turns, (2, 3))
                back = torch.rot90(compact(turned), -turns, (2, 3))
                answers.append(back.flip(3) if flip else back)
    by_hand = to_integers(torch.stack(answers).mean(0)[0])
    large, report = upscale(compact, Picture(noise()), tta=True, **options)
    assert close(large.rgb, by_hand) and "eight flips" in str(report)
    assert not close(upscale(compact, Picture(noise()), **options)[0].rgb, by_hand)


def test_the_progress_of_eight_runs_is_one(compact):
    seen = []
    how = Execution(progress=lambda done, total: seen.append((done, total)))
    upscale(compact, Picture(noise()), tta=True, tile=64, how=how)
    assert seen == [(i, 8) for i in range(1, 9)]


@pytest.mark.parametrize("shift", [(0, 8), (16, 8)])
def test_wrap_of_a_rolled_picture_is_the_rolled_result(compact, shift):
    """Here also off the grid's multiples, as this network has none; HAT below on multiples of its window."""
    alpha = noise(24, 32, 1)[..., 0]
    alpha[8:12] = 0
    roll = lambda array, by: np.roll(array, by, (0, 1))  # noqa: E731
    plain, _ = upscale_with(compact, Picture(noise(24, 32), alpha), Extras(wrap=32), tile=16, halo=8)
    rolled, _ = upscale_with(
        compact, Picture(roll(noise(24, 32), shift), roll(alpha, shift)), Extras(wrap=32), tile=16, halo=8
    )
    double = [2 * by for by in shift]
    assert close(rolled.rgb[rolled.alpha > 0], roll(plain.rgb, double)[rolled.alpha > 0])
    assert close(rolled.alpha, roll(plain.alpha, double))
    without, _ = upscale_with(compact, Picture(noise(24, 32)), Extras(), tile=16, halo=8)
    assert not close(without.rgb, upscale_with(compact, Picture(noise(24, 32)), Extras(wrap=32), tile=16)[0].rgb)


def test_wrap_is_exact_for_a_walked_network_of_finite_reach():
    """HAT whose channel attention, which looks at everything, is turned off."""
    hat = strong(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, conv_scale=1e-6)
    model, picture = TiledSR(hat, channels=8).eval(), noise(24, 32)
    options = {"statistics": "exact", "tile": 16}
    plain, _ = upscale_with(model, Picture(picture), Extras(wrap=48), **options)
    rolled, _ = upscale_with(model, Picture(np.roll(picture, (8, 16), (0, 1))), Extras(wrap=48), **options)
    assert close(rolled.rgb, np.roll(plain.rgb, (16, 32), (0, 1)))
    twice, _ = upscale_with(model, Picture(np.tile(picture, (1, 2, 1))), Extras(wrap=48), **options)
    assert close(twice.rgb, np.tile(plain.rgb, (1, 2, 1)))


@pytest.mark.parametrize("extras", [Extras(outscale=3), Extras(width=90), Extras(outscale=1.37), Extras(outscale=0.5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_outscale_and_width_resize_what_the_network_made(compact, extras, dtype):
    rgb = noise().astype(dtype) * (1 if dtype == np.uint8 else 257)
    large, report = upscale_with(compact, Picture(rgb, rgb[..., 0].copy()), extras, tile=64)
    factor = extras.factor(Picture(rgb), 2)
    height, width = round(21 * factor), round(30 * factor)
    assert large.rgb.shape == (height, width, 3) and large.alpha.shape == (height, width) and large.rgb.dtype == dtype
    own, _ = upscale_with(compact, Picture(rgb, rgb[..., 0].copy()), Extras(), tile=64)
    assert np.array_equal(large.rgb, resize_integers(own.rgb, height, width))
    assert f"then resized to {width}x{height}" in str(report)


def test_hidden_colours_do_not_bleed_when_it_is_resized(compact):
    rgb, alpha = np.full((16, 16, 3), 200, np.uint8), np.full((16, 16), 255, np.uint8)
    rgb[:, 8:], alpha[:, 8:] = 0, 0
    small, _ = upscale_with(compact, Picture(rgb, alpha), Extras(outscale=1.5), tile=64)
    whole, _ = upscale_with(compact, Picture(np.full_like(rgb, 200)), Extras(outscale=1.5), tile=64)
    shown = small.alpha > 0
    assert np.abs(small.rgb[shown].astype(int) - whole.rgb[shown]).max() < 30  # the random network's own borders
    assert (small.rgb[~shown] == 0).all() and (~shown).any()


def test_wrap_goes_on_in_the_resize(compact):
    plain, _ = upscale_with(compact, Picture(noise(24, 32)), Extras(outscale=1.5, wrap=32), tile=16, halo=8)
    rolled, _ = upscale_with(
        compact, Picture(np.roll(noise(24, 32), (8, 16), (0, 1))), Extras(outscale=1.5, wrap=32), tile=16, halo=8
    )
    assert close(rolled.rgb, np.roll(plain.rgb, (12, 24), (0, 1)))


@pytest.mark.parametrize("wrong", [{"outscale": 2, "width": 9}, {"outscale": 0}, {"width": 0}, {"wrap": -1}])
def test_impossible_extras_are_refused(wrong):
    with pytest.raises(ValueError):
        Extras(**wrong)


def test_a_precision_it_does_not_support_is_refused_with_the_remedy(tmp_path):
    model = load(foreign_file(tmp_path, "SwinIR"))
    with pytest.raises(ValueError, match="SwinIR is not known to work in fp16: use bf16"):
        upscale(model, Picture(noise()), tile=64, how=Execution(dtype=torch.float16))
    model.hat_model.bfloat_precision = False
    for dtype, given in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        with pytest.raises(ValueError, match=f"SwinIR is not known to work in {given}: use fp32"):
            upscale(model, Picture(noise()), tile=64, how=Execution(dtype=dtype))


def test_bf16_comes_near(compact):
    plain, half = (
        upscale(compact, Picture(noise()), tile=64, how=Execution(dtype=dtype))[0].rgb.astype(int)
        for dtype in (None, torch.bfloat16)
    )
    assert 0 < np.abs(plain - half).max() < 12


def test_grey_through_a_network_for_grey(tmp_path):
    model = load(foreign_file(tmp_path, "Compact", num_in_ch=1, num_out_ch=1))
    grey = np.repeat(noise()[..., :1], 3, 2)
    large, _ = upscale(model, Picture(grey, grey=True), tile=64)
    with torch.no_grad():
        by_hand: Tensor = model(to_float(grey)[None, :1])[0]
    assert (large.rgb == to_integers(by_hand)).all()
