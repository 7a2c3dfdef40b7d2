"""The loop does what each stage needs, and repeats itself."""

import json

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from trainings import Patches, same, settings, start, tiny, weights

from srlib.evaluation.evaluate import validate_on
from srlib.losses.discriminator import MultiScaleDiscriminator
from srlib.losses.total import DualLoss, TotalLoss
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import CONFIGS, HAT
from srlib.training.states import newest_state
from srlib.training.train import train


def test_training_lowers_the_loss_and_keeps_the_best(tmp_path):
    model, log = start(tmp_path, iterations=60, validate_every=20)
    assert log["loss"].tail(5).mean() < 0.8 * log["loss"].head(5).mean()
    assert {"loss", "lr", "raw_pixel", "weighted_pixel", "gradient_norm", "psnr_y", "ssim_y"} <= set(log.columns)
    best = load(tmp_path / "best.safetensors")
    assert same(weights(best), weights(model))
    scores = log["psnr_y"].dropna()
    assert validate_on(Patches(2), 2)(best)["psnr_y"] == pytest.approx(scores.max(), abs=1e-6)
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == len(log)
    made = ["best.safetensors", "last.safetensors", "metrics.csv", "state"]
    assert sorted(p.name for p in tmp_path.iterdir()) == made


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "schedule_free", "schedule": "constant", "warmup_steps": 0}])
def test_a_start_that_nothing_beats_is_kept_as_the_best(tmp_path, capsys, optimizer):
    def worse(model):
        asked.append(model)
        return {"psnr_y": 30.0 - len(asked), "ssim_y": 0.9}

    def run(**changes):
        model, options = tiny(), {"folder": tmp_path, "validate": worse}
        log = train(model, TotalLoss(), Patches(), settings(4, validate_every=2, **optimizer, **changes), **options)
        return weights(model), log

    asked, before = [], weights(tiny())
    kept, log = run(validate_start=True)
    assert same(kept, before) and same(weights(load(tmp_path / "best.safetensors")), before)
    assert not same(weights(load(tmp_path / "last.safetensors")), before)
    assert log["psnr_y"].dropna().tolist() == [29.0, 28.0, 27.0] and log["step"].tolist() == [0, 1, 2, 3, 4]
    assert "no validation was better than the start" in capsys.readouterr().out
    again, _ = run(validate_start=True)
    assert len(asked) == 3 and same(again, before)  # finished: nothing to do


def test_a_score_that_is_not_finite_is_said_and_is_never_the_best(tmp_path, capsys):
    """Not in the log, the files, nor for patience: with infinity as the best no later model could be kept."""
    scores = iter([float("inf"), 30.0, float("nan"), 31.0])
    options = {"folder": tmp_path, "validate": lambda model: {"psnr_y": next(scores), "ssim_y": 0.9}}
    log = train(tiny(), TotalLoss(), Patches(), settings(8, validate_every=2, patience=2), **options)
    assert log["psnr_y"].dropna().tolist() == [30.0, 31.0] and newest_state(tmp_path)["best"] == 31.0
    said = capsys.readouterr().out
    assert "validation at step 2: psnr_y is inf and does not count" in said and "at step 6: psnr_y is nan" in said
    assert "inf" not in (tmp_path / "metrics.csv").read_text()
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["facts"])["step"] == 8


