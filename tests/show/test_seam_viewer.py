"""The visualizer without a browser: set values, decode the picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation
from srlib.show import picture_figures
from srlib.show.seam_viewer import BEFORE, VIEWS, SeamViewer


@pytest.fixture
def viewer() -> SeamViewer:
    hat = start_as_interpolation(HAT(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=4))
    with torch.no_grad():
        for parameter in hat.parameters():
            parameter.mul_(3)  # an untrained HAT hardly looks beyond a tile; this one does
    models = {"stage 1": TiledSR(hat, channels=8).eval()}
    pictures = {
        "a": (torch.rand(3, 48, 64), torch.rand(3, 96, 128)),
        "b": (torch.rand(3, 40, 40), None),
    }
    return SeamViewer(pictures, models, tiles=(16, 32), halos=(0, 8), crop=96)


@pytest.fixture
def erasing(viewer) -> SeamViewer:
    """The same network, without an eraser and with one of each kind that changes what it may."""
    hat, models = viewer.models["stage 1"].hat_model, dict(viewer.models)
    for radius, gains in ((4, [(0, 0.05)]), (0, ())):
        models[f"radius {radius}"] = TiledSR(hat, channels=8, blocks=1, radius=radius, gains=gains).eval()
        torch.nn.init.normal_(models[f"radius {radius}"].out_conv.weight, std=0.1)
    return SeamViewer(viewer.pictures, models, tiles=(16, 32), halos=(0, 8), crop=96)


def shown(viewer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(viewer.image.value)))


def test_wipe_shows_tiled_left_and_whole_right(viewer):
    viewer.position.value = 1.0
    zoom = shown(viewer).shape[0] // 96
    expected = {k: picture_figures.to_array(viewer.result(k)[:, :96, :96]) for k in ("tiled", "whole")}
    assert np.array_equal(shown(viewer)[::zoom, ::zoom], expected["tiled"])
    viewer.position.value = 0.0
    assert np.array_equal(shown(viewer)[::zoom, ::zoom], expected["whole"])
    viewer.position.value = 0.5
    middle = shown(viewer)[::zoom, ::zoom]
    assert np.array_equal(middle[:, :48], expected["tiled"][:, :48])
    assert np.array_equal(middle[:, 49:], expected["whole"][:, 49:])


def test_every_view_and_setting_changes_the_picture(viewer):
    seen = [shown(viewer).tobytes()]
    for control, value in [
        (viewer.tile, 16),
        (viewer.view, "difference"),
        (viewer.gain, 60),
        (viewer.halo, 8),
        (viewer.blend, "mean"),
        (viewer.statistics, "exact"),
        (viewer.right, "bicubic"),
        (viewer.right, "HR"),
        (viewer.left_edge, 20),
        (viewer.view, "profile"),
        (viewer.view, "blink"),
        (viewer.blink, 1),
    ]:
        control.value = value
        seen.append(shown(viewer).tobytes())
        assert seen[-1] != seen[-2], control.description


def test_difference_has_its_scale_and_the_seams_outside(viewer):
    viewer.view.value, viewer.gain.value = "difference", 51
    axis = viewer.figure().axes[1]
    image = axis.images[0]
    difference = viewer.result("tiled")[:, :96, :96] - viewer.result("whole")[:, :96, :96]
    assert image.get_clim() == (-5, 5) and image.get_cmap().name == "RdBu_r"  # levels
    assert np.allclose(abs(image.get_array()), difference.abs().amax(0) * 255, atol=1e-3)
    assert axis.get_yticks().tolist() == [63.5] and axis.get_xticks().tolist() == [63.5]  # tile 32 at x2


def test_difference_of_equal_pictures_is_white_all_over(viewer):
    viewer.left.value = viewer.right.value = "whole"
    viewer.view.value = "difference"
    picture = shown(viewer).astype(int)
    middle = picture[picture.shape[0] // 4 : -picture.shape[0] // 4, picture.shape[1] // 4 : picture.shape[1] // 2]
    assert (middle == middle[0, 0]).all() and middle[0, 0].min() > 240
    assert (abs(picture - [0, 183, 199]).sum(-1) < 20).any()  # ticks


def test_jump_moves_the_crop_to_a_seam(viewer):
    viewer.crop.value = 32
    viewer.tile.value = 16
    top, left = viewer.jump_to_worst()
    assert (viewer.top.value, viewer.left_edge.value) == (top, left)
    rows, columns = viewer._tiled()[1].seams
    assert any(top < c < top + 32 for c in rows) or any(left < c < left + 32 for c in columns)


def test_results_are_computed_once_per_setting(viewer):
    calls = []
    model = viewer.models["stage 1"]
    original = model.tiled
    model.tiled = lambda *a, **k: calls.append(1) or original(*a, **k)
    viewer.tile.value = 16
    viewer.view.value = "difference"
    viewer.tile.value = 32
    viewer.tile.value = 16
    assert len(calls) == 1  # 32 was computed when the viewer was made


def test_exact_statistics_leave_nothing_to_see(viewer):
    assert viewer.report()["TC"] < 100
    viewer.statistics.value = "exact"
    assert viewer.report()["TC"] > 110 and viewer.report()["differing_share"] < 1e-3
    assert abs(viewer.figure().axes[1].images[0].get_array()).max() < 0.1  # levels


def test_picture_without_hr(viewer):
    viewer.picture.value = "b"
    assert "PSNR-Y tiled" not in viewer.report()
    assert "TC" in viewer.metrics.value
    with pytest.raises(ValueError, match="b has no HR picture"):
        viewer.right.value = "HR"


def test_static_twin_leaves_the_settings(viewer):
    figure = viewer.figure()
    assert len(figure.axes) == 4 and viewer.view.value == VIEWS[0]  # the fourth is the colour bar


def test_the_tiles_are_shown_before_and_after_the_eraser(viewer, erasing):
    assert BEFORE not in viewer.left.options  # there is no eraser to leave out
    plain = viewer.result("tiled")
    for stage in ("radius 4", "radius 0"):
        erasing.stage.value = stage
        assert torch.equal(erasing.result(BEFORE), plain) and not torch.equal(erasing.result("tiled"), plain)
        assert f"TC {BEFORE}" not in erasing.report()
        erasing.left.value = BEFORE
        report = erasing.report()
        if stage == "radius 4":  # the other kind changes the whole picture as well
            assert report[f"TC {BEFORE}"] == viewer.report()["TC"]
        assert report["TC"] != report[f"TC {BEFORE}"] and f"TC {BEFORE}" in erasing.metrics.value
        assert len(erasing.figure().axes[2].lines) == 2
        erasing.left.value = "tiled"
    assert erasing.models["radius 4"].gains == [[0.0, pytest.approx(0.05)]]  # as they were


def test_the_worst_seam_is_that_of_the_side_that_is_looked_at(erasing):
    erasing.stage.value, erasing.crop.value, erasing.tile.value = "radius 4", 32, 16
    erasing.left.value = BEFORE
    before = erasing.jump_to_worst()
    erasing.stage.value, erasing.left.value = "stage 1", "tiled"
    assert erasing.jump_to_worst() == before
