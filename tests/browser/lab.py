"""JupyterLab on a folder, opened in headless Chromium: what the browser tests share."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]


@contextmanager
def opened(folder: Path, width: int = 1500, height: int = 1300) -> Iterator[tuple[Page, str]]:
    """A page, and the address of JupyterLab in `folder`, with settings of its own; both end with the block.

    Kernels import the srlib of this checkout.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        sys.exit("no Chromium found: install the package chromium, or set CHROMIUM=/path/to/chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as private:
        quiet = Path(private) / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false"}')  # nor is it asked about
        lab = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={address.rpartition(':')[2]}"]
            + ["--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token=", f"--notebook-dir={folder}"]
            + [f"--LabApp.user_settings_dir={private}/settings", f"--LabApp.workspaces_dir={private}/workspaces"]
            + ["--LabApp.news_url=None"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            _wait_for(f"{address}/lab")
            with sync_playwright() as play:
                browser = play.chromium.launch(
                    executable_path=chromium,
                    args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
                )
                yield browser.new_page(viewport={"width": width, "height": height}), f"{address}/lab/tree"
                browser.close()
        finally:
            lab.terminate()
            lab.wait(30)


def run_all(page: Page, seconds: int = 60) -> None:
    """Run > Run All Cells, as soon as there is a kernel: a cell run before that is run by nobody."""
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=seconds * 1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def _wait_for(url: str, seconds: int = 60) -> None:
    for _ in range(seconds):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(1)
    sys.exit(f"JupyterLab did not answer at {url} within {seconds} s")
