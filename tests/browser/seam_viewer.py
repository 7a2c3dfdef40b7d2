"""The seam viewer in a real browser: dragged, zoomed, clicked, in JupyterLab with a kernel and in a page without one.

`make browser-test` runs it. Needs Chromium (Debian's package, or CHROMIUM=/path/to/it) and playwright. Prints how long
a frame takes while the wipe is dragged and the wheel is rolled, and a new tiling of 256x256 LR pixels beside what the
network took. Screenshots are written to outputs/browser/.
"""

import base64
import io
import re
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
from lab import opened, run_all
from PIL import Image
from playwright.sync_api import Page

SHOTS = Path(__file__).parents[2] / "outputs" / "browser"
FRAME = 30  # milliseconds, the most that a frame may take
BESIDE = 0.2  # seconds, the most that a new tiling may take beside its network
NOTEBOOK = """
import torch
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation
from srlib.show.seam_viewer import SeamViewer

torch.manual_seed(0)
hat = start_as_interpolation(HAT(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=4))
with torch.no_grad():
    for name, parameter in hat.named_parameters():
        if "layers" in name and parameter.ndim > 1:
            parameter.mul_(4)  # so that it looks beyond its tile
squares = torch.rand(3, 16, 16).repeat_interleave(16, 1).repeat_interleave(16, 2)
models = {"one": TiledSR(hat, channels=8).eval(), "two": TiledSR(hat, channels=8).eval()}
viewer = SeamViewer({"squares": (squares, None), "dots": (torch.rand(3, 96, 128), None)}, models, tiles=(16, 32, 64))
viewer.write_page("page.html", [{"tile": 64}, {"shows": "bicubic"}])
viewer
"""
# Frames from one to the next while `act` moves something at each: what a person sees as smooth, painting included.
FRAMES = """async ([selector, act]) => {
    const canvas = document.querySelector(selector), box = canvas.getBoundingClientRect(), times = []
    const at = (x) => ({ bubbles: true, cancelable: true, pointerId: 1, clientX: box.x + x, clientY: box.y + 200 })
    const send = (type, x) => canvas.dispatchEvent(new PointerEvent(type, at(x)))
    canvas.setPointerCapture = () => {}
    if (act == "wipe") send("pointerdown", 320)
    let before = 0
    for (let i = 0; i < 60; i++) {
        const now = await new Promise(requestAnimationFrame)
        if (before) times.push(now - before)
        before = now
        if (act == "wipe") send("pointermove", 320 + 2 * i)
        else canvas.dispatchEvent(new WheelEvent("wheel", { ...at(300), deltaY: i % 8 < 4 ? -100 : 100 }))
    }
    if (act == "wipe") send("pointermove", 320), send("pointerup", 320)
    times.sort((a, b) => a - b)
    return [times[times.length >> 1], times[Math.floor(times.length * 0.95)]]
}"""
# Seconds from a choice in a menu until the answer is shown, and whether it was said that it computes.
CHOOSE = """async ([selector, value]) => {
    const menu = document.querySelector(selector), busy = document.querySelector(".seams .busy")
    const began = performance.now()
    menu.value = value
    menu.dispatchEvent(new Event("change"))
    const spun = !busy.hidden
    await new Promise((done) => {
        new MutationObserver(() => busy.hidden && done()).observe(busy, { attributes: true })
        if (busy.hidden) done()
    })
    return [(performance.now() - began) / 1000, spun]
}"""
CANVAS = ".seams .frame canvas"
BUSY = ".seams .busy"


def main() -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cell = nbformat.v4.new_code_cell(NOTEBOOK.strip())
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), Path(folder) / "viewer.ipynb")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).save(f"{folder}/own.png")
        with opened(Path(folder)) as (page, address):
            page.goto(f"{address}/viewer.ipynb")
            try:
                _in_lab(page, Path(folder) / "own.png")
                page.context.set_offline(True)
                page.goto(f"file://{folder}/page.html")
                _without_a_kernel(page)
            except Exception:
                page.screenshot(path=SHOTS / "failed.png")
                raise
    print(f"the viewer works; screenshots in {SHOTS}")


