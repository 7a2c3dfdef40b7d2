"""An executed notebook as one HTML file to send on: `srlib report outputs/demo/05_eval.ipynb`.

Texts, tables and figures without the code; pictures are inside, nothing is fetched when it is opened. First the title
and the conclusion, then the notebook's cells, last what it reads and writes and its parameters.
"""

import ast
from pathlib import Path

import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from traitlets.config import Config

from srlib.experiments.notebook import existing_file
from srlib.files import atomic, check_suffix, check_writable

HIDDEN = "not-in-report"  # cells with this tag leave no output: progress, widgets
FIRST = "first-in-report"  # cells with this tag stand right below the title: the conclusion


def executed(notebook: Path | str) -> NotebookNode:
    """An executed notebook's content. FileNotFoundError saying what there is when it does not exist, ValueError when it
    is no notebook or has not been executed.
    """
    try:
        content = nbformat.read(existing_file(notebook, Path.cwd()), as_version=4)
        run = any(cell.get("outputs") for cell in content.cells)
    except (ValueError, nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is no notebook that Jupyter could open") from error
    if not run:
        raise ValueError(f"{notebook} holds no outputs: run it first (make, papermill, or Run All Cells and save)")
    return content


def write_report(notebook: Path | str, html: Path | str) -> Path:
    """Write the executed `notebook` as `html`, atomically. ValueError for another suffix, so that no notebook
    is overwritten, and what `executed` raises.
    """
    check_suffix(html, ".html", ".htm")
    check_writable(Path(html).parent)
    content = executed(notebook)
    config = Config()
    config.TagRemovePreprocessor.remove_all_outputs_tags = {HIDDEN}
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    content.metadata["title"] = content.cells[0].source.partition("\n")[0].lstrip("# ")
    content.cells = _ordered(content.cells)
    content.metadata.pop("widgets", None)  # they would fetch their code; without a kernel they show nothing
    exporter = HTMLExporter(config=config, exclude_input=True, mathjax_url="", require_js_url="", jquery_url="")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    body, _ = exporter.from_notebook_node(content)
    with atomic(html) as temporary:
        temporary.write_text(_described(body), encoding="utf-8")
    return Path(html)


def _ordered(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Title, conclusion, the rest in its order; last the head's table and the parameters with their meanings."""
    head, *rest = cells
    if head.cell_type != "markdown":
        return cells
    title, _, text = head.source.partition("\n")
    said = [line for line in text.splitlines() if not line.startswith("|")]
    listed = [line for line in text.splitlines() if line.startswith("|")]
    first = [cell for cell in rest if FIRST in cell.metadata.get("tags", ())]
    rest = [cell for cell in rest if cell not in first]
    ends = []
    if parameters := _parameters(rest):
        table = pd.DataFrame(parameters, columns=["parameter", "value", "meaning"])
        with pd.option_context("display.max_colwidth", None):
            ends.append(f"## Parameters\n\n{table.to_html(index=False)}")
    if listed:
        ends.insert(0, "\n".join(["## Files", "", *listed]))
    texts = [new_markdown_cell("\n".join(said))] if any(said) else []
    return [new_markdown_cell(title), *first, *texts, *rest, *(new_markdown_cell(end) for end in ends)]


def _parameters(cells: list[NotebookNode]) -> list[tuple[str, str, str]]:
    """(name, value, comment) of the cell tagged parameters, with the values that papermill injected."""
    found: dict[str, tuple[str, str]] = {}
    for tag in ("parameters", "injected-parameters"):
        for cell in (c for c in cells if tag in c.metadata.get("tags", ())):
            lines = cell.source.splitlines()
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign):
                    name = ast.unparse(node.targets[0])
                    comment = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode()
                    meaning = found[name][1] if name in found else comment.strip().lstrip("# ")
                    found[name] = ast.get_source_segment(cell.source, node.value) or "", meaning
    return [(name, *rest) for name, rest in found.items()]


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
