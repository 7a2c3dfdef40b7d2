"""An executed notebook as one HTML file to send on: `srlib report outputs/demo/05_eval.ipynb`.

Texts, tables and figures without the code; pictures are inside, nothing is fetched when it is opened.
"""

from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from traitlets.config import Config

from srlib.files import atomic

HIDDEN = "not-in-report"  # cells with this tag leave no output: progress, widgets


def write_report(notebook: Path | str, html: Path | str) -> Path:
    """Write the executed `notebook` as `html`, atomically. ValueError when it has not been executed."""
    content = nbformat.read(notebook, as_version=4)
    if not any(cell.get("outputs") for cell in content.cells):
        raise ValueError(f"{notebook} holds no outputs: run it first (make, papermill, or Run All Cells and save)")
    config = Config()
    config.TagRemovePreprocessor.remove_all_outputs_tags = {HIDDEN}
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    first = content.cells[0].source.splitlines()[0].lstrip("# ") if content.cells else Path(notebook).stem
    content.metadata["title"] = first
    content.metadata.pop("widgets", None)  # they would fetch their code; without a kernel they show nothing
    exporter = HTMLExporter(config=config, exclude_input=True, mathjax_url="", require_js_url="", jquery_url="")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    body, _ = exporter.from_notebook_node(content)
    with atomic(html) as temporary:
        temporary.write_text(_described(body), encoding="utf-8")
    return Path(html)


def _described(page: str) -> str:
    """Every figure with the text above it as its alternative text, for those who do not see it."""
    soup, text, number = BeautifulSoup(page, "html.parser"), "", 0
    for cell in soup.select(".jp-Cell"):
        if "jp-MarkdownCell" in cell["class"]:
            text = " ".join(cell.get_text().split())
        for image in cell.select("img"):
            number += 1
            image["alt"] = f"Figure {number}. {text}"
    return str(soup)