def _in_lab(page: Page, own: Path) -> None:
    """Run the cell, then do what a person would do."""
    page.get_by_text("import torch").first.wait_for(timeout=60_000)
    run_all(page)
    page.locator(CANVAS).wait_for(timeout=120_000)
    time.sleep(2)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    _look(page, "1_start")
    _gestures(page, "lab")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells, "a key went to JupyterLab"

    before = _seen(page)
    took, spun = page.evaluate(CHOOSE, ["select[name=a-tile]", "16"])
    network = float(_row(page, "computed in")[0].split()[0])
    print(f"a new tiling of 256x256 LR pixels: {took:.2f} s, of which the network {network:.2f} s")
    assert spun and took < network + BESIDE, f"{took - network:.2f} s beside the network's {network:.2f} s"
    assert (_seen(page) != before).any(), "another tiling is not shown"
    known = [page.evaluate(CHOOSE, ["select[name=a-tile]", tile])[0] for tile in ("32", "16", "32", "16")]
    print(f"tilings that are known: {min(known):.2f} to {max(known):.2f} s")

    halo, shows = page.locator("select[name=b-halo]"), page.locator("select[name=b-shows]")
    assert halo.is_disabled(), "side B is whole: a halo has no effect"
    shows.select_option("tiled")
    page.locator(BUSY).wait_for(state="hidden")
    assert halo.is_enabled() and page.locator("select[name=b-model]").is_enabled()
    page.locator("select[name=b-model]").select_option("two")
    page.locator("select[name=b-statistics]").select_option("exact")  # while it still computes: none is lost
    page.wait_for_function("document.querySelectorAll('.seams .chip')[1].textContent.includes('exact')")
    page.locator(BUSY).wait_for(state="hidden")
    assert page.locator("select[name=b-model]").input_value() == "two" and halo.is_disabled()
    chips = page.locator(".seams .chip").all_inner_texts()
    assert chips[0].startswith("A one tile 16") and chips[1].startswith("B two exact"), chips
    _look(page, "5_two_models")

    page.locator(".seams input[type=file]").set_input_files(own)
    page.wait_for_function("document.querySelector('.seams .said').textContent.includes('own.png')")
    _look(page, "6_own_picture")


def _without_a_kernel(page: Page) -> None:
    page.locator(CANVAS).wait_for()
    time.sleep(0.5)
    _gestures(page, "page")
    before = _seen(page)
    page.locator(".seams select").nth(1).select_option("bicubic")
    time.sleep(0.5)
    assert (_seen(page) != before).any() and "PSNR" not in page.locator(".seams").inner_text()
    _look(page, "7_page")


