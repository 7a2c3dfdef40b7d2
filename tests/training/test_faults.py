"""What goes wrong in a training of weeks, and what is left afterwards: a clear message, and a state to resume from."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from trainings import Patches, build, same, settings, start, stop_at, tiny, weights
from warm import warm

from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.total import TotalLoss
from srlib.networks.checkpoints import load
from srlib.training.states import newest_state, states
from srlib.training.train import train


def test_a_non_finite_loss_names_term_and_pictures_is_skipped_and_then_stops(tmp_path, capsys):
    model, log = start(tmp_path / "a", data=Patches(6, poison=(2,)), batch=1, iterations=6)
    assert "pixel not finite on picture 2" in capsys.readouterr().out
    assert len(log) == 5 and all(v.isfinite().all() for v in weights(model).values())
    with pytest.raises(FloatingPointError, match="pixel not finite on .*picture 2.*; 3 such steps in a row"):
        start(tmp_path / "b", data=Patches(3, poison=(2,)), batch=3, max_bad=3)
    last = load(tmp_path / "b/last.safetensors")
    assert all(v.isfinite().all() for v in last.state_dict().values())
    assert newest_state(tmp_path / "b")["step"] == 3


@pytest.mark.parametrize("stage", [2, 3])
def test_a_skipped_step_leaves_no_trace(tmp_path, stage):
    """In running means, spectral norms, optimizers: as if the weights had never met the picture."""
    poisoned = {"data": Patches(4, poison=(1,)), "batch": 1, "iterations": 4, "validated": False}
    start(tmp_path, stage, **poisoned)
    state = newest_state(tmp_path)
    for part in state["parts"].values():
        assert all(v.isfinite().all() for v in part.values())
    counts = [int(e["step"]) for o in state["optimizers"].values() for e in o["state"].values()]
    assert set(counts) == {3}


def test_a_gradient_that_alone_is_not_finite_is_found(tmp_path, capsys):
    class Root(TotalLoss):
        def forward(self, prediction, target, original=None):
            total, terms = super().forward(prediction, target, original)
            return total + (prediction - prediction).abs().sum().sqrt(), terms  # 0, its slope infinite times 0

    train(tiny(), Root(), Patches(), settings(2), folder=tmp_path)
    assert "gradient not finite on picture" in capsys.readouterr().out


def test_fp16_searches_its_scale_without_giving_up(tmp_path, monkeypatch, capsys):
    """fp16 needs a GPU; its scaler does not."""
    from accelerate import Accelerator

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**90, growth_interval=1000)
    monkeypatch.setattr(Accelerator, "scaler", property(lambda self: scaler, lambda self, value: None), raising=False)
    discriminator = MultiScaleDiscriminator(channels=4, scales=1)
    loss = TotalLoss(adversarial=0.1, discriminator=discriminator)

    class Steep(TotalLoss):
        """Overflows in fp32 where fp16 would, at a scale."""

        def forward(self, prediction, target, original=None):
            total, terms = loss(prediction, target, original)
            return total * 1e15, terms

    log = train(
        tiny(), Steep(), Patches(), settings(40, max_bad=3, clip=1e-3), folder=tmp_path, discriminator=discriminator
    )
    said = capsys.readouterr().out
    assert said.count("gradient not finite") > 3 and len(log) > 5
    assert scaler.get_scale() < 2.0**82 and newest_state(tmp_path)["scaler"]["scale"] == scaler.get_scale()


def run_script(folder, *lines: str, cold: bool = False, **options) -> subprocess.Popen:
    """A tiny training in another process that says when each step is done. cold: not by warm.py, whose processes are in
    another group, and die a moment after their client is killed.
    """
    script = [
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})",
        "from trainings import *",
        "say = lambda row: print('step', row['step'], flush=True)",
        *lines,
        f"start({str(folder)!r}, callback=say, **{options!r})",
    ]
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text("\n".join(script))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    python = sys.executable if cold else warm() / "bin/python"
    return subprocess.Popen([python, folder / "script.py"], start_new_session=True, **pipes)


def wait_for(process, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_ends_the_step_and_keeps_it(tmp_path, number, workers):
    common = {"iterations": 400, "validate_every": 400, "workers": workers}
    process = run_script(tmp_path, **common)
    wait_for(process, "step 3")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    name = signal.Signals(number).name
    assert process.returncode != 0 and f"by {name}; the state of step" in errors, errors
    step = newest_state(tmp_path)["step"]
    assert 3 <= step < 400 and load(tmp_path / "last.safetensors")
    _, log = start(tmp_path, **{**common, "iterations": step + 2})
    assert log["step"].tolist() == list(range(1, step + 3))


def test_a_sigterm_to_all_processes_of_a_group_keeps_the_step(tmp_path):
    """As Slurm and systemd send it: the loader's processes get it, too."""
    common = {"iterations": 400, "validate_every": 400, "workers": 2}
    for number in range(3):
        process = run_script(tmp_path / str(number), cold=True, **common)
        wait_for(process, "step 3")
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert "by SIGTERM; the state of step" in errors, errors
        assert newest_state(tmp_path / str(number))["step"] >= 3


def test_kill_minus_nine_costs_what_came_after_the_last_save(tmp_path):
    common = {"iterations": 80, "save_every": 2, "validated": False}
    process = run_script(tmp_path / "a", cold=True, **common)
    wait_for(process, "step 7")
    process.kill()
    process.wait()
    step = newest_state(tmp_path / "a")["step"]
    assert 6 <= step < 80 and step % 2 == 0
    resumed, _ = start(tmp_path / "a", **common)
    unbroken, _ = start(tmp_path / "b", **common)
    assert same(weights(unbroken), weights(resumed))


