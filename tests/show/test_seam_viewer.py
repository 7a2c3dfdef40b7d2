"""The seam viewer by its state, without a browser: what the browser gets for what it asks."""

import base64
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image
from small_networks import strong

from srlib.data.pictures import write_png
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.show import picture_figures, seam_viewer
from srlib.show.report import write_report
from srlib.show.seam_viewer import SeamViewer
from srlib.show.sides import BEFORE, Side


@pytest.fixture
def hat() -> HAT:
    return strong(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8)  # looks beyond its tile


@pytest.fixture
def viewer(hat) -> SeamViewer:
    """One network, without an eraser and with one of each kind that changes what it may."""
    models = {"stage 1": TiledSR(hat, channels=8).eval()}
    for radius, gains in ((4, [(0, 0.05)]), (0, ())):
        models[f"radius {radius}"] = TiledSR(hat, channels=8, blocks=1, radius=radius, gains=gains).eval()
        torch.nn.init.normal_(models[f"radius {radius}"].out_conv.weight, std=0.1)
    pictures = {"a": (torch.rand(3, 48, 64), torch.rand(3, 96, 128)), "b": (torch.rand(3, 40, 40), None)}
    return SeamViewer(pictures, models, tiles=(16, 24, 32), halos=(0, 4, 8))


def shown(viewer, side="a") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(viewer.shown[side]["png"])))


def asking(viewer, serial=1, picture=None, **sides) -> None:
    """As the browser does: all settings, some of them changed."""
    settings = {**viewer.shown["settings"], "serial": serial}
    settings |= {side: settings[side] | changes for side, changes in sides.items()}
    viewer.asked = settings | ({"picture": picture} if picture else {})


def test_each_side_has_its_own_model_and_tiling(viewer):
    viewer.show(a={"tile": 16}, b={"shows": "tiled", "model": "radius 4", "tile": 32, "halo": 8, "blend": "ramp"})
    lr, models = viewer.results.pictures["a"][0][None], viewer.results.models
    for side, way in (("a", {"tile": 16, "halo": 0}), ("b", {"tile": 32, "halo": 8, "blend": "ramp"})):
        model = models["stage 1" if side == "a" else "radius 4"]
        expected = model.tiled(lr, batch=16, **way)[0][0]
        assert np.array_equal(shown(viewer, side), picture_figures.to_array(expected))
    assert viewer.shown["a"]["parts"] == ["stage 1", "tile 16", "halo 0"]
    assert viewer.shown["b"]["parts"] == ["radius 4", "tile 32", "halo 8", "ramp"]
    assert viewer.shown["a"]["seams"] == [[32, 64], [32, 64, 96]] and viewer.shown["b"]["seams"] == [[], [64]]


def test_every_setting_changes_the_picture_and_those_without_effect_none(viewer):
    seen = [viewer.result("a").picture.numpy().tobytes()]  # not 8 bits: what two_pass changes may be less
    for change in (
        {"tile": 16},
        {"halo": 8},
        {"blend": "mean"},
        {"statistics": "two_pass"},
        {"model": "radius 0"},
        {"statistics": "exact"},
        {"shows": "bicubic"},
        {"shows": "HR"},
    ):
        asking(viewer, len(seen), a=change)
        seen.append(viewer.result("a").picture.numpy().tobytes())
        assert seen[-1] != seen[-2] and viewer.shown["serial"] == len(seen) - 1, change
    computed = len(viewer.results._kept)
    for change in ({"tile": 32}, {"halo": 0}, {"model": "stage 1"}):  # of HR
        asking(viewer, 9, a=change)
        assert viewer.result("a").picture.numpy().tobytes() == seen[-1]
    assert len(viewer.results._kept) == computed


def test_it_begins_with_a_seam_and_figures_that_do_not_exist_are_named(hat):
    small = SeamViewer({"a": (torch.rand(3, 32, 40), None)}, {"m": TiledSR(hat).eval()}, tiles=(8, 16, 32, 64))
    assert small.a.tile == 16 and small.shown["a"]["seams"][0]
    small.show(a={"tile": 64})
    rows = dict(small.shown["a"]["rows"])
    assert rows["TC"] == "equal" and rows["SGR"] == "not defined"


