import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from srlib.show.gallery import write_gallery


def test_pages_hold_texts_tables_and_figures_of_the_notebooks(executed, folder, tmp_path):
    pages = write_gallery([folder / f"outputs/demo/{name}.ipynb" for name in executed], tmp_path / "results")
    assert [page.stem for page in pages] == list(executed)
    listed = (tmp_path / "results/README.md").read_text()
    for page in pages:
        text = page.read_text()
        figures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
        assert figures and f"]({page.name})" in listed and "# parameters" not in text
        for figure in figures:
            assert Image.open(page.parent / figure).width <= 1100
        cells = executed[page.stem].cells
        drawn = [o for c in cells if "not-in-report" not in c.metadata.get("tags", ()) for o in c.get("outputs", ())]
        assert len(figures) == sum("image/png" in o.get("data", {}) for o in drawn)
    assert sum(f.stat().st_size for f in (tmp_path / "results").iterdir()) < 4e6
    means = pd.read_csv(folder / "outputs/demo/eval/means.csv")
    best = means["PSNR-Y"].max()
    assert f"{best:.2f}" in (tmp_path / "results/05_eval.md").read_text()


def numbers_in(value) -> Iterator[float]:
    """All numbers of what JSON holds, those in texts too."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, str):
        yield from map(float, re.findall(r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?(?![\w.])", value))
    elif isinstance(value, int | float):
        yield float(value)


def test_each_number_of_a_table_is_in_the_run_s_files(executed, folder, tmp_path):
    out = folder / "outputs/demo"
    known = [n for file in out.rglob("*.json") for n in numbers_in(json.loads(file.read_text()))]
    for file in out.rglob("*.csv"):
        with file.open(newline="") as rows:
            known += numbers_in(list(csv.reader(rows)))
    known = np.array(known)
    for page in write_gallery([folder / f"outputs/demo/{name}.ipynb" for name in executed], tmp_path / "results"):
        for line in page.read_text().splitlines():
            for text in re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", line if line.startswith("|") else ""):
                half = 0.500001 * 10.0 ** -len(text.partition(".")[2])
                units = (1, 100, 255, 1e-6)  # shares in %, differences in levels, counts in millions
                assert any((abs(known * unit - float(text)) <= half).any() for unit in units), (page.name, text, line)


def test_tables_keep_their_heads_and_rows(tmp_path):
    index = pd.MultiIndex.from_tuples([("a | b", "x"), ("a | b", "y")], names=["model", "way"])
    frame = pd.DataFrame({("dB", "TC"): [1.5, 2.5], ("dB", "SGR"): [3, 4]}, index=index)
    pivoted = pd.DataFrame({"p": ["one", "two"], "w": ["u", "v"], "v": [1, 2]}).pivot(
        index="p", columns="w", values="v"
    )
    outputs = [
        new_output("display_data", {"text/html": f.to_html(na_rep=""), "text/plain": "no"}) for f in (frame, pivoted)
    ]
    printed = new_output(
        "stream", name="stdout", text="stage1: 3/9 steps, 2 steps/s\nread /home/me/outputs/a b\nkept\n"
    )
    cells = [new_markdown_cell("# Title\n\n| a |\n|---|"), new_code_cell("1", outputs=[*outputs, printed])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "n.ipynb")
    (page,) = write_gallery([tmp_path / "n.ipynb"], tmp_path / "results")
    lines = page.read_text().splitlines()
    assert (
        lines[0] == "# Title"
        and {"kept", "read outputs/a b"} <= set(lines)
        and not any("steps/s" in line for line in lines)
    )
    rows = [[v.strip() for v in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0] == ["model", "way", "dB TC", "dB SGR"]
    assert rows[2:4] == [["a / b", "x", "1.5", "3"], ["a / b", "y", "2.5", "4"]]
    assert rows[4] == ["p", "u", "v"] and rows[6] == ["one", "1.0", ""]


def test_pages_of_other_days_stay_listed(tmp_path):
    for name in ("b", "a"):
        cells = [new_markdown_cell(f"# Title {name}"), new_code_cell("1", outputs=[new_output("stream", text="1\n")])]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        write_gallery([tmp_path / f"{name}.ipynb"], tmp_path / "results")
    listed = (tmp_path / "results/README.md").read_text()
    assert listed.index("[Title a](a.md)") < listed.index("[Title b](b.md)")


def test_a_figures_text_is_the_paragraph_above_it(tmp_path):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    cells = [new_markdown_cell("# Title\n\nOther.\n\nTwo lines\nof *one*.")]
    cells += [new_code_cell("1", outputs=[new_output("display_data", {"image/png": png}) for _ in range(2)])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "n.ipynb")
    (page,) = write_gallery([tmp_path / "n.ipynb"], tmp_path / "results")
    assert page.read_text().count("![Two lines of one.](") == 2


def test_what_was_not_run_is_named(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="n.ipynb holds no outputs"):
        write_gallery([tmp_path / "n.ipynb"], tmp_path / "results")
    assert not (tmp_path / "results").exists()


def _run_notebook(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    cells = [new_markdown_cell("# Title"), new_code_cell("1", outputs=[new_output("stream", text="1\n")])]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_folder_of_other_things_and_two_notebooks_of_one_name_are_refused(tmp_path):
    one, two = (_run_notebook(tmp_path / name / "photo.ipynb") for name in ("a", "b"))
    (tmp_path / "mine").mkdir()
    for name in ("README.md", "photo.md", "photo_1.png"):
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(ValueError, match="mine holds other things than a gallery"):
        write_gallery([one], tmp_path / "mine")
    assert {file.read_text() for file in (tmp_path / "mine").iterdir()} == {"mine"}
    with pytest.raises(ValueError, match="two notebooks are called photo"):
        write_gallery([one, two], tmp_path / "results")
    write_gallery([one], tmp_path / "results")
    for name in ("photo_of_cat.png", "photo_7.png"):
        (tmp_path / "results" / name).write_text("mine")
    write_gallery([one], tmp_path / "results")
    assert {file.name for file in (tmp_path / "results").iterdir()} == {"README.md", "photo.md", "photo_of_cat.png"}
