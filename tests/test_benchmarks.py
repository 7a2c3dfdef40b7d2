"""The benchmarks still run, on tiny sizes, and say what they are there to say."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
from warm import warm

from srlib.data.drawings import draw
from srlib.data.pictures import write_png
from srlib.networks.checkpoints import save_model
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import CONFIGS, HAT

ROOT = Path(__file__).parents[1]


def output(*arguments: str) -> str:
    done = subprocess.run([warm() / "bin/python", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tiling():
    text = output("benchmarks/tiling.py", "--quick", "--model", "none", "exact", "faults")
    assert "started again with batch 1" in text and "from the start: True" in text and "files left: []" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("random, 36 blocks")]
    assert len(rows) == 2
    for row in rows:
        assert float(row[-2]) <= 2e-5 < 1e-3 < float(row[-1])  # exact, and tiles with a halo of 32


def test_streaming():
    text = output("benchmarks/streaming.py", "--height", "400", "--width", "600")
    for mode in ("tiled", "exact"):
        assert f"{mode}: peak RSS" in text
    differences = [float(line.split()[-2]) for line in text.splitlines() if "largest difference" in line]
    assert len(differences) == 2 and max(differences) <= 0.51


def test_hat():
    small = ("--models", "demo", "--side", "16", "--trained", "demo", "--size", "1", "--patch", "16", "--rounds", "1")
    text = output("benchmarks/hat.py", *small)
    assert float(text.split("largest difference ")[1].split()[0]) < 3e-5
    rows = {tuple(line.split()[:2]) for line in text.splitlines()}
    assert {("ours", "fp32"), ("spandrel", "fp32"), ("ours", "bf16"), ("spandrel", "bf16")} <= rows
    step = text.split("step:")[1]
    ours, peer = (
        next(row for row in step.splitlines() if row.split()[:2] == [who, "fp32"]) for who in ("ours", "spandrel")
    )
    assert float(ours.split()[-1]) < 0.9 and float(peer.split()[-1]) == 1  # memory, not time


def test_startup():
    text = output("benchmarks/startup.py", "--runs", "1", "--only", "srlib upscale")
    rows = {line[2:44].strip(): float(line[44:]) for line in text.splitlines() if line.startswith("  ")}
    assert {"srlib upscale --help", "all that srlib upscale needs"} <= rows.keys()
    text = output("benchmarks/startup.py", "--runs", "1", "--only", "00_start_here")
    assert "imports of 00_start_here" in text and "upscale" not in text


def test_shared_machine():
    text = output("benchmarks/shared_machine.py", "--case", "--side", "32", "--rounds", "1")
    assert len([float(number) for number in text.split()]) == 8


def test_data():
    text = output("benchmarks/data.py", "exact", "loading", "--patch", "64", "--seconds", "0.2")
    levels = {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in text.splitlines() if "ours" in line}
    assert max(map(float, levels["ours, before rounding"])) < 1e-3
    assert {"online, plain: Pillow", "online, ours", "packed, uint8"} <= {
        line.strip().rsplit(maxsplit=3)[0] for line in text.splitlines() if len(line.split()) > 4
    }


def test_data_names_what_becomes_of_each_file(tmp_path):
    write_png(tmp_path / "grey16.png", np.full((20, 30), 500, np.uint16))
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey16.png").read_bytes()[:60])
    text = output("benchmarks/data.py", "--formats", str(tmp_path))
    assert "grey16.png: uint16, grey, HR 30x20, LR 15x10" in text and "cut.png: refused: " in text


def test_what_the_eraser_costs():
    text = output("benchmarks/eraser.py", "steps", "inference", "--networks", "demo", "--rounds", "1")
    rows = [line.split() for line in text.splitlines() if line.startswith(("demo", "      "))]
    assert [len(row) for row in rows if row[0] == "demo"] == [4, 5]


def test_how_wide_the_error_of_tiles_is(tmp_path):
    save_model(tmp_path / "hat.safetensors", HAT(**{**CONFIGS["demo"], "depths": [1], "num_heads": [2]}, upscale=2))
    eraser = TiledSR(HAT(**{**CONFIGS["demo"], "depths": [1], "num_heads": [2]}, upscale=2), gains=[[0, 0.1]])
    save_model(tmp_path / "eraser.safetensors", eraser)
    for file, erased in (("hat", 0), ("eraser", 1)):
        text = output(
            "benchmarks/seam_width.py", str(tmp_path / f"{file}.safetensors"), "--tiles", "32", "--halos", "0"
        )
        tile, context, tc, *values = map(float, text.splitlines()[-1].split()[1:])
        rms, *shares = values[erased:]
        assert (tile, context) == (32, 0) and tc > 20 and rms > 0 and 0 < shares[0] <= shares[-1] <= 1.001
        assert values[0] == tc or not erased  # one that has learned nothing leaves the tiles as they are


def test_how_much_an_eraser_learns_by_crops(tmp_path):
    save_model(tmp_path / "hat.safetensors", HAT(**{**CONFIGS["demo"], "depths": [1], "num_heads": [2]}, upscale=2))
    small = ["--counts", "2", "--steps", "2", "--batch", "1", "--channels", "4", "--blocks", "1", "--drawings", "1"]
    small += ["--tile", "32", "--side", "64", "--keep", str(tmp_path / "kept")]
    text = output("benchmarks/eraser_crops.py", str(tmp_path / "hat.safetensors"), *small)
    assert 2 in {len(list(folder.glob("*.safetensors"))) for folder in tmp_path.glob("kept/*/*")}
    row = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert row["crops"] == 2 and 0.5 < row["left, unseen"] < 1.5 and row["TC before"] > 20


def test_restoration():
    small = ["--side", "128", "--chunk", "32", "--span", "32"]
    text = output("benchmarks/restoration.py", *small, "--network", "Restormer, lite")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if len(line.split()) == 6}
    assert set(rows) == {"spandrel-extra-arches", "whole", "exact", "window", "tiles"}
    assert float(rows["exact"][-1]) < 1e-4 and float(rows["whole"][-1]) < 1e-4 < float(rows["tiles"][-1])
    text = output("benchmarks/restoration.py", *small, "--network", "Phaseformer, lite")
    assert "exact" in text and "window " not in text


def test_networks():
    text = output("benchmarks/networks.py", "--size", "64", "--chunk", "32", "--networks", "DAT-light")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if len(line.split()) == 9}
    assert set(rows) == {"DAT-light"}
    assert all(float(row[-1]) < 2e-5 and float(row[0]) > 0 for row in rows.values())


def test_the_soak_kills_a_training_and_finds_it_whole():
    text = output("benchmarks/soak.py", "--kills", "2", "--iterations", "25", "--patience", "6")
    assert "2 hits survived" in text and text.count("bit for bit the same") == 5


def test_gpu_s_report_on_a_cpu(tmp_path):
    parts = ["Machine", "Exact, whole and tiled", "Memory of the presets", "A training, stopped and resumed"]
    output("benchmarks/gpu.py", "--small", "--out", str(tmp_path / "report.md"), "--only", *parts)
    report = (tmp_path / "report.md").read_text()
    assert [line[3:] for line in report.splitlines() if line.startswith("## ")] == parts and "failed" not in report
    ways = [line.split() for line in report.split("\nfp32\n")[1].split("\nbf16\n")[0].splitlines()]
    tc = {" ".join(words[:-5]): float(words[-1]) for words in ways if len(words) > 5 and "way" not in words}
    assert tc["exact"] > 90 > tc["tiles of 16"]
    resumed = next(line for line in report.splitlines() if "stopped and resumed " in line)
    assert float(resumed.split()[-1]) == 0  # equal to the bit, on a CPU


def test_the_small_network_s_scores(tmp_path):
    for number in range(2):
        write_png(tmp_path / f"drawn/{number}.png", draw(50 + number, 80, 90))
    text = output("benchmarks/small.py", str(tmp_path / "drawn"))
    rows = {line.split()[-3]: float(line.split()[-2]) for line in text.split("\nTC")[0].splitlines()[-3:]}
    assert rows["bicubic"] < rows["small"] and "drawn (2)" in text and "tiles of 32, erased" in text


def test_the_table_of_the_front_page(folder):
    line = [warm() / "bin/python", "benchmarks/front_page.py", "--rounds", "1"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {re.split(r"  +", line.strip())[0]: line.split() for line in done.stdout.splitlines()}
    assert float(rows["exact, in chunks"][-5]) > 90 > float(rows["tiles, no context"][-5])
    assert float(rows["whole picture at once"][-4]) == 1  # SGR
    assert {"tiles averaged by a Gaussian (MONAI)", "tiles, no context, eraser behind them"} <= rows.keys()