def test_what_has_an_effect_is_said_for_every_kind(viewer):
    counts = viewer.choices["matters"]
    assert counts["HR"]["local"] == counts["bicubic"]["local"] == [] and counts["whole"]["local"] == ["model"]
    assert set(counts["tiled"]["local"]) - set(counts["tiled"]["exact"]) == {"halo", "blend"}
    for kind, ways in counts.items():
        for way, names in ways.items():
            assert Side(kind, statistics=way).matters == tuple(names)
    assert viewer.choices["models"]["stage 1"]["halo"] == [0, 8]  # 4 is off the window's grid
    assert BEFORE not in viewer.choices["models"]["stage 1"]["shows"]  # there is no eraser to leave out
    assert viewer.choices["pictures"] == {"a": True, "b": False}


def test_pictures_and_figures_are_computed_once(viewer, monkeypatch):
    calls = []
    for module, name in ((seam_viewer.TiledSR, "tiled"), (seam_viewer.TiledSR, "whole")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, o=original, n=name, **k: calls.append(n) or o(*a, **k))
    monkeypatch.setattr("srlib.show.sides.seam_report", lambda *_: calls.append("figures") or {})
    asking(viewer, 1, a={"tile": 16})
    assert calls == ["tiled", "figures"]  # the whole picture was computed when the viewer was made
    for serial, tile in enumerate((32, 16, 32, 16), 2):
        asking(viewer, serial, a={"tile": tile})
    asking(viewer, 7, a={"tile": 16}, b={"shows": "tiled", "tile": 16})
    assert calls == 2 * ["tiled", "figures"]


def test_exact_statistics_leave_nothing_to_see(viewer):
    assert viewer.result("a").figures["TC"] < 100
    asking(viewer, a={"statistics": "exact"})
    figures = viewer.result("a").figures
    assert figures["TC"] > 110 and figures["differing_share"] < 1e-3
    assert viewer.shown["a"]["parts"] == ["stage 1", "exact, chunks of 24"]
    assert abs(viewer.figure().axes[1].images[0].get_array()).max() < 0.1  # levels


