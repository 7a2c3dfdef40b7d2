"""The start page: with nothing made and with a run made up, its drawing, and what it says about results."""

import json
import os
import shutil

import nbformat
import pytest
from projects import NAMES, ROOT, execute

from srlib.show.diagrams import STEPS, data_flow
from srlib.show.headlines import HEADLINES, headline, made_so_far

MADE = {
    "data/data.json": {
        "split": {"a.png": "train", "b.png": "train", "c.png": "validation", "d.png": "test"},
        "scales": [2],
    },
    "stage1/metrics.json": {"baseline": "bicubic", "gain_over_baseline_db": 0.71},
    "tiling/metrics.json": {
        "gap_closed_percent": {"stage 1": 0.0, "stage 2": 10.6},
        "validation": {
            "bicubic | whole": {"PSNR-Y": 31.4},
            "stage 1 | tile 32 halo 0": {"TC": 43.5, "SGR": 1.8},
            "stage 2 | tile 32 halo 0": {"TC": 44.1, "SGR": 1.7},
            "stage 2 | tile 32 halo 8": {"TC": 94.1, "SGR": 1.0},
        },
    },
    "artifact_ft/metrics.json": {
        "validation": {
            "stage 1 | tile 32 halo 0": {"TC": 43.5, "SGR": 1.8},
            "stage 2 | tile 32 halo 0": {"TC": 44.1, "SGR": 1.7},
            "stage 3 | tile 32 halo 0": {"TC": 50.04, "SGR": 1.1},
        },
        "detector": {"average_precision": {"blocks": 0.95, "blur": 0.91}},
        "gap_closed_percent": {"stage 3": 33.1},
    },
    "eval/metrics.json": {
        "test": {
            "bicubic | whole": {"PSNR-Y": 31.4},
            "stage 1 | tile 32 halo 0": {"PSNR-Y": 32.0, "SGR": 1.81, "TC": 43.2},
            "stage 3 | tile 32 halo 0": {"PSNR-Y": 32.3, "SGR": 1.4, "TC": 49.0},
        }
    },
}


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "params").mkdir()
    return tmp_path


def make_up(out):
    for path, content in MADE.items():
        (out / path).parent.mkdir(parents=True)
        (out / path).write_text(json.dumps(content))
    for name in NAMES:
        (out / f"{name}.ipynb").write_text("{}")


def shown(done) -> tuple[str, int]:
    """The Markdown that the cells show, and how many pictures."""
    data = [o.get("data", {}) for c in done.cells if c.cell_type == "code" for o in c.outputs]
    return "\n".join(d["text/markdown"] for d in data if "text/markdown" in d), sum("image/png" in d for d in data)


def test_it_runs_with_nothing_made_and_writes_nothing(project):
    text, pictures = shown(execute(project, "00_start_here"))
    assert text.count("nothing yet") == len(STEPS) and "Next: [01_data](01_data.ipynb)" in text
    assert pictures == 1
    assert not (project / "outputs").exists()


def test_it_shows_what_is_made(project):
    out = project / "outputs/some"
    make_up(out)
    (out / "eval/figures").mkdir()
    (out / "eval/report.html").touch()
    shutil.copy(ROOT / "notebooks/images/demo.png", out / "eval/figures/crops_best.png")
    text, pictures = shown(execute(project, "00_start_here", run="some"))
    for said in (
        "4 pictures: 2 for training, 1 for validation, 1 for test; x2",
        "+0.71 dB PSNR-Y against bicubic",
        "stage 2 in tiles: TC 43.5 to 44.1 dB, SGR 1.80 to 1.70; stage 2 closes 11 % of the gap (validation)",
        "stage 3 in tiles: TC 43.5 to 50.0 dB, SGR 1.80 to 1.10; stage 3 closes 33 % of the gap (validation); ",
        "detector's worst average precision 0.91",
        "stage 3 in tiles: TC 43.2 to 49.0 dB, SGR 1.81 to 1.40; +0.90 dB PSNR-Y against bicubic (test)",
        "](../outputs/some/05_eval.ipynb)",
        "[eval](../outputs/some/eval/report.html)",
        "All five are done",
    ):
        assert said in text
    assert pictures == 2


def test_failed_begun_and_outdated_results_are_said(tmp_path):
    make_up(tmp_path)
    for name, how, age in (
        ("02_stage1", "failed", 10),
        ("03_tiling", "running", 10),
        ("04_artifact_ft", "failed", -10),
    ):
        other = tmp_path / f"{name}.{how}.ipynb"
        other.write_text("{}")
        time = (tmp_path / f"{name}.ipynb").stat().st_mtime + age
        os.utime(other, (time, time))
    for path, content in (("stage1", "{"), ("tiling", "[]"), ("eval", '{"test": {}}')):
        (tmp_path / path / "metrics.json").write_text(content)
    rows = {line.split(" | ")[0].strip("| "): line for line in made_so_far(tmp_path, tmp_path).splitlines()}
    assert "| failed [" in rows["02_stage1"] and "| begun [" in rows["03_tiling"] and "| [" in rows["04_artifact_ft"]
    for name in ("02_stage1", "03_tiling", "05_eval"):
        assert f"run {name} again" in rows[name]
    assert headline("06_ablation", tmp_path / "ablation") == ""


