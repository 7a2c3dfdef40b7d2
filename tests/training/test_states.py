"""A stopped training resumes exactly; changes are applied and logged; damaged states are noticed."""

import numpy as np
import pytest
import torch
from trainings import Patches, build, same, settings, start, stop_at, tiny, weights

from srlib.experiments.stages import Training
from srlib.losses.total import TotalLoss
from srlib.networks.fingerprint import fingerprint
from srlib.training.states import newest_state, states, write_state
from srlib.training.train import train


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, stage, workers):
    unbroken, log = start(tmp_path / "a", stage, workers=workers)
    for step in (1, 4, 5):  # 4 is validated after it was stopped
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {step} .*the state of step {step} is kept"):
            start(tmp_path / "b", stage, callback=stop_at(step), workers=workers)
    resumed, again = start(tmp_path / "b", stage, workers=workers)
    assert same(weights(unbroken), weights(resumed))
    assert log.drop(columns="seconds").equals(again.drop(columns="seconds"))
    a, b = newest_state(tmp_path / "a"), newest_state(tmp_path / "b")
    for name in a["parts"]:  # EMA, loss weights with their running means, discriminator with its spectral norms
        assert same(a["parts"][name], b["parts"][name]), name
    for name in a["optimizers"]:
        for i, entry in a["optimizers"][name]["state"].items():
            assert all(torch.equal(v, b["optimizers"][name]["state"][i][k]) for k, v in entry.items()), name
    assert {"loss"} <= a["optimizers"].keys() if stage == 2 else True
    assert {"discriminator"} <= a["optimizers"].keys() if stage == 3 else True
    assert (a["drawn"], a["step"]) == (b["drawn"], b["step"]) == (16, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "schedule_free", "schedule": "constant", "warmup_steps": 2},
        {"optimizer": "adamw", "schedule": "one_cycle", "weight_decay": 0.1, "accumulate": 2},
        {"schedule": "warmup_restarts", "first_cycle_steps": 4, "warmup_steps": 1, "input_scales": [0.5, 1.0]},
        {"progressive_iterations": [3, 9], "progressive_batches": [2, 1], "progressive_patches": [8, 16]},
        {"precision": "bf16"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_so_does_one_with_any_other_option(tmp_path, changes):
    unbroken, _ = start(tmp_path / "a", **changes)
    for step in (2, 6):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "b", callback=stop_at(step), **changes)
    resumed, _ = start(tmp_path / "b", **changes)
    assert same(weights(unbroken), weights(resumed))


def test_an_error_in_the_middle_of_a_step_costs_that_step_only(tmp_path, monkeypatch):
    """Running means and spectral norms have moved by then, the weights have not."""
    for stage in (2, 3):
        unbroken, _ = start(tmp_path / f"a{stage}", stage)
        with monkeypatch.context() as patch:
            calls = []

            def backward(self, loss, _original=torch.Tensor.backward, _calls=calls, **options):
                _calls.append(1)
                if len(_calls) == 7:
                    raise RuntimeError("a cosmic ray")
                return _original(loss, **options)

            patch.setattr("accelerate.Accelerator.backward", backward)
            with pytest.raises(RuntimeError, match="a cosmic ray"):
                start(tmp_path / f"b{stage}", stage)
        assert 0 < newest_state(tmp_path / f"b{stage}")["step"] < 8
        resumed, _ = start(tmp_path / f"b{stage}", stage)
        assert same(weights(unbroken), weights(resumed))


def test_a_start_that_was_scored_is_remembered(tmp_path):
    unbroken, whole = start(tmp_path / "a", 2, validate_start=True)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", 2, validate_start=True, callback=stop_at(1))
    resumed, log = start(tmp_path / "b", 2, validate_start=True)
    assert same(weights(unbroken), weights(resumed))
    assert log["step"].tolist() == whole["step"].tolist() == list(range(9))
    assert log["psnr_y"].dropna().tolist() == whole["psnr_y"].dropna().tolist()


def test_without_an_interrupt_a_kill_costs_what_came_after_the_last_save(tmp_path):
    unbroken, _ = start(tmp_path / "a", validated=False, save_every=3)
    assert [p.name for p in states(tmp_path / "a")] == ["step_000000006.pt", "step_000000008.pt"]
    (tmp_path / "a/state/step_000000008.pt").unlink()  # as if killed before
    resumed, log = start(tmp_path / "a", validated=False, save_every=3)
    assert same(weights(unbroken), weights(resumed)) and log["step"].tolist() == list(range(1, 9))