def test_a_signal_is_heard_at_once_while_validating(tmp_path):
    process = run_script(
        tmp_path,
        "import trainings, time",
        "def slow(*_): return lambda model: print('validating', flush=True) or time.sleep(60) or {'psnr_y': 1.0}",
        "trainings.validate_on = slow",
        iterations=4,
    )
    wait_for(process, "validating")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20 and "the state of step 4 is kept" in errors
    _, log = start(tmp_path, iterations=4)  # the validation is made up for
    assert log["psnr_y"].notna().sum() == 1


def test_a_training_in_another_thread_leaves_signals_alone(tmp_path):
    before, done = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: done.append(start(tmp_path, iterations=2)))
    thread.start()
    thread.join()
    assert done and signal.getsignal(signal.SIGINT) is before
    start(tmp_path, iterations=3)
    assert signal.getsignal(signal.SIGINT) is before


def test_running_out_of_memory_says_what_to_lower(tmp_path):
    for number, error in enumerate((torch.OutOfMemoryError("CUDA out of memory"), MemoryError())):
        with pytest.raises(RuntimeError, match="out of memory at step 5 with batch 2: lower the batch .*patch.*checkp"):
            start(tmp_path / str(number), callback=stop_at(5, error))
        assert newest_state(tmp_path / str(number))["step"] == 5
    with pytest.raises(RuntimeError, match="out of memory"):
        too_much = lambda row: torch.empty(2**60)  # noqa: E731
        start(tmp_path / "real", callback=too_much)


def test_with_less_it_resumes_within_the_handler(tmp_path):
    """As a script does that catches the shortage."""
    try:
        start(tmp_path, callback=stop_at(5, torch.OutOfMemoryError("CUDA out of memory")))
    except RuntimeError:
        model, log = start(tmp_path, batch=1)
    assert log["step"].tolist() == list(range(1, 9)) and same(
        weights(load(tmp_path / "best.safetensors")), weights(model)
    )


def test_a_full_disk_is_a_sentence_and_keeps_the_state_before(tmp_path, capsys):
    """The limit on a file's size stands in for the disk: the same failing write, in the same places."""
    start(tmp_path, iterations=3, validated=False)
    kept = states(tmp_path)[-1].read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"the state of step 8 could not be written to .*the state of step 3 is kept"):
            start(tmp_path, validated=False, save_every=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "WARNING: the state of step 4 could not be written" in capsys.readouterr().out
    assert states(tmp_path)[-1].read_bytes() == kept and not list(tmp_path.rglob("*.part*"))
    resumed, _ = start(tmp_path, validated=False)
    assert newest_state(tmp_path)["step"] == 8


def test_a_dead_loader_process_ends_the_run_with_a_sentence(tmp_path):
    class Deadly(Patches):
        def __getitem__(self, key):
            if key[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(key)

    with pytest.raises(RuntimeError, match="a loader process died .*lower workers"):
        start(tmp_path, data=Deadly(), workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_keeps_the_state_and_its_own_message(tmp_path, workers):
    class Broken(Patches):
        def __getitem__(self, key):
            if key[1] % 2**32 == 1:  # in the second epoch
                raise ValueError("cat.png cannot be read")
            return super().__getitem__(key)

    with pytest.raises(ValueError, match="cat.png cannot be read") as caught:
        start(tmp_path, data=Broken(), workers=workers)
    assert newest_state(tmp_path)["step"] == 3 and "the state of step 3 is kept" in caught.value.__notes__[0]


def test_a_best_model_that_could_not_be_written_is_written_later(tmp_path, monkeypatch):
    import srlib.training.resume

    scores, original, calls = iter([30.0, 40.0, 35.0]), srlib.training.resume.save_model, []

    def failing(path, model, **facts):
        if path.name == "best.safetensors":
            calls.append(facts["psnr_y"])
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        return original(path, model, **facts)

    monkeypatch.setattr(srlib.training.resume, "save_model", failing)
    model, seen = tiny(), []

    def validate(averaged):
        seen.append(weights(averaged))
        return {"psnr_y": next(scores)}

    train(model, TotalLoss(), Patches(), settings(12), folder=tmp_path, validate=validate)
    assert calls == [30.0, 40.0, 40.0] and same(weights(load(tmp_path / "best.safetensors")), weights(model))
    assert same(seen[1], weights(model))


def test_a_signal_in_the_last_moment_is_not_lost(tmp_path):
    ends = lambda row: row["step"] == 8 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(KeyboardInterrupt, match="SIGTERM after the last step: the training is finished"):
        start(tmp_path, callback=ends, validated=False)
    assert newest_state(tmp_path)["finished"]


def test_a_stopped_training_leaves_its_modules_without_wrappers(tmp_path):
    model, loss, discriminator = build(3)
    arguments = {"folder": tmp_path, "discriminator": discriminator, "callback": stop_at(2)}
    with pytest.raises(KeyboardInterrupt):
        train(model, loss, Patches(), settings(precision="bf16"), **arguments)
    for module in (model, discriminator):
        assert "forward" not in vars(module) and "_is_accelerate_prepared" not in vars(module)


def test_two_runs_do_not_share_a_folder(tmp_path):
    def again(row):
        with pytest.raises(BlockingIOError, match="another run is writing"):
            start(tmp_path)

    start(tmp_path, callback=again, iterations=1)
