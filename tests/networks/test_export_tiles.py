"""The tile network and the eraser as ONNX files, put together by the example, give PyTorch's picture."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tilings import tiled

from srlib.__main__ import main
from srlib.networks.checkpoints import save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.export_tiles import eraser_path, example_inputs, export_tiles, why_no_eraser
from srlib.networks.hat import HAT
from srlib.networks.initial import start_far_reaching
from srlib.tiling.plan import plan_tiles
from srlib.tiling.seam_map import seam_map

EXAMPLE = Path(__file__).parents[2] / "examples/tiles_onnx.py"
upscale = runpy.run_path(str(EXAMPLE))["upscale"]
TINY = {"embed_dim": 18, "depths": (1,), "num_heads": (3,), "window_size": 8, "squeeze_factor": 4}


def erasing(scale=2, **arguments) -> TiledSR:
    """An eraser that changes a lot."""
    torch.manual_seed(scale)
    known = {"tile_size": 16, "tile_pad": 8, "channels": 8, "blocks": 1, "gains": [[0, 0.5], [8, 0.3]], "radius": 5}
    hat = start_far_reaching(HAT(**{**TINY, **arguments.pop("hat", {})}, upscale=scale))
    model = TiledSR(hat, use_tiling=True, **{**known, **arguments}).eval()
    torch.nn.init.normal_(model.out_conv.weight, std=0.5)
    return model


def sessions(paths):
    return [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in paths]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A model, and the sessions of its two files for tiles of 16 pixels with 8 of context."""
    model = erasing()
    return model, sessions(export_tiles(model, tmp_path_factory.mktemp("two") / "m.onnx", tile=16))


@pytest.mark.parametrize("size", [(48, 64), (41, 67), (32, 33), (33, 90), (64, 40)])
def test_the_example_gives_pytorchs_picture(two, size):
    model, (network, eraser) = two
    x = torch.rand(1, 3, *size)
    sr, stitched = upscale(x.numpy(), network, eraser), upscale(x.numpy(), network)
    with torch.no_grad():
        expected, report = model.tiled(x)
        assert np.abs(sr - expected.numpy()).max() < 1e-4
        assert any(report.seams)
        assert np.abs(stitched - tiled(model.hat_model, x, scale=2, tile=16, halo=8, window=8)[0].numpy()).max() < 1e-4
    assert np.abs(sr - stitched).max() > 0.1


@pytest.mark.parametrize("size", [(20, 24), (9, 70), (5, 3), (1, 1)])
def test_pictures_smaller_than_a_tile_are_padded_to_one(two, size):
    model, (network, eraser) = two
    x = torch.rand(1, 3, *size)
    pad = [max(-n % 8, 32 - n) for n in size]
    mode = "reflect" if pad[0] < size[0] and pad[1] < size[1] else "replicate"
    padded = F.pad(x, (0, pad[1], 0, pad[0]), mode=mode)
    with torch.no_grad():
        stitched, report = tiled(model.hat_model, padded, scale=2, tile=16, halo=8, window=8)
        stitched = stitched[..., : size[0] * 2, : size[1] * 2]
        seams = seam_map(report.plan.seams(1), range(size[0]), range(size[1]), radius=5, context=8)
        expected = model.erase(stitched, x, seams, model.unit(8))
    assert np.abs(upscale(x.numpy(), network, eraser) - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": 1},
        {"scale": 3, "hat": {"in_chans": 1}},
        {"sees": []},
        {"sees": ["lr"]},
        {"tile_pad": 0},
        {"radius": 12},
        {"hat": {"window_size": 4}, "tile_size": 12, "tile_pad": 4},
    ],
    ids=str,
)
def test_any_kind_of_eraser(arguments, tmp_path):
    model = erasing(**arguments)
    files = export_tiles(model, tmp_path / "m.onnx", tile=model.tile_size)
    assert files == [tmp_path / "m.onnx", eraser_path(tmp_path / "m.onnx")] and set(files) == set(tmp_path.iterdir())
    x = torch.rand(1, model.hat_model.config["in_chans"], 45, 53)
    sr = upscale(x.numpy(), *sessions(files))
    assert np.abs(sr - model.tiled(x)[0].numpy()).max() < 1e-4


def test_files_say_what_they_are(tmp_path):
    files = export_tiles(erasing(), tmp_path / "m.onnx", tile=24, halo=0)
    facts = {"scale": "2", "tile": "24", "halo": "0", "window": "8", "radius": "5", "range": "0 to 1"}
    shapes, weights = {}, set()
    for path in files:
        onnx.checker.check_model(path)
        proto = onnx.load(path)
        told = {p.key: p.value for p in proto.metadata_props}
        weights.add(told.pop("weights"))
        assert told == facts
        values = (*proto.graph.input, *proto.graph.output)
        shapes[path] = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    assert len(weights) == 1  # by which the two know each other
    lr, sr = [1, 3, "height", "width"], [1, 3, "2*height", "2*width"]
    assert shapes[files[0]] == {"lr": [1, 3, 24, 24], "sr": [1, 3, 48, 48]}
    assert shapes[files[1]] == {"stitched": sr, "lr": lr, "seams": [1, 4, "height", "width"], "sr": sr}
    assert not any("hat_model" in i.name for i in onnx.load(files[1]).graph.initializer)