def test_the_last_states_are_kept_and_a_damaged_newest_gives_way_to_the_one_before(tmp_path, capsys):
    unbroken, _ = start(tmp_path, validated=False, save_every=1, keep=3)
    paths = states(tmp_path)
    assert [p.name[-5:] for p in paths] == ["06.pt", "07.pt", "08.pt"]
    content = bytearray(paths[-1].read_bytes())
    content[len(content) // 2] ^= 1  # a flipped bit: torch.load would not notice
    paths[-1].write_bytes(content)
    paths[-2].write_bytes(paths[-2].read_bytes()[:1000])  # cut off
    resumed, _ = start(tmp_path, validated=False, save_every=1, keep=3)
    said = capsys.readouterr().out
    assert "08.pt is damaged (wrong checksum" in said and "07.pt is damaged" in said and "resumed at step 6" in said
    assert same(weights(unbroken), weights(resumed))
    assert [p.name[-5:] for p in states(tmp_path)] == ["06.pt", "07.pt", "08.pt"] and newest_state(tmp_path)[
        "step"
    ] == 8
    for path in states(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all states in .* are damaged: set resume to False"):
        start(tmp_path, validated=False)
    assert capsys.readouterr().out.count("is damaged") == 3 and len(states(tmp_path)) == 3


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_as_many_states_are_kept_as_asked_for(tmp_path, keep):
    start(tmp_path, validated=False, save_every=1, keep=keep)
    assert [p.name[-5:] for p in states(tmp_path)] == ["04.pt", "05.pt", "06.pt", "07.pt", "08.pt"][-keep:]


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    start(tmp_path, validated=False)

    def stale(*_):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("srlib.training.states.zipfile.ZipFile", stale)
    with pytest.raises(OSError, match="Stale"):
        start(tmp_path, validated=False)
    assert len(states(tmp_path)) == 1 and not (tmp_path / "before").exists()


def test_the_same_objects_trained_again_are_the_same_training(tmp_path, capsys):
    """A notebook's cell, run again after it was stopped, and after it was finished."""
    unbroken, _ = start(tmp_path / "a", 3)
    model, loss, discriminator = build(3)
    job = Training(model, loss, Patches(), Patches(2), settings(), tmp_path / "b", True, discriminator)
    with pytest.raises(KeyboardInterrupt):
        job.run(stop_at(5))
    assert fingerprint(model) == fingerprint(build(3)[0])  # as it was given
    job.run()
    assert "resumed at step 5" in capsys.readouterr().out
    assert same(weights(unbroken), weights(model))
    job.run()
    assert "is finished: nothing to train" in capsys.readouterr().out
    assert same(weights(unbroken), weights(model)) and not list(tmp_path.glob("b/before*"))


def test_a_run_that_patience_ended_resumes_with_more_patience_and_starts_anew_with_other_rates(tmp_path, capsys):
    scores = {"psnr_y": 1.0}
    options = {"folder": tmp_path, "validate": lambda model: scores}
    train(tiny(), TotalLoss(), Patches(), settings(40, patience=2), **options)
    assert newest_state(tmp_path)["step"] == 12
    train(tiny(), TotalLoss(), Patches(), settings(40, patience=2), **options)
    assert "is finished: nothing to train" in capsys.readouterr().out
    train(tiny(), TotalLoss(), Patches(), settings(40, patience=3), **options)
    assert newest_state(tmp_path)["step"] == 24 and "patience 2 -> 3" in capsys.readouterr().out
    train(tiny(), TotalLoss(), Patches(), settings(80, patience=3), **options)
    assert newest_state(tmp_path)["step"] == 36 and "iterations 40 -> 80" in capsys.readouterr().out
    train(tiny(), TotalLoss(), Patches(), settings(60, patience=2), **options)  # less is no other training
    assert newest_state(tmp_path)["step"] == 36 and "is finished: nothing to train" in capsys.readouterr().out
    train(tiny(), TotalLoss(), Patches(), settings(80, patience=3, learning_rate=1e-3), **options)
    assert "was finished with other settings (learning_rate): starting anew" in capsys.readouterr().out


def test_patience_does_not_smuggle_other_settings_into_a_finished_training(tmp_path, capsys):
    start(tmp_path)
    start(tmp_path, learning_rate=1e-4, patience=5)
    assert "was finished with other settings (learning_rate): starting anew" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["begin", "loader"])
def test_an_error_before_the_first_step_leaves_the_modules_as_they_were_given(tmp_path, monkeypatch, where):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, callback=stop_at(5))
    kept = [p.read_bytes() for p in states(tmp_path)]

    def failing(*_):
        raise OSError(12, "Cannot allocate memory")

    model, loss, _ = build(1)
    before = fingerprint(model)
    with monkeypatch.context() as patch:
        patch.setattr("srlib.training.run.Run.loader" if where == "loader" else "srlib.training.resume.begin", failing)
        with pytest.raises(RuntimeError, match="out of memory at step"):
            train(model, loss, Patches(), settings(precision="bf16"), folder=tmp_path)
    assert fingerprint(model) == before and "forward" not in vars(model)
    assert [p.read_bytes() for p in states(tmp_path)] == kept