def test_a_model_s_own_tiles_are_taken_when_it_has_no_such(viewer):
    viewer._offered["radius 4"] |= {"tile": [16, 48], "statistics": ["local"]}
    viewer.show(a={"statistics": "exact", "tile": 32})
    asking(viewer, a={"model": "radius 4"})
    assert (viewer.a.model, viewer.a.tile, viewer.a.statistics) == ("radius 4", 16, "local")
    with pytest.raises(ValueError, match="radius 4: tile 32 is none of 16, 48"):
        viewer.show(a={"tile": 32})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"picture": "c"}, "no picture 'c'; there are a, b"),
        ({"a": {"model": "x"}}, "no model 'x'; there are stage 1, radius 4, radius 0"),
        ({"a": {"shows": BEFORE}}, "stage 1: shows 'not erased' is none of tiled, whole"),
        ({"a": {"colour": 1}}, "a side has no colour; it has shows, model"),
        ({"picture": "b", "a": {"shows": "HR"}}, "b has no HR picture to compare with"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_changes_nothing(viewer, given, said):
    before = viewer.shown
    with pytest.raises(ValueError, match=re.escape(said)):
        viewer.show(**given)
    assert viewer.shown == before and viewer.picture == "a"


def test_a_failure_is_said_in_the_browser_which_does_not_wait_for_ever(viewer, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("out of memory with one tile")

    before = viewer.shown
    monkeypatch.setattr(viewer.results, "_computed", broken)
    with pytest.raises(MemoryError):
        asking(viewer, 5, a={"tile": 16})
    assert viewer.shown == {**before, "serial": 5, "error": "out of memory with one tile"} and viewer.a.tile == 24
    monkeypatch.undo()
    asking(viewer, 6, a={"tile": 16})
    assert "error" not in viewer.shown and viewer.shown["serial"] == 6


def test_a_picture_without_hr(viewer):
    asking(viewer, b={"shows": "HR"})
    assert "PSNR-Y" in dict(viewer.shown["a"]["rows"])
    asking(viewer, 2, "b")
    rows = dict(viewer.shown["a"]["rows"])
    assert "PSNR-Y" not in rows and rows["TC"].endswith(" dB") and viewer.b.shows == "whole"  # HR is not to be had


def test_the_tiles_are_shown_before_and_after_the_eraser(viewer):
    plain = viewer.result("a").picture
    for model in ("radius 4", "radius 0"):
        viewer.show(a={"model": model, "shows": BEFORE}, b={"model": model, "shows": "tiled", "tile": 24})
        assert torch.equal(viewer.result("a").picture, plain) and not torch.equal(viewer.result("b").picture, plain)
        assert viewer.result("a").figures["TC"] != viewer.result("b").figures["TC"]
        assert len(viewer.figure().axes[2].lines) == 2
        assert viewer.shown["a"]["parts"] == [model, "tile 24", "halo 0", BEFORE]
        assert viewer.shown["b"]["parts"] == [model, "tile 24", "halo 0", "erased"]
    assert viewer.results.models["radius 4"].gains == [[0.0, pytest.approx(0.05)]]  # as they were


def test_the_worst_seams_are_listed_and_the_first_is_gone_to(viewer):
    viewer.show(a={"tile": 16})
    worst = viewer.shown["a"]["worst"]
    assert len(worst) == 10 and worst == sorted(worst, key=lambda piece: -piece["rms"])
    top, left = viewer.jump_to_worst(32)
    assert viewer.looked_at == {"top": top, "left": left, "size": 32}
    rows, columns = viewer.shown["a"]["seams"]
    assert any(top < c < top + 32 for c in rows) or any(left < c < left + 32 for c in columns)
    viewer.show(a={"shows": "whole"})
    assert viewer.shown["a"]["worst"] == [] and viewer.jump_to_worst(32)  # there is none: the middle


def test_the_static_twin_shows_both_sides_and_their_difference(viewer):
    viewer.show(a={"tile": 32})
    viewer.look_at(20, 40, 64)
    figure = viewer.figure()
    wipe, difference = figure.axes[0].images[0].get_array(), figure.axes[1].images[0]
    a, b = (picture_figures.to_array(viewer.result(s).picture)[20:84, 40:104] for s in "ab")
    assert np.array_equal(wipe[:, :32], a[:, :32]) and np.array_equal(wipe[:, 32:], b[:, 32:])
    assert difference.get_cmap().name == "RdBu_r" and figure.axes[1].get_yticks().tolist() == [43.5]
    expected = (viewer.result("a").picture - viewer.result("b").picture)[:, 20:84, 40:104]
    assert np.allclose(abs(difference.get_array()), expected.abs().amax(0) * 255, atol=1e-3)
    assert "stage 1, tile 32, halo 0, TC" in figure.get_suptitle()


def test_own_pictures_by_path_and_by_upload(viewer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    write_png(tmp_path / "mine.png", pixels)
    viewer.crop = 64
    viewer.add_file(tmp_path / "mine.png")
    assert viewer.shown["title"] == "mine.png" and viewer.choices["pictures"]["mine.png"] is False
    lr = viewer.results.pictures["mine.png"][0]
    assert np.array_equal(picture_figures.to_array(lr), pixels[3:67, 13:77])
    assert shown(viewer).shape == (128, 128, 3)
    before = viewer.result("a").picture
    write_png(tmp_path / "mine.png", 255 - pixels)
    content = (tmp_path / "mine.png").read_bytes()
    viewer._handle_custom_msg({"upload": "../mine.png", "serial": 7}, [memoryview(content)])
    assert viewer.shown["serial"] == 7 and not torch.equal(viewer.result("a").picture, before)
    with pytest.raises(ValueError, match=r"mine.txt is not a picture"):
        viewer._take(viewer, {"upload": "mine.txt", "serial": 8}, [memoryview(b"no picture")])
    assert "is not a picture" in viewer.shown["error"] and viewer.shown["serial"] == 8
    viewer.add_file(tmp_path / "mine.png", truth=True)
    assert viewer.results.pictures["mine.png"][1].shape == (3, 70, 90) and "PSNR-Y" in viewer.result("a").figures


def test_names_that_cannot_be_printed_are_escaped(hat):
    viewer = SeamViewer({"a\udcff": (torch.rand(3, 24, 24), None)}, {"x\ny": TiledSR(hat).eval()}, tiles=(8,))
    viewer.show("a\udcff", a={"model": "x\ny", "tile": 8})
    assert viewer.shown["title"] == "a\\xff" and viewer.shown["a"]["parts"][0] == "x\\ny"
    json.dumps([viewer.shown["settings"], viewer.choices])


def test_models_of_two_scales_are_refused(hat):
    other = HAT(embed_dim=8, depths=(1,), num_heads=(1,), window_size=8, squeeze_factor=4, upscale=3)
    with pytest.raises(ValueError, match="of one scale, not two x2, three x3"):
        SeamViewer({"a": (torch.rand(3, 24, 24), None)}, {"two": TiledSR(hat), "three": TiledSR(other)})


def inlined(page: str) -> dict:
    (script,) = BeautifulSoup(page, "html.parser").select('script[type="application/json"]')
    return json.loads(script.string)


def test_a_page_holds_its_pictures_and_fetches_nothing(viewer, tmp_path):
    page = viewer.write_page(tmp_path / "page.html", [{"halo": 8}, {"shows": "HR"}, {"shows": "HR", "tile": 16}])
    data = inlined(page.read_text())
    results = data["shown"]["results"]
    assert [r["parts"][-1] for r in results] == ["halo 0", "whole", "halo 8", "HR"]
    assert (data["shown"]["a"], data["shown"]["b"], data["still"]) == (0, 1, True)
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(results[0]["png"]))))
    assert np.array_equal(first, picture_figures.to_array(viewer.result("a").picture))
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:|//)", page.read_text()) and "import " not in page.read_text()


