"""The seam viewer in a real browser: JupyterLab in headless Chromium, controls moved, the picture seen to change.

`make browser-test` runs it. Needs Chromium (Debian's package, or CHROMIUM=/path/to/it) and playwright. Screenshots are
written to outputs/browser/.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
from lab import opened, run_all
from PIL import Image
from playwright.sync_api import Locator, Page

SHOTS = Path(__file__).parents[2] / "outputs" / "browser"
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
x = torch.rand(3, 12, 16).repeat_interleave(8, 1).repeat_interleave(8, 2)
model = TiledSR(hat, channels=8).eval()
viewer = SeamViewer({"squares": (x, None)}, {"random": model}, tiles=(16, 32, 64), halos=(0, 8, 16))
viewer.widget
"""


def main() -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cell = nbformat.v4.new_code_cell(NOTEBOOK.strip())
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), Path(folder) / "viewer.ipynb")
        with opened(Path(folder)) as (page, address):
            page.goto(f"{address}/viewer.ipynb")
            try:
                _use(page)
            except Exception:
                page.screenshot(path=SHOTS / "failed.png")
                raise
    print(f"the viewer works; screenshots in {SHOTS}")


def _use(page: Page) -> None:
    """Run the cell, then move controls as a person would; every one must change the picture shown."""
    page.get_by_text("import torch").first.wait_for(timeout=60_000)
    run_all(page)
    image = page.locator("img.widget-image")
    image.wait_for(timeout=120_000)
    time.sleep(1)
    page.screenshot(path=SHOTS / "1_start.png")
    picture = _shown(page, image)

    steps = {
        "2_tile_dragged": lambda: _drag(page, "tile, LR px", 120),
        "3_wipe_dragged": lambda: _drag(page, "wipe", 60),
        "4_difference": lambda: page.get_by_role("button", name="difference", exact=True).click(),
        "5_exact": lambda: (
            page.locator(".widget-dropdown", has_text="statistics").locator("select").select_option(label="exact")
        ),
        "6_profile": lambda: page.get_by_role("button", name="profile", exact=True).click(),
    }
    for name, act in steps.items():
        act()
        picture = _changed(page, image, picture, name)
        page.screenshot(path=SHOTS / f"{name}.png")
        print(f"{name}: the picture changed")
    text = page.locator(".widget-html-content").last.inner_text()
    assert "TC" in text and "SGR" in text, f"the metrics are missing: {text!r}"


def _drag(page: Page, label: str, pixels: int) -> None:
    """Drag the handle of the slider with this label to the right (left where there is no more room)."""
    row = page.locator(".widget-inline-hbox", has=page.get_by_text(label, exact=True))
    box = row.locator(".noUi-handle").bounding_box()
    track = row.locator(".noUi-base").bounding_box()
    if box["x"] + pixels > track["x"] + track["width"]:
        pixels = -pixels
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=8)
    page.mouse.up()


def _shown(page: Page, image: Locator) -> np.ndarray:
    """The pixels of the picture in the browser's own image element."""
    encoded = page.evaluate(
        "async e => Array.from(new Uint8Array(await (await fetch(e.src)).arrayBuffer()))", image.element_handle()
    )
    return np.asarray(Image.open(io.BytesIO(bytes(encoded))).convert("RGB"))


def _changed(page: Page, image: Locator, before: np.ndarray, name: str) -> np.ndarray:
    for _ in range(60):
        now = _shown(page, image)
        if now.shape != before.shape or (now != before).any():
            time.sleep(1)  # a drag passes several values: look at the last
            return _shown(page, image)
        time.sleep(0.5)
    page.screenshot(path=SHOTS / f"{name}_failed.png")
    sys.exit(f"{name}: the picture did not change within 30 s; see {SHOTS}")


if __name__ == "__main__":
    main()