def test_halves_that_a_kill_left_are_removed(tmp_path):
    (tmp_path / "state").mkdir()
    for name in (".best.99.part.safetensors", "state/.step_000000004.99.part.pt"):
        (tmp_path / name).write_bytes(b"half")
    start(tmp_path, iterations=2)
    assert not list(tmp_path.rglob(".*part*"))


def test_numbers_of_numpy_are_no_obstacle(tmp_path):
    start(tmp_path, learning_rate=np.float64(1e-3), batch=np.int64(2), input_scales=np.array([1.0]).tolist())
    assert newest_state(tmp_path)["facts"]["learning_rate"] == 1e-3


def test_another_form_of_learnable_weights_is_another_training(tmp_path, capsys):
    start(tmp_path, 2, form="plain")
    start(tmp_path, 2, form="uncertainty")
    assert "was finished with other settings (loss's learnable): starting anew" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", 2, form="plain", callback=stop_at(3))
    start(tmp_path / "b", 2, form="entropy")
    assert "changed since step 3: loss's learnable plain -> entropy" in capsys.readouterr().out


def test_what_does_not_matter_does_not_throw_a_finished_training_away(tmp_path, capsys):
    first, _ = start(tmp_path)
    model, loss, _ = build(1)
    model.hat_model.config["checkpointing"] = True
    train(model, loss, Patches(), settings(6, workers=1), folder=tmp_path)
    said = capsys.readouterr().out
    assert "iterations 8 -> 6" in said and "is finished: nothing to train" in said
    assert same(weights(first), weights(model))


def test_the_log_tells_what_was_done_not_what_was_asked_for(tmp_path, capsys):
    _, log = start(tmp_path, iterations=8)
    assert log.attrs["steps"] == 8 and log.attrs["settings"] == settings(8).plain()
    _, log = start(tmp_path, iterations=3, validate_every=1, learning_rate=2e-3)
    assert log.attrs["steps"] == 8 and log.attrs["settings"] == settings(8).plain()
    said = capsys.readouterr().out
    assert "not changed, the training is finished: iterations 8 -> 3" in said
    assert "is finished: nothing to train, 8 steps are done" in said and "changed since" not in said
    _, log = start(tmp_path, iterations=10)
    assert log.attrs["steps"] == 10 and log.attrs["settings"]["iterations"] == 10
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", iterations=8, callback=stop_at(5))
    _, log = start(tmp_path / "b", iterations=2)
    assert "is at step 5, beyond 2 iterations: nothing to train" in capsys.readouterr().out
    assert log.attrs["steps"] == log.attrs["settings"]["iterations"] == 5


def test_parameters_are_written_as_they_were_trained(tmp_path):
    def job(iterations):
        model, loss, _ = build(1)
        return Training(model, loss, Patches(), Patches(2), settings(iterations), tmp_path, True)

    job(8).run()
    again = job(3)
    again.run()
    asked = {"iterations": 3, "batch": 2, "lr_patch": 16, "run": "demo"}
    assert again.as_trained(asked) == asked | {"iterations": 8} and again.done["steps"] == 8
    asked = {"iterations": 5, "detector_iterations": 3}
    assert again.as_trained(asked, "detector_") == {"iterations": 5, "detector_iterations": 8}


def test_a_training_with_only_blank_validation_pictures_is_refused_before_it_runs(tmp_path):
    model, loss, _ = build(1)
    blank = {"lr": torch.full((3, 16, 16), 0.5), "hr": torch.full((3, 32, 32), 0.5), "name": "photos/blank"}
    with pytest.raises(ValueError, match="all pictures are blank or too small: photos/blank"):
        Training(model, loss, Patches(), [blank], settings(), tmp_path, True)
    assert not list(tmp_path.iterdir())


