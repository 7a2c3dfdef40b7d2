"""Several processes train what one does, one writes, and none waits for a dead one."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_answers import CROPS, trained
from trainings import RESTORING, Patches, build, restoring, same, settings
from warm import warm

from srlib.training.states import newest_state
from srlib.training.train import train

SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
from trainings import *
import torch
torch.set_num_threads(1)
rank = os.environ["RANK"]
{before}
def say(row):
    path = {folder!r} + "/progress" + rank
    with open(path + ".new", "w") as file:
        print(row["step"], os.getpid(), file=file)
    os.replace(path + ".new", path)  # never read half written
model, log = start({folder!r}, callback=say, **{options!r})
torch.save(model.state_dict(), {folder!r} + "/rank" + rank + ".pt")
"""
GRADIENTS = """
sys.path.insert(0, {here!r})
from test_processes import STAGES, gradients
for stage in STAGES:
    torch.save(gradients({folder!r} + "/" + str(stage), stage, batch=1), {folder!r} + "/" + str(stage) + rank + ".pt")
sys.exit()
"""
ERASING = """
sys.path.insert(0, {here!r})
from pathlib import Path
from test_answers import CROPS, replace, trained
from srlib.training.train import several_cpu_processes
several_cpu_processes()
crops = replace(CROPS, count=9, gib={gib})
model, log = trained(Path({folder!r}), crops, iterations=20, batch=1, validate_every=10, learning_rate=1e-4)
torch.save({{**model.state_dict(), "tc": torch.tensor(log["tc"].dropna().tolist())}}, {folder!r} + "/" + rank + ".pt")
sys.exit()
"""
STAGES = (1, 2, 3, *RESTORING)  # of 02 to 04; what 07 and 08 train


def gradients(folder, stage: int | str, batch: int) -> dict[str, torch.Tensor]:
    """Of model, loss and discriminator, as the second step's optimizers get them."""
    if stage in RESTORING:
        (model, loss, data), discriminator = restoring(stage), None
    else:
        (model, loss, discriminator), data = build(stage, dropped=0.0), Patches()
    modules = {"model": model, "loss": loss, "discriminator": discriminator}
    found = {}

    def note(row):
        for name, module in modules.items():
            for key, p in module.named_parameters() if module is not None else ():
                if p.grad is not None:
                    found[f"{name}.{key}"] = p.grad.clone()

    changes = {"batch": batch, "clip": 1e9, "accumulate": 2, "learning_rate": 1e-5}
    train(model, loss, data, settings(2, **changes), folder=folder, discriminator=discriminator, callback=note)
    return found


def launch(folder: Path, before: str = "", **options) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script.py"
    script.write_text(
        SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(folder), before=before, options=options)
    )
    command = [warm() / "bin/torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", warm() / "bin/python"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, script], **pipes)


def wait_for_step(folder: Path, step: int) -> int:
    """Until the second process has done that step; its id."""
    for _ in range(1200):
        words = (folder / "progress1").read_text().split() if (folder / "progress1").exists() else []
        if len(words) == 2 and int(words[0]) >= step:
            return int(words[1])
        time.sleep(0.05)
    raise AssertionError("it has not come so far within a minute")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """A folder of gradients of two processes."""
    folder = tmp_path_factory.mktemp("gradients")
    process = launch(folder, GRADIENTS.format(folder=str(folder), here=str(Path(__file__).parent)))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_of_two_processes_equal_those_of_one_with_twice_the_batch(tmp_path, two_processes, stage):
    """Accumulated twice; through tiling at the same random place; RaGAN's and running means over both."""
    learning = dict.fromkeys(STAGES, 1) | dict.fromkeys((2, 3, "Restormer", "two answers"), 2)  # networks and losses
    first, second = (torch.load(two_processes / f"{stage}{rank}.pt") for rank in (0, 1))
    assert same(first, second)
    whole = gradients(tmp_path, stage, batch=2)
    assert whole.keys() == first.keys() and len({k.split(".")[0] for k in whole}) == learning[stage]
    largest = max(gradient.abs().max() for gradient in whole.values())
    for name, gradient in whole.items():
        assert (gradient - first[name]).abs().max() < 1e-6 * max(largest, 1), name
    assert 1e-2 < largest < 20


def test_two_processes_share_the_answers_that_an_eraser_learns_from(tmp_path):
    """Through several turns of crops that do not fit at once; the same as one process with twice the batch."""
    bound = 5 * 24 * 24 * 3 * (4 + 2 * 4 * 4) / 2**30
    before = ERASING.format(here=str(Path(__file__).parent), folder=str(tmp_path / "two"), gib=bound)
    process = launch(tmp_path / "two", before)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1))
    assert same(first, second)
    model, log = trained(
        tmp_path / "one",
        replace(CROPS, count=9, gib=bound),
        iterations=20,
        batch=2,
        validate_every=10,
        learning_rate=1e-4,
    )
    assert torch.allclose(first.pop("tc"), torch.tensor(log["tc"].dropna().tolist()), atol=1e-3)
    assert all((value - first[name]).abs().max() < 1e-5 for name, value in model.state_dict().items())