def test_of_a_large_picture_the_square_around_what_is_looked_at_is_inlined(viewer, monkeypatch):
    monkeypatch.setattr(seam_viewer, "_INLINED", 64)
    viewer.show(a={"tile": 16})
    viewer.look_at(30, 60, 32)
    data = inlined(viewer.html())
    first = data["shown"]["results"][0]
    assert data["looked_at"] == {"top": 16, "left": 16, "size": 32} and data["shown"]["title"].startswith(
        "a, 64 pixels"
    )
    assert first["seams"] == [[18, 50], [20, 52]]  # 32 - 14, 64 - 14; 64 - 44, 96 - 44
    for piece in first["worst"]:
        assert piece["at"] in first["seams"][piece["along"] == "column"]


@pytest.mark.parametrize(("height", "width"), [(20, 80), (80, 20), (20, 20)])
def test_a_long_pictures_title_says_that_it_is_cut(hat, monkeypatch, height, width):
    monkeypatch.setattr(seam_viewer, "_INLINED", 64)
    one = SeamViewer({"long": (torch.rand(3, height, width), None)}, {"m": TiledSR(hat, channels=8).eval()}, tiles=(8,))
    assert inlined(one.html())["shown"]["title"] == (
        "long" if height == width else f"long, 64 pixels of {2 * width}x{2 * height}"
    )


def test_what_is_looked_at_stays_within_a_smaller_picture(viewer):
    viewer.look_at(0, 90, 38)
    viewer.show("b")
    assert viewer.box == (0, 42, 38) and viewer.looked_at == {"top": 0, "left": 42, "size": 38}
    viewer.figure()
    viewer.show("a")
    assert tuple(viewer.looked_at.values()) == viewer.box == (0, 42, 38)
    viewer.look_at(0, 0, 300)
    viewer.show("a")
    viewer.figure()
    assert viewer.box[:2] == (0, 0)


def test_a_report_keeps_the_viewer_as_it_is(viewer, tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    html = viewer.html()
    cells = [
        new_markdown_cell("# A"),
        new_code_cell("1", outputs=[new_output("display_data", {"text/html": html, "text/plain": "x"})]),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    page = write_report(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    module = Path(seam_viewer.__file__).with_suffix(".js").read_text()
    assert module in page and inlined_data(page) == inlined(html)


def inlined_data(page: str) -> dict:
    (script,) = BeautifulSoup(page, "html.parser").select('script[id^="seams-"]')
    return json.loads(script.string)


def test_all_but_the_network_takes_less_than_a_fifth_of_a_second(hat):
    """A new tiling of 256x256 LR pixels, beside what the network itself takes; twice that on a busy machine."""
    pictures = {"a": (torch.rand(3, 256, 256), torch.rand(3, 512, 512))}
    viewer = SeamViewer(pictures, {"m": TiledSR(hat, channels=8).eval()}, tiles=(32, 64))
    begun = time.perf_counter()
    asking(viewer, a={"tile": 32 if viewer.a.tile == 64 else 64})
    beside = time.perf_counter() - begun - viewer.result("a").figures["seconds"]
    print(f"a new tiling of 256x256 LR pixels: the network's time and {1000 * beside:.0f} ms")
    assert beside < 0.4