NOTHING = {
    "02_stage1": (
        {"baseline": "bicubic", "gain_over_baseline_db": None},
        "no PSNR-Y to compare against bicubic (validation)",
    ),
    "03_tiling": (
        {
            "gap_closed_percent": {"stage 1": None, "stage 2": None},
            "validation": {f"stage {i} | tile 8 halo 0": {"TC": 60.0 if i == 1 else None, "SGR": None} for i in (1, 2)},
        },
        "stage 2 in tiles: TC 60.0 to equal, no SGR; stage 2: no gap to close (validation)",
    ),
    "04_artifact_ft": (
        {
            "gap_closed_percent": {"stage 3": None},
            "detector": {"average_precision": {"blur": None, "seam": 0.9}},
            "validation": {"stage 3 | tile 8 halo 0": {"TC": None, "SGR": 1.0}},
        },
        "stage 3 in tiles: TC equal, SGR 1.00; stage 3: no gap to close (validation); detector's worst average "
        "precision 0.90",
    ),
    "05_eval": (
        {
            "test": {
                "bicubic | whole": {"PSNR-Y": None},
                "mine | tile 8 halo 0": {"PSNR-Y": 30.0, "SGR": None, "TC": 50.0},
            }
        },
        "mine in tiles: TC 50.0 dB, no SGR; no PSNR-Y to compare against bicubic (test)",
    ),
}


@pytest.mark.parametrize(("exact", "said"), [(None, "exact equal"), (131.2, "exact 131 dB")])
def test_exact_tiling_that_is_equal_is_no_nan(tmp_path, exact, said):
    ways = {"exact": {"TC, dB": exact}, "no context (chaiNNer)": {"TC, dB": 50.0}}
    (tmp_path / "metrics.json").write_text(json.dumps({"ways": ways, "parameters": {"model": "m"}, "reach": {"a": 1}}))
    assert headline("09_any_network", tmp_path) == f"1 networks; m: TC 50 to 50 dB by other tools, {said}"


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_not_known_is_said_in_words(tmp_path, name):
    metrics, said = NOTHING[name]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert headline(name, tmp_path) == said


def test_a_report_on_other_checkpoints_names_them(tmp_path):
    scores = {"bicubic | whole": {"PSNR-Y": 30.0}}
    for model, psnr, sgr in (("mine | v2", 31.0, 1.5), ("theirs", 32.5, 1.25)):
        scores |= {
            f"{model} | whole": {"PSNR-Y": 33.0},
            f"{model} | tile 64 halo 0": {"PSNR-Y": psnr, "SGR": sgr, "TC": 44.0},
        }
    (tmp_path / "metrics.json").write_text(json.dumps({"test": scores}))
    assert headline("05_eval", tmp_path) == (
        "theirs in tiles: TC 44.0 to 44.0 dB, SGR 1.50 to 1.25; +2.50 dB PSNR-Y against bicubic (test)"
    )
    kept = {"input | whole" if key == "bicubic | whole" else key: value for key, value in scores.items()}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": kept}))  # of networks that keep the size
    assert headline("05_eval", tmp_path).endswith("SGR 1.50 to 1.25; +2.50 dB PSNR-Y against the input (test)")
    one = {key: value for key, value in scores.items() if "theirs" not in key}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": one}))
    assert headline("05_eval", tmp_path) == (
        "mine | v2 in tiles: TC 44.0 dB, SGR 1.50; +1.00 dB PSNR-Y against bicubic (test)"
    )


def test_the_drawing_knows_every_notebook_of_make_and_what_it_reads():
    assert [s.name for s in STEPS if not s.beside] == NAMES
    assert set(HEADLINES) == {s.name for s in STEPS}
    texts = [t.get_text() for t in data_flow().axes[0].texts]
    for step in STEPS:
        assert step.name in texts
        notebook = ROOT / "notebooks" / f"{step.name}.ipynb"
        if notebook.exists() and not step.beside:  # its own head names the folders
            head = nbformat.read(notebook, 4).cells[0].source
            assert f"{step.folder}" in head, step.name


def test_its_links_lead_to_notebooks():
    cells = nbformat.read(ROOT / "notebooks/00_start_here.ipynb", 4).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for name in NAMES:
        assert f"[{name}]({name}.ipynb)" in text
