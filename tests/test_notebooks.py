"""A tiny run of every notebook through papermill, in a folder of its own, and what happens when the input is wrong."""

import ast
import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from projects import NAMES, ROOT, TINY, execute
from torchvision.models import alexnet

from srlib.data.datasets import PicturePairs
from srlib.data.drawings import draw
from srlib.data.pictures import read_picture, write_png
from srlib.data.resize import downscale_integers
from srlib.networks.hat import CONFIGS


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_runs_and_shows_figures_and_a_summary(executed, folder, name):
    cells = [c for c in executed[name].cells if c.cell_type == "code"]
    outputs = [o for c in cells for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr" and "Error" in o.text]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
    assert "written to outputs/demo/" in "".join(o.text for o in cells[-1].outputs if o.output_type == "stream")


def test_results_are_written_and_stage_3_left_hat_as_it_was(folder):
    from safetensors.torch import load_file

    base = folder / "outputs/demo"
    stage2, stage3 = (load_file(base / f / "best.safetensors") for f in ("tiling", "artifact_ft"))
    assert all((stage2[k] == stage3[k]).all() for k in stage2 if k.startswith("hat_model."))
    metrics = json.loads((base / "eval/metrics.json").read_text())
    split = json.loads((base / "data/data.json").read_text())["split"]
    assert {split[f"{name}.png"] for name in metrics["pictures"]} == {"test"}
    assert {"bicubic | whole", "stage 3 | tile 16 halo 0"} <= set(metrics["test"])
    assert not list(base.rglob("*.part*"))


def test_git_stays_clean_when_jupyterlab_saves_an_executed_notebook(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in (".gitattributes", "notebooks/00_start_here.ipynb", "notebooks/03_tiling.ipynb"):
        shutil.copy(ROOT / name, tmp_path / name)
    keys = re.search(r"^NBSTRIPOUT_KEYS := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)

    def git(*arguments: str) -> str:
        line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    install = [sys.executable, "-m", "nbstripout", "--install", "--attributes", ".gitattributes"]
    subprocess.run(install, cwd=tmp_path, check=True)
    git("config", "filter.nbstripout.extrakeys", keys)
    git("add", ".")
    git("commit", "-qm", "stored")
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        notebook.metadata.language_info = {"name": "python", "version": "3.12.1", "nbconvert_exporter": "python"}
        notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
        for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
            cell.execution_count = count
            cell.outputs = [nbformat.v4.new_output("stream", text="shown")]
        nbformat.write(notebook, path)
    assert git("diff") == ""
    git("add", "-u")  # of a file whose size has changed git status asks no filter
    assert git("status", "--porcelain") == ""


def test_make_runs_a_notebook_again_for_its_code_and_not_for_a_docstring(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "project", symlinks=True)
    (folder / "srlib").unlink()
    shutil.copytree(ROOT / "srlib", folder / "srlib", ignore=shutil.ignore_patterns("__pycache__"))

    def again() -> list[str]:
        done = subprocess.run(["make", "-n", "demo"], cwd=folder, capture_output=True, text=True, check=True)
        return re.findall(r'echo "== (\w+)', done.stdout)

    def change(name, old, new):
        path = folder / "srlib" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    assert again() == []
    change("show/style.py", '"""What all', '"""All that the')
    assert again() == []
    change("show/seam_viewer.py", "_GAIN = 16", "_GAIN = 8")
    assert again() == ["03_tiling", "04_artifact_ft", "05_eval"]  # 04 reads what 03 writes
    change("data/sources.py", "drawings: int = 8", "drawings: int = 9")
    assert again() == NAMES


def test_a_copied_project_reads_its_own_pictures(folder):
    """`folder` is a copy of where the notebooks ran."""
    pairs = PicturePairs(folder / "outputs/demo/data", "test", scale=2)
    assert Path(pairs.hr_root) == folder / "pictures" and pairs[0]["hr"].shape[0] == 3


def test_the_same_seed_gives_the_same_numbers(folder):
    import pandas as pd

    path = folder / "outputs/demo/stage1/metrics.csv"
    first = pd.read_csv(path).drop(columns="seconds")
    execute(folder, "02_stage1", **TINY["02_stage1"], resume=False)
    assert pd.read_csv(path).drop(columns="seconds").equals(first)


def complaint(folder, name, **parameters) -> str:
    with pytest.raises(PapermillExecutionError) as caught:
        execute(folder, name, **{**TINY[name], **parameters})
    return f"{caught.value.ename}: {caught.value.evalue}"


def test_a_report_on_any_pictures_and_checkpoints(folder):
    stage1 = "outputs/demo/stage1"
    given = {"input": "pictures", "checkpoints": [f"mine={stage1}/best.safetensors", f"{stage1}/hat.safetensors"]}
    torch.save(alexnet(weights=None).features.state_dict(prefix="features."), folder / "weights")
    shown = execute(folder, "05_eval", **TINY["05_eval"], **given, report="mine", lpips_weights="weights")
    metrics = json.loads((folder / "outputs/demo/mine/metrics.json").read_text())
    assert all(row["LPIPS"] > 0 for row in metrics["test"].values())
    assert (folder / "outputs/demo/mine/figures/lpips.png").is_file()
    assert "LPIPS by AlexNet" in str(shown.cells)
    assert "LPIPS, tiled this way (lower is better): " in str(shown.cells[-2].outputs)
    made = folder / "outputs/demo/eval"  # where it was not asked for
    assert "LPIPS" not in (made / "metrics.json").read_text() and not (made / "figures/lpips.png").exists()
    assert metrics["pictures"] == [f"{i}.png" for i in range(4)] and len(metrics["shown"]) == 3
    mine, hat = (metrics["test"][f"{name} | exact"]["PSNR-Y"] for name in ("mine", f"{stage1}/hat.safetensors"))
    assert abs(mine - hat) < 1e-3  # stage 1's eraser changes nothing yet
    assert "does not exist" in complaint(folder, "05_eval", checkpoints=["nothing.pth"])
    assert "tile 12 is not a multiple of the window 8" in complaint(folder, "05_eval", tile_size=12)
    assert "0.png is a picture (PNG)" in complaint(folder, "05_eval", lpips_weights="pictures/0.png")


def test_wrong_input_ends_in_one_clear_sentence(folder):
    assert complaint(folder, "02_stage1", iteratons=20) == (
        "ValueError: unknown parameter 'iteratons': did you mean 'iterations'?"
    )
    assert "tile_size 20 is not a multiple of the window 8" in complaint(folder, "03_tiling", tile_size=20)


def test_broken_and_hidden_pictures_and_copies_are_named_and_the_others_are_used(folder):
    shutil.copytree(folder / "pictures", folder / "some broken")
    whole = (folder / "pictures/0.png").read_bytes()
    (folder / "some broken/cut.png").write_bytes(whole[: len(whole) // 2])
    shutil.copytree(folder / "pictures", folder / "some broken/.ipynb_checkpoints")
    shutil.copy(folder / "pictures/1.png", folder / "some broken/again.png")
    for number in range(4):  # equal pixels, some of them in another part at first
        copy = folder / f"some broken/same{number}.bmp"
        Image.fromarray(read_picture(folder / f"pictures/{number}.png").rgb).save(copy)
    given = TINY["01_data"] | {"input": "some broken", "run": "broken"}
    done = execute(folder, "01_data", **given)
    text = "".join(o.text for c in done.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "left out: cut.png" in text and "cannot be read" in text
    assert ".ipynb_checkpoints: 4 pictures in a hidden folder" in text
    assert "copies of one picture, all kept in" in text and "split again, as these have equal pixels" in text
    split = json.loads((folder / "outputs/broken/data/data.json").read_text())["split"]
    assert len(split) == 9 and split["again.png"] == split["1.png"]
    assert all(split[f"{number}.png"] == split[f"same{number}.bmp"] for number in range(4))
    packs = (folder / "outputs/broken/data/packs").glob("*/index.csv")
    assert {row["source"] for path in packs for row in csv.DictReader(path.open())} == {
        name for name, part in split.items() if part == "train"
    }
    execute(folder, "01_data", **given)  # what is known by now is known from the start
    assert json.loads((folder / "outputs/broken/data/data.json").read_text())["split"] == split
    assert json.loads((folder / "outputs/broken/data/processing_stats.json").read_text())["total_processed"] == 0
    shutil.rmtree(folder / "some broken")
    assert "no folder" in complaint(folder, "01_data", input="some broken", run="broken")


def test_pairs_and_pictures_downscaled_on_the_fly_train_like_any_other(folder):
    for part, first in (("train", 0), ("test", 4)):
        for seed in range(first, first + 4):
            hr = draw(seed, 128, 144)
            write_png(folder / f"given/{part}/gt/{seed}.png", hr)
            write_png(folder / f"given/{part}/input/{seed}.png", downscale_integers(hr, 2, "area"))
    given = {**TINY["01_data"], "run": "given", "input": "given", "pairs": True, "validation": [], "jobs": 1}
    execute(folder, "01_data", **given)
    assert json.loads((folder / "outputs/given/data/data.json").read_text())["methods"] == ["input"]
    execute(folder, "02_stage1", **TINY["02_stage1"], run="given")
    rough = {"noise": [1.0, 3.0], "compress_after": "jpeg"}
    online = {"run": "online", "online": True, "also": ["given"], "weights": [0.5], **rough}
    execute(folder, "01_data", **{**TINY["01_data"], **online})
    done = execute(folder, "02_stage1", **TINY["02_stage1"], run="online")
    text = "".join(o.text for c in done.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "dB PSNR-Y against bicubic" in text
    assert not (folder / "outputs/online/data/packs").exists()


def declared(name) -> dict:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert cell.source.startswith("# parameters\n")
    return {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(cell.source).body}


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_parameter_files_name_what_the_notebooks_know(path):
    known, given = declared(path.stem), yaml.safe_load(path.read_text())
    assert given["run"] == path.parent.name
    for name, value in given.items():
        assert name in known and type(value) in (type(known[name]), int), name


@pytest.mark.parametrize("run", ["demo", "vram8", "vram12", "vram24", "anime"])
def test_parameter_files_of_a_run_fit_together(run):
    p = {name: declared(name) | yaml.safe_load((ROOT / "params" / run / f"{name}.yaml").read_text()) for name in NAMES}
    window, scale = CONFIGS[p["02_stage1"]["model"]]["window_size"], p["02_stage1"]["scale"]
    stage2, stage3 = p["03_tiling"], p["04_artifact_ft"]
    for name in ("02_stage1", "03_tiling"):
        sides = [p[name]["lr_patch"], *p[name].get("progressive_patches", [])]
        assert max(sides) * scale <= max(p["01_data"]["patch_sizes"])
    assert min(sides) > stage2["tile_size"] + 2 * stage2["tile_pad"]  # a patch of stage 2 has a seam in it
    tiles, pads = ([p[x] for p in (stage2, stage3)] for x in ("tile_size", "tile_pad"))
    tiles, pads = tiles + stage3["tile_choices"], pads + stage3["tile_pads"]
    assert not any(x % window for x in [*tiles, *pads])
    assert max(stage3["lr_patch"], *(t + 2 * h for t in tiles[1:] for h in pads[1:])) < stage3["crop_side"]
    assert p["05_eval"]["tile_size"] == p["03_tiling"]["tile_size"]
    assert p["03_tiling"]["learning_rate"] <= p["02_stage1"]["learning_rate"] / 5


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_are_stored_without_outputs(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    assert not [c for c in notebook.cells if c.get("outputs")] and "papermill" not in notebook.metadata