def test_a_blank_validation_picture_does_not_choose_the_best_model(tmp_path):
    blank = {"lr": torch.full((3, 16, 16), 0.5), "hr": torch.full((3, 32, 32), 0.5), "name": "blank"}
    pairs = [blank, *(Patches()[i] for i in range(2))]
    logs = []
    for name, held_out in (("a", pairs), ("b", pairs[1:])):
        options = {"folder": tmp_path / name, "validate": validate_on(held_out, 2)}
        logs.append(train(tiny(), TotalLoss(), Patches(), settings(), **options))
    assert logs[0]["psnr_y"].equals(logs[1]["psnr_y"]) and logs[0]["ssim_y"].equals(logs[1]["ssim_y"])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_same_seed_same_numbers_and_another_seed_others(tmp_path, stage):
    runs = [start(tmp_path / name, stage, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    (a, log_a), (b, log_b), (c, _) = runs
    assert same(weights(a), weights(b)) and log_a["loss"].tolist() == log_b["loss"].tolist()
    assert not same(weights(a), weights(c))


def test_stage_3_leaves_hat_as_it_was_to_the_bit(tmp_path):
    before = weights(tiny(use_tiling=True))
    model, _ = start(tmp_path, 3)
    after = weights(model)
    for name in before:
        fixed = name.startswith(("hat_model.", "eraser_facts"))
        assert torch.equal(before[name], after[name]) == fixed, name
    optimizer = newest_state(tmp_path)["optimizers"]["model"]
    assert len(optimizer["state"]) == sum(1 for n, _ in model.named_parameters() if not n.startswith("hat_model."))


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    whole, _ = start(tmp_path / "a", 2, iterations=3, batch=4, form="plain")
    parts, _ = start(tmp_path / "b", 2, iterations=3, batch=2, accumulate=2, form="plain")
    for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=2e-5), name


def test_gradients_are_clipped_and_their_norm_is_logged_as_it_was(tmp_path):
    before = weights(tiny())
    model, log = start(tmp_path / "a", iterations=1, clip=1e-9, ema=0.0)
    assert log["gradient_norm"].iloc[0] > 1e-3
    # Adam's first step is lr * g / (|g| + eps): with g clipped far below eps it is next to nothing
    moved = max((weights(model)[k] - before[k]).abs().max() for k in before if before[k].is_floating_point())
    assert 0 < moved < 0.2 * 2e-3
    free, _ = start(tmp_path / "b", iterations=1, clip=1e9, ema=0.0)
    assert max((weights(free)[k] - before[k]).abs().max() for k in before if before[k].is_floating_point()) > 1e-3


def test_the_averaged_weights_are_the_moving_average(tmp_path):
    """Decay by hand: min(ema, 1 - (1 + step)^-2/3), 0 at the first update."""
    seen, expected = [], None
    model = tiny()
    name = "hat_model.conv_first.weight"
    note = lambda row: seen.append(model.state_dict()[name].clone())  # noqa: E731
    train(model, TotalLoss(), Patches(), settings(4, ema=0.5), folder=tmp_path, callback=note)
    for step, value in enumerate(seen):
        decay = 0.0 if step <= 1 else min(0.5, 1 - step ** (-2 / 3))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    assert torch.allclose(model.state_dict()[name], expected, atol=1e-6)


def test_patience_ends_the_run(tmp_path):
    scores = iter([{"psnr_y": 30.0}, {"psnr_y": 29.0}, {"psnr_y": 28.0}])
    validate = lambda m: next(scores)  # noqa: E731
    log = train(tiny(), TotalLoss(), Patches(), settings(40, patience=2), folder=tmp_path, validate=validate)
    assert log["step"].max() == 12


def test_targets_alternate_with_sharpened_ones_for_most_of_the_run(tmp_path):
    calls = []
    sharpen = lambda x: calls.append(1) or x  # noqa: E731
    train(tiny(), TotalLoss(), Patches(), settings(10), folder=tmp_path, sharpen=sharpen)
    assert len(calls) == 4  # steps 0, 2, 4, 6 of the first 80 %


def test_the_discriminator_sees_the_original_and_learns_with_every_accumulated_batch(tmp_path):
    seen = []
    discriminator = MultiScaleDiscriminator(channels=4, scales=1)
    discriminator.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))
    before = {k: v.clone() for k, v in discriminator.named_parameters()}
    loss = TotalLoss(adversarial=0.1, discriminator=discriminator)
    data = Patches()
    model, sharp = tiny(), lambda x: torch.zeros_like(x)
    arguments = {"folder": tmp_path, "discriminator": discriminator, "sharpen": sharp}
    train(model, loss, data, settings(1, batch=1, accumulate=2), **arguments)
    steps = [x for x in seen if len(x) == 2]  # real and made together: the discriminator's own step
    assert len(steps) == 2 and not torch.equal(steps[0], steps[1])
    originals = [data[(n, 0, None)]["hr"] for n in range(len(data))]
    assert all(any(torch.equal(x[0], hr) for hr in originals) for x in steps)
    assert all(not torch.equal(before[k], v) for k, v in discriminator.named_parameters() if "bias" not in k)


class Shapes(Patches):
    """Notes what was asked for."""

    def __init__(self):
        super().__init__(size=24)
        self.sides = []

    def __getitem__(self, key):
        self.sides.append(key[2])
        return super().__getitem__(key)


def test_progressive_patches_grow_while_batches_shrink(tmp_path):
    data, inputs = Shapes(), []
    model = tiny()
    model.register_forward_pre_hook(lambda _, x: inputs.append(tuple(x[0].shape)))
    phases = {"progressive_iterations": [2, 1, 1], "progressive_batches": [3, 2, 1]}
    train(model, TotalLoss(), data, settings(6, **phases, progressive_patches=[8, 16, 24]), folder=tmp_path)
    assert inputs == [(3, 3, 8, 8)] * 2 + [(2, 3, 16, 16)] + [(1, 3, 24, 24)] * 3
    assert data.sides == [8] * 6 + [16] * 2 + [24] * 3


