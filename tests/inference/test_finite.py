"""NaN and infinity are an error that names precision and remedy, and never become a picture."""

import numpy as np
import pytest
import torch
from small_networks import strong

from srlib.__main__ import main
from srlib.data.pictures import Picture, to_integers, write_picture
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import save_model
from srlib.networks.eraser import TiledSR
from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import Execution, tiled_apply

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8}
WAYS = [{"statistics": "exact"}, {"statistics": "local", "halo": 8}, {"statistics": "two_pass", "halo": 8}]
HALF = Execution(dtype=torch.float16)


def overflowing(factor: float = 1e5) -> TiledSR:
    """Finite weights whose answer is finite in fp32 and, in fp16, not."""
    model = TiledSR(strong(**TINY), channels=8).eval()
    with torch.no_grad():
        model.hat_model.conv_last.weight *= factor
    return model


def broken(name: str) -> TiledSR:
    model = TiledSR(strong(**TINY), channels=8, gains=[[0, 0.1]]).eval()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = float("nan")
    return model


@pytest.fixture(scope="module")
def picture() -> Picture:
    return Picture(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))


@pytest.mark.parametrize("options", WAYS)
def test_an_overflow_of_fp16_is_told_with_its_remedy(picture, options):
    with pytest.raises(FloatingPointError, match="% of the pixels .* at precision fp16: .* use bf16 or fp32"):
        upscale(overflowing(), picture, tile=16, how=HALF, **options)
    for how in (Execution(), Execution(dtype=torch.bfloat16)):
        upscale(overflowing(), picture, tile=16, how=how, **options)


@pytest.mark.parametrize("options", WAYS)
def test_an_overflow_of_fp32_is_told_too(picture, options):
    model = overflowing(1e38)
    with pytest.raises(FloatingPointError, match="at precision fp32: the weights themselves are broken"):
        upscale(model, picture, tile=16, **options)


@pytest.mark.parametrize("name", ["hat_model.conv_first.weight", "hat_model.conv_last.bias", "out_conv.weight"])
def test_broken_weights_are_named_before_the_work(picture, name, monkeypatch):
    monkeypatch.setattr(TiledSR, "tiled", None)
    with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity .{name}., so no precision helps"):
        upscale(broken(name), picture)


@pytest.mark.parametrize("dtype", [torch.uint8, np.uint8, np.uint16, np.float32, torch.float32])
@pytest.mark.parametrize("name", ["hat_model.conv_last.bias", "out_conv.weight"])
def test_no_sink_takes_it(dtype, name):
    x = torch.rand(1, 3, 16, 16)
    shape = (1, 3, 32, 32)
    out = torch.zeros(shape, dtype=dtype) if isinstance(dtype, torch.dtype) else np.zeros(shape, dtype)
    with pytest.raises(FloatingPointError, match="precision fp32"):
        broken(name).tiled(x, out=out, tile=8, halo=0)
    assert not out.any()
    hat = broken("hat_model.conv_last.bias").hat_model
    with torch.no_grad(), pytest.raises(FloatingPointError, match="precision fp32"):
        tiled_apply(hat, x, plan_tiles(16, 16, tile=8, halo=0, window=8), scale=2, out=out)
    assert not out.any()


def test_what_is_returned_is_left_to_who_asked():
    """A validation while training, say, which has its own way with it."""
    model, x = broken("hat_model.conv_last.bias"), torch.rand(1, 3, 16, 16)
    assert model.tiled(x, tile=8)[0].isnan().any() and model.whole(x).isnan().any()
    for value in (float("nan"), float("inf")):
        with pytest.raises(FloatingPointError, match="NaN or infinity in 25 % of its pixels"):
            to_integers(torch.tensor([0.0, 0.1, value, 1.0]).expand(3, 1, 4))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (overflowing(), ["--precision", "fp16"], "at precision fp16: numbers above 65504"),
        (broken("out_conv.bias"), [], "weights hold NaN or infinity (out_conv.bias), so no precision helps"),
    ],
    ids=["fp16", "weights"],
)
def test_the_command_writes_nothing_and_counts_the_file_as_failed(model, options, said, picture, tmp_path, capsys):
    save_model(tmp_path / "model.safetensors", model)
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "in" / name, picture)
    arguments = [tmp_path / "model.safetensors", tmp_path / "in", tmp_path / "out", "--device", "cpu", *options]
    assert main(["upscale", *map(str, arguments)]) == 1
    printed = capsys.readouterr()
    assert "0 written, 0 skipped because they exist, 2 failed" in printed.out and printed.err.count(said) == 2
    assert not [path for path in tmp_path.rglob("out/*") if path.is_file()]