def test_infinity_in_a_state_of_an_earlier_version_is_not_the_best_for_ever(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, iterations=8, callback=stop_at(5))
    state = newest_state(tmp_path)
    write_state(tmp_path, state | {"best": float("inf"), "since_best": 7}, keep=2)
    _, log = start(tmp_path, iterations=8)
    assert newest_state(tmp_path)["best"] == log["psnr_y"].iloc[-1] and newest_state(tmp_path)["since_best"] == 0


def test_a_finished_run_is_taken_as_it_is(tmp_path, capsys):
    model, log = start(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again, rows = start(tmp_path, callback=stop_at(1), workers=1, log_every=3)  # incidental changes
    assert "is finished: nothing to train" in capsys.readouterr().out
    assert same(weights(model), weights(again)) and rows.equals(log)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_changes_are_applied_and_logged(tmp_path, capsys):
    changed = {
        "learning_rate": 1e-3,
        "schedule": "one_cycle",
        "iterations": 12,
        "batch": 3,
        "weights_learning_rate": 0.5,
    }
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, 2, callback=stop_at(5))
    _, log = start(tmp_path, 2, data=Patches(9), **changed)
    said = capsys.readouterr().out
    for change in (
        "learning_rate 0.002 -> 0.001",
        "schedule cosine -> one_cycle",
        "iterations 8 -> 12",
        "data 6 items -> 9 items",
        "batch 2 -> 3",
    ):
        assert f"changed since step 5: {change}" in said, change
    expected = settings(**changed)
    assert log["step"].tolist() == list(range(1, 13))
    assert log["lr"].tolist()[5:] == [expected.lr(step) for step in range(5, 12)]
    state = newest_state(tmp_path)
    assert state["drawn"] == 5 * 2 + 7 * 3
    assert state["optimizers"]["loss"]["param_groups"][0]["lr"] == 0.5
    jump = log["share_pixel"].diff().abs()
    assert jump[6:].max() > 5 * jump[:5].max()


def test_more_iterations_resume_from_the_end_and_fewer_end_at_once(tmp_path, capsys):
    start(tmp_path / "a")
    _, log = start(tmp_path / "a", iterations=10)
    assert log["step"].tolist() == list(range(1, 11)) and "iterations 8 -> 10" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", callback=stop_at(5))
    _, log = start(tmp_path / "b", iterations=3)
    assert log["step"].max() == 5 and "iterations 8 -> 3" in capsys.readouterr().out


def test_a_changed_loss_resumes_with_what_still_fits(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, 1, callback=stop_at(5))
    loss = TotalLoss(pixel=0.5, frequency=0.2, learnable="plain")
    model = tiny(hat={"drop_path_rate": 0.3})
    log = train(model, loss, Patches(), settings(optimizer="adamw"), folder=tmp_path)
    said = capsys.readouterr().out
    for change in ("loss's pixel 1.0 -> 0.5", "loss's frequency 0.0 -> 0.2", "loss has other parameters"):
        assert change in said
    assert "optimizer adam -> adamw" in said and "resumed at step 5" in said and log["step"].max() == 8


@pytest.mark.parametrize("why", ["other weights", "finished with others", "asked for"])
def test_a_new_start_moves_aside_what_was_there(tmp_path, capsys, why):
    first, _ = start(tmp_path)
    (tmp_path / "figures").mkdir()
    if why == "other weights":
        other = tiny()
        other.out_conv.bias.data += 0.01
        train(other, TotalLoss(), Patches(), settings(), folder=tmp_path)
        assert "other starting weights: starting anew" in capsys.readouterr().out
    elif why == "finished with others":
        start(tmp_path, learning_rate=1e-3)
        assert "was finished with other settings (learning_rate): starting anew" in capsys.readouterr().out
    else:
        second, _ = start(tmp_path, resume=False)
        assert same(weights(first), weights(second))
    assert sorted(p.name for p in (tmp_path / "before").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "state",
    ]
    start(tmp_path, resume=False)
    assert (tmp_path / "before_2/best.safetensors").is_file() or why == "other weights"
    assert (tmp_path / "figures").is_dir() and newest_state(tmp_path)["step"] == 8