def test_input_scales_resize_input_and_target_alike(tmp_path):
    pairs, model = [], tiny()

    class Noting(TotalLoss):
        def forward(self, prediction, target, original=None):
            pairs.append((prediction.shape[-1], target.shape[-1]))
            return super().forward(prediction, target, original)

    train(model, Noting(), Patches(), settings(20, input_scales=[0.5, 1.0, 1.5]), folder=tmp_path)
    assert {a for a, _ in pairs} == {16, 32, 48} and all(a == b for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free"])
def test_other_optimizers_learn_and_decay_weights(tmp_path, optimizer):
    schedule = {"schedule": "constant", "warmup_steps": 3} if optimizer == "schedule_free" else {}
    common = {"iterations": 40, "optimizer": optimizer, "validate_every": 40, **schedule}
    model, log = start(tmp_path / "a", **common)
    assert log["loss"].tail(5).mean() < 0.8 * log["loss"].head(5).mean()
    decayed, _ = start(tmp_path / "b", **common, weight_decay=5.0)
    norm = lambda m: sum(p.square().sum() for p in m.hat_model.parameters())  # noqa: E731
    assert norm(decayed) < 0.9 * norm(model)


def test_schedule_free_validates_its_average_and_not_where_gradients_are_taken(tmp_path):
    where = []
    model = tiny()
    note = lambda row: where.append(weights(model))  # noqa: E731
    settings_ = settings(6, optimizer="schedule_free", schedule="constant", warmup_steps=0)
    train(model, TotalLoss(), Patches(), settings_, folder=tmp_path, callback=note)
    state = newest_state(tmp_path)
    assert same(where[-1], state["parts"]["model"]) and same(weights(model), state["parts"]["ema"])
    z = state["optimizers"]["model"]["state"][0]["z"]
    name = next(n for n, p in model.named_parameters() if p.requires_grad)
    x = where[-1][name] + (z - where[-1][name]) * (1 - 1 / 0.9)  # Defazio et al., 2024: y = 0.9 x + 0.1 z
    assert torch.allclose(model.state_dict()[name], x, atol=1e-6)


def test_bf16_trains_and_leaves_the_model_as_fp32_sees_it(tmp_path):
    model, log = start(tmp_path / "a", precision="bf16")
    assert log["loss"].notna().all() and model(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    fresh = load(tmp_path / "a/best.safetensors")
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(model(x), fresh(x))  # no autocast is left on it
    start(tmp_path / "b", precision="no")  # another precision in the same process


def test_a_model_with_two_outputs_trains_with_two_levels_of_weights(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.config = torch.nn.Conv2d(3, 3, 3, padding=1), {}

        def forward(self, x):
            once = x + self.conv(x)
            return once, torch.nn.functional.interpolate(once, scale_factor=2.0)

    class Pairs(Patches):
        def __getitem__(self, key):
            item = super().__getitem__(key)
            return {**item, "hr": (item["lr"], item["hr"])}

    log = train(Two(), DualLoss(form="normalised"), Pairs(), settings(), folder=tmp_path)
    assert {"share_output_1", "share_output_2", "share_pixel_1", "raw_gradient_2"} <= set(log.columns)
    assert log["loss"].notna().all() and log["share_output_1"].nunique() > 1


def test_tensorboard_files_hold_the_log(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, log = start(tmp_path, tensorboard=True)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "psnr_y"} <= set(events.Tags()["scalars"])
    written = {e.step: e.value for e in events.Scalars("loss")}
    assert written == pytest.approx(dict(zip(log["step"], log["loss"], strict=True)), rel=1e-6)


def test_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        train(tiny().requires_grad_(False), TotalLoss(), Patches(), settings(), folder=tmp_path)


@pytest.mark.parametrize("preset", ["vram8", "vram12", "vram24", "demo"])
def test_presets_build_and_take_one_step_on_a_shrunk_picture(preset, tmp_path):
    config = CONFIGS[preset]
    hat = HAT(**config, checkpointing=True)
    window = config["window_size"]
    model = TiledSR(hat, use_tiling=True, tile_size=window, tile_pad=0)
    log = train(model, TotalLoss(), Patches(size=2 * window), settings(1, batch=1), folder=tmp_path)
    assert log["loss"].iloc[0] < 0.5