def test_two_processes_resume_exactly_and_only_one_writes(tmp_path):
    common = {"stage": 2, "iterations": 40, "workers": 1, "validated": False}
    assert launch(tmp_path / "a", **common).wait(120) == 0
    process = launch(tmp_path / "b", **{**common, "save_every": 2})
    second = wait_for_step(tmp_path / "b", 3)
    for victim in (process.pid, second, int((tmp_path / "b/progress0").read_text().split()[1])):
        os.kill(victim, signal.SIGKILL)
    process.communicate()
    process = launch(tmp_path / "b", **{**common, "save_every": 2})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and output.count("resumed at step") == 1, output
    assert same(*(newest_state(tmp_path / n)["parts"]["model"] for n in "ab"))
    assert not list((tmp_path / "b").rglob("*.part*"))


def test_a_process_that_has_only_blank_validation_pictures_changes_nothing(tmp_path):
    """The second process gets pictures 1 and 3; all have the same mean, and the first says what is left out."""
    patched = """
import trainings
P = trainings.Patches
blank = {{"lr": torch.full((3, 16, 16), 0.5), "hr": torch.full((3, 32, 32), 0.5)}}
pairs = [P()[0], blank | {{"name": "black"}}, P()[1], blank | {{"name": "white"}}]
on = trainings.validate_on
trainings.validate_on = lambda given, border: on(pairs if {blanks} else [pairs[0], pairs[2]], border)
"""
    logs, before = [], patched.replace("{{", "{").replace("}}", "}")
    for blanks in ("True", "False"):
        process = launch(tmp_path / blanks, before.replace("{blanks}", blanks), iterations=4)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert output.count("not in the validation's means: black, white (blank or too small)") == (blanks == "True"), (
            output
        )
        logs.append(pd.read_csv(tmp_path / blanks / "metrics.csv"))
    assert logs[0]["psnr_y"].equals(logs[1]["psnr_y"]) and logs[0]["psnr_y"].notna().any()


def test_a_dead_process_ends_the_others_with_a_message(tmp_path):
    """Said at once: torchrun may end a process before its traceback is printed."""
    process = launch(tmp_path, "sys.excepthook = lambda *error: None", iterations=4000, validate_every=4000)
    os.kill(wait_for_step(tmp_path, 3), signal.SIGKILL)
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - began < 50
    assert "stopped at step" in output and "is kept: run again to resume" in output
    assert newest_state(tmp_path)["step"] >= 3


def test_a_loss_that_is_not_finite_in_one_process_is_skipped_by_all(tmp_path):
    """Of 12 draws two are picture 2."""
    poisoned = "import trainings; P = trainings.Patches; trainings.Patches = lambda *a: P(6, poison=(2,))"
    process = launch(tmp_path, poisoned, stage=3, batch=1, iterations=6, validated=False)
    output, _ = process.communicate(timeout=120)
    assert (
        process.returncode == 0
        and output.count("skipped:") == output.count("pixel, adversarial not finite on picture 2") == 2
    ), output
    state = newest_state(tmp_path)
    assert len(state["rows"]["step"]) == 4 and all(v.isfinite().all() for v in state["parts"]["model"].values())


def test_sigterm_to_all_ends_all_at_the_same_step(tmp_path):
    process = launch(tmp_path, iterations=4000, validate_every=4000)
    wait_for_step(tmp_path, 3)
    process.terminate()  # the launcher hands it on
    output, _ = process.communicate(timeout=60)
    assert "by SIGTERM; the state of step" in output, output
    state = newest_state(tmp_path)
    assert state["step"] >= 3


def test_two_trainings_in_one_go_on_two_processes_whoever_asks_for_the_device_first(tmp_path):
    """As 04 does: it asks for the device, trains the detector, then the eraser in the folder above."""
    asks = "from srlib.training.train import several_cpu_processes\nfrom accelerate import PartialState\n"
    asks += "several_cpu_processes()\nassert PartialState().num_processes == 2\n"
    asks += f"start({str(tmp_path / 'detector')!r}, iterations=2, validated=False)"
    process = launch(tmp_path, asks, stage=3, iterations=2, validated=False)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert newest_state(tmp_path)["drawn"] == newest_state(tmp_path / "detector")["drawn"] == 8
