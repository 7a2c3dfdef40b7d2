"""Every notebook in a real browser: JupyterLab in headless Chromium, Run All Cells, and what a person then sees.

    PYTHONPATH=tests python tests/browser/notebooks.py [FOLDER FOR SCREENSHOTS [NOTEBOOK ...]]

`make browser-test` runs it. A copy of the project, the tiny parameters of tests/projects.py typed into the parameters
cells, `interactive = True` where there is a widget. No error, no stderr, every cell executed, every figure and widget
shown; the start page before anything is made and again at the end, and its links open the notebooks.
"""

import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import nbformat
from lab import opened, run_all
from playwright.sync_api import Page
from projects import ROOT, TINY, begin

START = "00_start_here"
PAGE = "a viewer without a kernel"
WIDGET = "application/vnd.jupyter.widget-view+json"
BROKEN = ("Loading widget", "model not found", "Error displaying widget", "Javascript Error")
STATE = """() => {
    const all = (selector) => Array.from(document.querySelectorAll('.jp-Notebook ' + selector))
    const text = (mime) => all(`[data-mime-type="application/vnd.jupyter.${mime}"]`).map(e => e.textContent)
    const drawn = (selector) => all(selector).filter(e => e.complete && e.naturalWidth > 0).length
    return {
        prompts: all('.jp-CodeCell .jp-InputArea-prompt').map(e => e.textContent),
        errors: text('error'),
        stderr: text('stderr'),
        text: all('.jp-Cell-outputArea').map(e => e.textContent).join('\\n'),
        figures: drawn('.jp-RenderedImage img'),
        links: all('.jp-RenderedMarkdown img').length - drawn('.jp-RenderedMarkdown img'),
        viewers: all('.seams').length,
        widgets: all('.seams input[type=file]').length,
        empty: all('.seams .frame canvas').filter(e => e.width < 600).length,
    }
}"""


def main(shots: Path, names: list[str]) -> None:
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    everything = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
    order = [n for n in everything if n in (names or everything)]
    order += [START] if START in order and len(order) > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        notebooks = begin(Path(folder)) / "notebooks"
        with opened(Path(folder), 1500, 1500) as (page, address):
            for i, name in enumerate(order):
                begun = time.monotonic()
                prefix = f"{name}_after" if name in order[:i] else name
                type_in(notebooks / f"{name}.ipynb")
                page.goto(f"{address}/notebooks/{name}.ipynb?reset")
                try:
                    found = run(page, notebooks / f"{name}.ipynb")
                finally:
                    photograph(page, shots, prefix)
                if name == START and name not in order[:i]:
                    follow_links(page, everything)
                print(f"{prefix}: {found}, {time.monotonic() - begun:.0f} s")
                page.get_by_role("menuitem", name="Kernel", exact=True).click()
                page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    print(f"all notebooks work; screenshots in {shots}")


def type_in(path: Path) -> None:
    """The tiny parameters into the parameters cell of a fresh copy, as a person would."""
    notebook = nbformat.read(ROOT / "notebooks" / path.name, 4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    declared = re.findall(r"^(\w+) = ", cell.source, re.MULTILINE)
    if path.stem not in TINY and set(declared) != {"run"}:
        sys.exit(f"tests/projects.py has no tiny parameters for {path.stem}: add them to TINY")
    values = TINY.get(path.stem, {}) | ({"interactive": True} if "interactive" in declared else {})
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    nbformat.write(notebook, path)


def run(page: Page, path: Path, seconds: int = 900) -> str:
    """Run all cells to the end and look at what is shown. Returns what was found; AssertionError on what is wrong."""
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    run_all(page)
    sources = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = page.evaluate(STATE)
        assert not state["errors"], f"{path.stem}: {state['errors'][0][-2000:]}"
        if len(state["prompts"]) == len(sources) and all(re.fullmatch(r"\[\d+\]:", p) for p in state["prompts"]):
            break
        time.sleep(1)
    else:
        raise AssertionError(f"{path.stem}: not all cells were executed within {seconds} s: {state['prompts']}")
    time.sleep(3)  # the last widget's picture, the last figure
    page.keyboard.press("Control+s")
    state, expected = page.evaluate(STATE), saved(path)
    assert not state["errors"] and not state["stderr"], f"{path.stem}: {state['errors'] + state['stderr']}"
    assert not [b for b in BROKEN if b in state["text"]], f"{path.stem}: a widget is not shown: {state['text'][-2000:]}"
    assert state["figures"] == expected["image/png"], f"{path.stem}: {state['figures']} figures, made {expected}"
    assert state["links"] == 0, f"{path.stem}: {state['links']} pictures of its text are missing"
    assert state["widgets"] == expected[WIDGET], f"{path.stem}: {state['widgets']} widgets, made {expected}"
    pages = state["viewers"] - state["widgets"]
    assert pages == expected[PAGE], f"{path.stem}: {pages} viewers without a kernel, made {expected}"
    for widget in page.locator(".jp-Notebook .seams").all():
        widget.scroll_into_view_if_needed()
        assert widget.is_visible(), f"{path.stem}: a widget is not to be seen"
    assert state["empty"] == 0, f"{path.stem}: viewers without a picture: {state}"
    asked = any("\ninteractive = True" in source for source in sources)
    assert state["widgets"] or not asked, f"{path.stem}: no widget"
    return f"{len(sources)} cells, {state['figures']} figures, {state['widgets']} widgets"


def saved(path: Path, seconds: int = 30) -> Counter:
    """Kinds of the outputs, as JupyterLab saved them."""
    for _ in range(seconds):
        with suppress(ValueError):  # half written
            codes = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
            if all(c.execution_count for c in codes):
                data = [o.get("data", {}) for c in codes for o in c.outputs]
                kinds = Counter(kind for of in data for kind in of)
                return kinds + Counter({PAGE: sum("standalone(" in of.get("text/html", "") for of in data)})
        time.sleep(1)
    raise AssertionError(f"{path.stem} was not saved")


def photograph(page: Page, shots: Path, prefix: str) -> None:
    """From top to bottom, a screen at a time."""
    panel = page.locator(".jp-NotebookPanel:visible .jp-WindowedPanel-outer").first
    panel.evaluate("e => e.scrollTo(0, 0)")
    for i in range(1, 40):
        time.sleep(0.5)
        page.screenshot(path=shots / f"{prefix}_{i}.png")
        if panel.evaluate(
            "e => { const y = e.scrollTop; e.scrollBy(0, e.clientHeight - 60); return e.scrollTop == y }"
        ):
            (shots / f"{prefix}_{i}.png").unlink() if i > 1 else None  # the same once more
            return


def follow_links(page: Page, everything: list[str]) -> None:
    """Every link of the start page to a notebook that is there opens it."""
    for name in everything:
        links = page.locator(f'.jp-NotebookPanel:visible .jp-MarkdownCell a:text-is("{name}")')
        if links.count():
            links.first.click()
            page.locator(".lm-TabBar-tab.lm-mod-current", has_text=f"{name}.ipynb").first.wait_for(timeout=30_000)
            page.locator(".lm-TabBar-tab", has_text=f"{START}.ipynb").first.click()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "outputs" / "browser" / "notebooks", sys.argv[2:])