def test_files_of_two_exports_are_refused(two, tmp_path):
    other = export_tiles(two[0], tmp_path / "m.onnx", tile=24)
    with pytest.raises(ValueError, match="not of one export"):
        upscale(np.zeros((1, 3, 40, 40), np.float32), two[1][0], sessions(other)[1])


def test_an_eraser_that_does_nothing_is_not_written(tmp_path):
    for model, halo, why in (
        (erasing(), 16, "does nothing for tiles with a halo of 16"),
        (erasing(gains=[]), 8, "does nothing for tiles with a halo of 8"),
        (erasing(radius=0), 8, "older kind"),
    ):
        assert export_tiles(model, tmp_path / "m.onnx", tile=16, halo=halo) == [tmp_path / "m.onnx"]
        assert why in why_no_eraser(model, halo)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]
    assert why_no_eraser(erasing(), 8) is None


def test_what_the_export_is_compared_with_has_seams():
    inputs = example_inputs(erasing(scale=3), 40, 32, tile=16, halo=8)
    plan = plan_tiles(40, 32, tile=16, halo=8, window=8)
    assert torch.equal(inputs["seams"], erasing().seen(plan)) and inputs["seams"].any()
    assert [tuple(v.shape) for v in inputs.values()] == [(1, 3, 120, 96), (1, 3, 40, 32), (1, 4, 40, 32)]


def test_command_and_example_as_they_are_called(tmp_path, capsys):
    model = erasing()
    checkpoint = str(save_model(tmp_path / "m.safetensors", model))
    assert main(["export", checkpoint, str(tmp_path / "m.onnx"), "--tile", "16"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("largest difference") == 3 and printed.count("MiB") == 2
    changes = re.findall(r"it changes up to (\S+)", printed)
    assert len(changes) == 2 and all(float(change) > 0.1 for change in changes)  # both pictures have seams
    picture = torch.randint(0, 256, (40, 53, 3), dtype=torch.uint8)
    np.save(tmp_path / "lr.npy", picture.numpy())
    names = [str(tmp_path / name) for name in ("lr.npy", "sr.npy", "m.onnx", "m_eraser.onnx")]
    subprocess.run([sys.executable, str(EXAMPLE), *names], check=True)
    expected = model.tiled(picture.permute(2, 0, 1)[None] / 255)[0][0].clamp(0, 1) * 255
    sr = np.load(tmp_path / "sr.npy")
    assert sr.dtype == np.uint8 and sr.shape == (80, 106, 3)
    assert np.abs(sr - expected.permute(1, 2, 0).numpy()).max() < 0.6
    assert main(["export", checkpoint, str(tmp_path / "n.onnx"), "--tile", "16", "--halo", "16"]) == 0
    assert "the eraser does nothing for tiles with a halo of 16" in capsys.readouterr().out
    assert not (tmp_path / "n_eraser.onnx").exists()
    assert main(["export", checkpoint, str(tmp_path / "m.onnx"), "--tile", "16", "--halo", "16"]) == 0
    (tmp_path / "n_eraser.onnx").write_bytes(b"mine")
    assert main(["export", checkpoint, str(tmp_path / "n.onnx"), "--tile", "16", "--halo", "16"]) == 0
    assert (tmp_path / "n_eraser.onnx").read_bytes() == b"mine"
    assert not (tmp_path / "m_eraser.onnx").exists()  # of the first export, it would erase what is no error here


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tile", "20"], "tile 20 is not a multiple of the window 8"),
        (["--tile", "16", "--halo", "12"], "halo 12 is not a multiple of the window 8"),
        (["--tile", "0"], "tile 0 must be at least 1"),
        (["--halo", "8"], "--halo is the context of tiles: give their size with --tile, too"),
    ],
)
def test_what_cannot_be_exported_is_refused(options, complaint, tmp_path, capsys):
    checkpoint = str(save_model(tmp_path / "m.safetensors", erasing()))
    assert main(["export", checkpoint, str(tmp_path / "m.onnx"), *options]) == 2
    assert complaint in capsys.readouterr().err and not (tmp_path / "m.onnx").exists()


def test_the_example_is_short_and_needs_numpy_and_onnxruntime_only():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) < 60
    assert [line for line in lines if line.startswith(("import", "from"))] == [
        "import sys",
        "import numpy as np",
        "import onnxruntime",
    ]
