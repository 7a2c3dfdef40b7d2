"""`--halo auto` and `srlib reach`, and the reach kept by content."""

import numpy as np
import pytest
import torch
from small_networks import strong

from srlib.__main__ import main
from srlib.data.drawings import draw
from srlib.data.pictures import Picture, read_picture, to_float, to_integers, write_picture
from srlib.inference import auto_halo
from srlib.inference.auto_halo import AutoHalo, reach_of
from srlib.inference.upscale import upscale
from srlib.networks.checkpoints import save_model
from srlib.networks.eraser import TiledSR

TINY = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window_size": 8}


@pytest.fixture
def model():
    return TiledSR(strong(**TINY), channels=8).eval()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/srlib"


def test_the_reach_is_found_once_and_kept_by_content(model, cache, monkeypatch):
    found = reach_of(model)
    assert found.scale == 2 and found.period == 8 and found.statistics == {"means": 2}
    (kept,) = cache.iterdir()
    monkeypatch.setattr(auto_halo, "find_reach", None)  # not run again
    assert reach_of(model) == found
    assert reach_of(TiledSR(model.hat_model, channels=16).eval()) == found  # the eraser is no part of it
    with torch.no_grad():
        model.hat_model.conv_last.weight += 1
    with pytest.raises(TypeError):
        reach_of(model)  # other weights
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    kept.write_text("[]")
    reach_of(model)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_cache_and_a_folder_that_cannot_be_written_are_no_trouble(model, cache, tmp_path, monkeypatch):
    found = reach_of(model)
    (kept,) = cache.iterdir()
    for damage in ("", "[]", '{"scale": 2}', '{"notes": [], "colour": 1}'):
        kept.write_text(damage)
        assert reach_of(model).pixels == found.pixels
    (tmp_path / "file").write_text("")
    assert reach_of(model, folder=tmp_path / "file").pixels == found.pixels  # no folder, whoever runs this
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # nobody's home
    monkeypatch.chdir(tmp_path)
    assert reach_of(model).pixels == found.pixels and not (tmp_path / "~").exists()
    short = reach_of(model, seconds=0.0, folder=tmp_path / "short")
    assert short.halo is None and not (tmp_path / "short").exists()  # nor is what was not found kept


@pytest.mark.parametrize("statistics", ["local", "two_pass"])
def test_the_python_way(model, statistics):
    picture = Picture(draw(0, 64, 160))
    auto, report = upscale(model, picture, halo="auto", tile=16, statistics=statistics)
    (note,) = (note for note in report.notes if note.startswith("context"))
    how = ": every tile reads the whole picture" if statistics == "local" else ", measured: at "
    assert note.startswith(f"context {report.plan.halo}{how}")
    with torch.no_grad():
        whole = to_integers(model(to_float(picture.rgb)[None])[0])
    same, _ = upscale(model, picture, halo=report.plan.halo, tile=16, statistics=statistics)
    assert (same.rgb == auto.rgb).all()
    if statistics == "two_pass":
        assert (auto.rgb != whole).mean() < 0.01
        bounded, less = upscale(model, picture, halo=AutoHalo(decibels=25), tile=16, statistics=statistics)
        assert less.plan.halo < report.plan.halo and bounded.rgb.shape == auto.rgb.shape
    exact, report = upscale(model, picture, halo="auto", statistics="exact")
    assert np.abs(exact.rgb.astype(int) - whole).max() <= 1 and "context" not in str(report.notes)


def test_the_commands(model, tmp_path, capsys, cache):
    checkpoint = str(save_model(tmp_path / "m.safetensors", model))
    assert main(["reach", checkpoint]) == 0
    said = capsys.readouterr().out
    assert "grid           8: tiles begin at multiples of it" in said and "yes: 2 means" in said and cache.exists()
    write_picture(tmp_path / "in.png", Picture(draw(0, 64, 96)))
    line = ["upscale", checkpoint, str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--statistics", "two_pass"]
    assert main([*line, "--halo", "auto", "--tile", "16"]) == 0
    assert "   context " in capsys.readouterr().out and read_picture(tmp_path / "out.png").rgb.shape == (128, 192, 3)
    assert main([*line, "--halo", "auto", "--halo-db", "30", "--tile", "16", "--overwrite"]) == 0
    for more, says in [
        (["--halo", "some"], "--halo some: give a number of LR pixels, or auto"),
        (["--halo-db", "60"], "--halo-db is for --halo auto"),
        (["--halo", "12"], "must be multiples of the model's window, 8"),
    ]:
        assert main([*line, *more]) == 2 and says in capsys.readouterr().err
    assert main([*line[:-1], "exact", "--halo", "auto", "--overwrite"]) == 0
    assert "context" not in capsys.readouterr().out
