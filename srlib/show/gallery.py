"""Executed notebooks as Markdown pages with their figures, for those who browse the repository: `srlib gallery FILES`.

What is in each was computed when the notebook ran: its texts, printed lines, tables and figures; no code.
"""

import base64
import glob
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from nbformat import NotebookNode
from PIL import Image

from srlib.files import atomic, check_writable
from srlib.show.report import HIDDEN, executed

_BY = "What the executed notebooks show, written by `make gallery`."  # in the README of a folder that is a gallery
_WIDE = 1100  # pixels of a picture at most
_COLOURS = 128  # of a palette: figures of lines and text lose nothing that one sees, photographs little
_ABOVE = re.compile(r"(?<!\S)/\S*/(?=outputs/)")  # where the project lay when it ran
_PROGRESS = re.compile(r"^\S[^\n]*: \d+/\d+ [a-z]+, |\d+%\||it/s")


def write_gallery(notebooks: Sequence[Path | str], folder: Path | str) -> list[Path]:
    """Write each executed notebook as folder/<name>.md, with folder/<name>_<n>.png, and a README.md that lists all.

    Returns the pages. Raises, and writes nothing, FileNotFoundError or ValueError for what is no executed notebook, for
    two of one name, and for a folder that holds other things than a gallery.
    """
    folder, names = Path(folder), [Path(notebook).stem for notebook in notebooks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two notebooks are called {twice[0]}, and would be one page: rename one")
    check_writable(folder)
    contents, readme = [executed(notebook) for notebook in notebooks], folder / "README.md"
    own = readme.is_file() and _BY in readme.read_text(encoding="utf-8", errors="replace")
    if folder.exists() and not own and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other things than a gallery, which could be overwritten: choose a new folder")
    if not own:
        _write(readme, ["# Results", "", _BY])
    pages = [_page(content, name, folder) for content, name in zip(contents, names, strict=True)]
    there = sorted(page for page in folder.glob("*.md") if page != readme)  # those of other days, too
    titles = [(page.name, page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for page in there]
    _write(readme, ["# Results", "", _BY, "", *(f"- [{title}]({name})" for name, title in titles)])
    return pages


def _page(content: NotebookNode, name: str, folder: Path) -> Path:
    for old in folder.glob(f"{glob.escape(name)}_*.png"):
        if old.stem.removeprefix(f"{name}_").isdecimal():
            old.unlink()
    lines: list[str] = []
    number = 0
    for cell in content.cells:
        if cell.cell_type == "markdown":
            lines += [*(line for line in cell.source.splitlines() if not line.startswith("|")), ""]
        elif cell.cell_type == "code" and HIDDEN not in cell.metadata.get("tags", ()):
            for kind, value in _shown(cell):
                if kind == "png":
                    number += 1
                    target = folder / f"{name}_{number}.png"
                    _write_small(value, target)
                    lines += [f"![{_last_text(lines)}]({target.name})", ""]
                else:
                    lines += [value, ""]
    page = folder / f"{name}.md"
    _write(page, lines)
    return page


def _shown(cell: NotebookNode) -> Iterator[tuple[str, str]]:
    """("png", base64) and ("text", Markdown) of what a code cell has put out."""
    for output in cell.get("outputs", ()):
        if output.output_type == "stream" and output.name == "stdout":
            said = [line for line in _ABOVE.sub("", output.text).splitlines() if line.strip()]
            said = [line for line in said if not _PROGRESS.search(line)]
            if said:
                yield "text", "\n".join(["```text", *said, "```"])
        data = output.get("data", {})
        if "image/png" in data:
            yield "png", data["image/png"]
        elif "text/html" in data and "<table" in data["text/html"]:
            yield "text", _markdown(data["text/html"])


def _markdown(html: str) -> str:
    """The first table of a page, as Markdown; several rows of heads are joined, cells that span rows are repeated."""
    table: Any = BeautifulSoup(html, "html.parser").find("table")
    grid: list[list[str]] = []
    spans: dict[tuple[int, int], str] = {}
    heads = 0
    for number, row in enumerate(table.find_all("tr")):
        cells: list[Any] = row.find_all(["th", "td"])
        values: list[str] = []
        heads += row.find_parent("thead") is not None
        for cell in cells:
            while (number, len(values)) in spans:
                values.append(spans[number, len(values)])
            text = " ".join(cell.get_text().split()).replace("|", "/")
            for below in range(1, int(cell.get("rowspan", 1))):
                spans[number + below, len(values)] = text
            values += [text] * int(cell.get("colspan", 1))
        grid.append(values)
    width = max(len(row) for row in grid)
    grid = [[*row, *[""] * (width - len(row))] for row in grid]
    head = grid[:heads] or [[""] * width]
    if heads > 1 and not all(head[-1]):  # pandas' row of the index's names, which are alone in their columns
        upper = [[old if not name else "" for old, name in zip(row, head[-1], strict=True)] for row in head[:-1]]
        head = [*upper, head[-1]]
    names = [" ".join(filter(None, dict.fromkeys(column))) for column in zip(*head, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * width, *grid[heads:]])


def _write_small(encoded: str, target: Path) -> None:
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > _WIDE:
        picture = picture.resize((_WIDE, round(picture.height * _WIDE / picture.width)), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as temporary:
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(temporary, "png", optimize=True)


def _last_text(lines: Sequence[str]) -> str:
    """The last paragraph or title before a figure, as its alternative text."""
    last: list[str] = []
    for line in reversed(lines):
        if line and line[0] not in "!|" and not line.startswith("```"):
            last.insert(0, line)
        elif last:
            break
    return re.sub(r"[\[\]*#`]", "", " ".join(last)).strip() or "figure"


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n", encoding="utf-8")