def _gestures(page: Page, where: str) -> None:
    """All that the browser does by itself; each must change what is seen, and reset must bring it back."""
    box = page.locator(CANVAS).bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x, box["y"] + y

    page.mouse.dblclick(*at(100, 100))
    start = _seen(page)

    page.mouse.move(*at(320, 200))
    page.mouse.down()
    page.mouse.move(*at(500, 220), steps=8)
    page.mouse.up()
    wiped = _seen(page)
    moved = (wiped != start).any((0, 2)).nonzero()[0]
    assert moved.min() >= 308 and moved.max() <= 512, f"the wipe changed columns {moved.min()} to {moved.max()}"
    _look(page, f"2_wiped_{where}")
    page.keyboard.press("a")
    a = _seen(page)
    page.keyboard.press("b")
    b = _seen(page)
    assert (a[:, :490] == wiped[:, :490])[24:].mean() > 0.99 and (a != b).any(), "A and B do not blink"
    page.keyboard.press("d")
    difference = _seen(page)
    page.locator(".seams input[type=range]").fill("64")
    assert (_seen(page) != difference).any(), "the gain changes nothing"
    _look(page, f"3_difference_{where}")
    page.keyboard.press("w")
    page.mouse.dblclick(*at(100, 100))
    assert (_seen(page) == start).all(), "a double click does not reset"

    for _ in range(3):
        page.mouse.move(*at(200, 150))
        page.mouse.wheel(0, -120)
        time.sleep(0.1)
    zoom = int(re.search(r"zoom (\d+)", page.locator(".seams .said").inner_text())[1])
    page.mouse.move(*at(320, 490))  # outside: no seam is marked under the pointer
    zoomed = _seen(page)
    inside = zoomed[60:440, 20:300].astype(int)  # without chips, ticks and the wipe's line
    for axis in (0, 1):  # every pixel begins on one grid of `zoom` screen pixels, and there is detail to see it by
        edges = np.diff(inside, axis=axis).any((1 - axis, 2)).nonzero()[0]
        assert zoom > 1 and len(edges) > 5 and len(set(edges % zoom)) == 1, f"pixels are not square at zoom {zoom}"
    page.mouse.move(*at(150, 300))
    page.mouse.down()
    page.mouse.move(*at(210, 340), steps=6)
    page.mouse.up()
    panned = _seen(page)
    assert (panned[110:400, 110:270] == zoomed[70:360, 50:210]).mean() > 0.97, "the picture does not follow the pointer"

    item = page.locator(".seams ol button").last
    item.click()
    assert (_seen(page) != panned).any(), "the list of seams leads nowhere"
    gone = _seen(page)
    overview = page.locator(".seams .below canvas").bounding_box()
    page.mouse.click(overview["x"] + 20, overview["y"] + 20)
    assert (_seen(page) != gone).any(), "the overview leads nowhere"
    page.mouse.dblclick(*at(100, 100))
    page.mouse.move(*at(*_seam(page)))
    time.sleep(0.1)
    assert page.locator(CANVAS).evaluate("e => e.style.cursor") == "pointer", "a seam cannot be clicked"
    before = _seen(page)
    page.mouse.down()
    page.mouse.up()
    assert (_seen(page) != before).any(), "a click on a seam leads nowhere"
    page.mouse.move(*at(100, 470))
    time.sleep(0.1)
    page.mouse.dblclick(*at(100, 100))
    with page.expect_download() as saved:
        page.keyboard.press("s")
    picture = np.asarray(Image.open(saved.value.path()).convert("RGB"))
    assert picture.shape == (480, 640, 3) and saved.value.suggested_filename.endswith("_wipe.png")

    for act in ("wipe", "zoom"):
        middle, slow = page.evaluate(FRAMES, [CANVAS, act])
        print(f"{where}, {act}: {middle:.0f} ms a frame, the 95th percentile {slow:.0f}")
        assert middle < FRAME, f"{act}: {middle:.0f} ms a frame"
    page.mouse.dblclick(*at(100, 100))


def _seam(page: Page) -> tuple[float, float]:
    """Where a column's tick stands in the frame, left of the wipe's line, away from rows' ticks."""
    tick = (np.abs(_seen(page)[2].astype(int) - [0, 183, 199]).sum(-1) < 30).nonzero()[0]
    return float(tick[tick > 30].min()), 93.0


def _row(page: Page, name: str) -> list[str]:
    return page.locator(".seams tr", has_text=name).locator("td").all_inner_texts()[1:]


def _seen(page: Page) -> np.ndarray:
    """The frame's pixels, (480, 640, 3)."""
    time.sleep(0.15)
    page.evaluate("new Promise(requestAnimationFrame)")
    encoded = page.locator(CANVAS).evaluate("e => e.toDataURL().split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def _look(page: Page, name: str) -> None:
    page.screenshot(path=SHOTS / f"{name}.png")


if __name__ == "__main__":
    main()
