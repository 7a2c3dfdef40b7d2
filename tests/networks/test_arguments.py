"""Any arguments of a HAT or TiledSR are refused by a ValueError that names one of them, or the network runs."""

import random

import pytest
import torch

from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT

SMALL = {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "window_size": 4, "squeeze_factor": 4, "num_feat": 8}
WORDS = ("1", None, True, float("nan"), float("inf"), -1, 0, 2.5, [2], {})
ODD = {
    "in_chans": (1, 2, 5),
    "upscale": (1, 2, 3, 4, 5, 6, 8, 2.0, 128),
    "embed_dim": (1, 2, 3, 24, 30, 31, 10**9),
    "depths": ((), (1, 2), [3], (0,), (2, 0), (10**9,), (1.0,), "12", 3),
    "num_heads": ((), (1, 3), [3], (0,), (7,), (-2,), (2.0,), "12", 2),
    "window_size": (1, 2, 3, 6, 8, 16, 1000, 4.0),
    "compress_ratio": (1, 5, 12, 13, 30),
    "squeeze_factor": (1, 5, 12, 13, 30),
    "conv_scale": (0.01, 1, 1e-300, 1e300),
    "overlap_ratio": (0, 0.5, 1, 2, 0.25, 2.5, 1e9),
    "mlp_ratio": (0.01, 0.1, 1, 4, 1e9),
    "img_range": (1, 255, 1e-300, 1e300),
    "num_feat": (1, 3, 64),
    "drop_path_rate": (0.0, 0.5, 0.999, 1.0, 1.5),
    "checkpointing": (True, "no"),
}

ODD_TILES = {
    "use_tiling": (True, False, "yes"),
    "tile_size": (None, 4, 8, 12, 6, 3, 0, -4, 64, 8.0, "auto"),
    "tile_pad": (None, 0, 4, 8, 64, 6, -4, 4.0),
    "tile_batch": (None, 1, 3, 0, -1, 2.0),
    "channels": (1, 8, 0, -1, 2.5),
    "blocks": (0, 1, 3, -1, 1.0),
    "tile_choices": ((), (4,), [8, 12], (6,), (0,), 8, "8", (None,)),
}


def runs_or_is_refused(arguments: dict) -> bool:
    """Whether it was built; then it also ran, in training and not, on a picture of odd size."""
    try:
        model = HAT(**arguments)
    except ValueError as refusal:
        assert any(name in str(refusal) for name in arguments) and len(str(refusal)) > 20, refusal
        return False
    channels, scale = model.config["in_chans"], model.config["upscale"]
    x = torch.rand(1, channels, 9, 7)
    for training in (True, False):
        with torch.no_grad():
            out = model.train(training)(x)
        assert out.shape == (1, channels, 9 * scale, 7 * scale) and out.isfinite().all(), arguments
    assert HAT(**model.config).config == model.config
    return True


@pytest.mark.parametrize("name", ODD)
def test_one_odd_argument(name):
    built = [value for value in (*ODD[name], *WORDS) if runs_or_is_refused({**SMALL, name: value})]
    assert built and len(built) < len(ODD[name]) + len(WORDS)


def test_random_arguments():
    rng, built = random.Random(0), 0
    for _ in range(300):
        chosen = rng.sample(sorted(ODD), rng.randint(1, 4))
        built += runs_or_is_refused({**SMALL, **{name: rng.choice(ODD[name]) for name in chosen}})
    assert 30 < built < 270


def test_random_arguments_of_tiled_sr():
    rng, built, hat, x = random.Random(1), 0, HAT(**SMALL), torch.rand(1, 3, 13, 9)
    for _ in range(300):
        chosen = rng.sample(sorted(ODD_TILES), rng.randint(1, 3))
        arguments = {"channels": 4, "blocks": 1, **{name: rng.choice(ODD_TILES[name]) for name in chosen}}
        try:
            model = TiledSR(hat, **arguments)
        except ValueError as refusal:
            assert any(name in str(refusal) for name in chosen), refusal
            continue
        built += 1
        for training in (True, False):
            with torch.no_grad():
                assert model.train(training)(x).shape == (1, 3, 26, 18), arguments
        assert model.tiled(x)[0].shape == (1, 3, 26, 18)
        assert TiledSR(hat, **{k: v for k, v in model.config.items() if k != "hat"}).config == model.config
    assert 30 < built < 270


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"embed_dim": 24}, "squeeze_factor 30 must be a whole number from 1 to 24, embed_dim"),
        ({"embed_dim": 24, "squeeze_factor": 6, "compress_ratio": 25}, "compress_ratio 25 .* from 1 to 24, embed_dim"),
        ({"depths": (), "num_heads": ()}, "depths .* one group"),
        (
            {"depths": (2, -1), "num_heads": (2, 2)},
            r"depths \[2, -1\]: an entry -1 must be a whole number from 1 ",
        ),
        ({"num_heads": (0,), "depths": (2,)}, r"num_heads \[0\]: an entry 0"),
        ({"upscale": 2.0}, "upscale 2.0 must be a whole number"),
        ({"mlp_ratio": 0.001}, "mlp_ratio 0.001 leaves no channel"),
        ({"drop_path_rate": 1.0}, "drop_path_rate 1 .* below 1"),
        ({"img_range": float("inf")}, "img_range inf must be a positive number"),
    ],
)
def test_the_refusal_says_what_is_allowed(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        HAT(**wrong)
