"""Settings refuse what cannot be meant, and say what each step is."""

import pytest

from srlib.training.settings import Settings, settings_from

NEEDED = {"iterations": 10, "batch": 2, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"schedule": "cosin"}, "schedule 'cosin' is none of cosine, one_cycle, warmup_restarts, constant"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is none of adam, adamw, schedule_free"),
        ({"precision": "fp8"}, "precision 'fp8' is none of no, bf16, fp16"),
        ({"batch": 0}, "batch is 0; it must be at least 1"),
        ({"keep": 0}, "keep is 0"),
        ({"max_bad": 0}, "max_bad is 0"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"optimizer": "schedule_free"}, 'set schedule to "constant", not cosine'),
        ({"schedule": "constant", "warmup_steps": 10}, "warmup_steps 10 last the whole training of 10 iterations"),
        ({"schedule": "warmup_restarts", "first_cycle_steps": 5, "warmup_steps": 5}, "below first_cycle_steps"),
        (
            {"progressive_iterations": [1], "progressive_batches": [1, 2], "progressive_patches": [8]},
            "differ in length",
        ),
        (
            {"progressive_iterations": [9, 1], "progressive_batches": [0, 2], "progressive_patches": [8, 9]},
            "at least 1",
        ),
        (
            {"progressive_iterations": [9, 1, 3], "progressive_batches": [1, 2, 3], "progressive_patches": [8, 9, 7]},
            "take all 10 iterations",
        ),
        ({"input_scales": [0.0, 1.0]}, "must be above 0"),
        ({"clip": -1.0}, "clip is -1.0; it must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"discriminator_learning_rate": -1e-4}, "discriminator_learning_rate is -0.0001"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"sharpened_share": 2.0}, "sharpened_share 2.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Settings(**{**NEEDED, **wrong})


def test_schedules_use_the_settings_numbers():
    ends = {"learning_rate": 1.0, "min_learning_rate": 0.0}
    cycles = {
        "schedule": "warmup_restarts",
        "first_cycle_steps": 10,
        "warmup_steps": 2,
        "cycle_mult": 1.5,
        "gamma": 0.5,
    }
    restarts = Settings(**{**NEEDED, **ends, **cycles, "iterations": 100})
    assert [restarts.lr(step) for step in (0, 2, 6, 10, 12)] == pytest.approx([0.0, 1.0, 0.5, 0.0, 0.5])
    constant = Settings(**{**NEEDED, **ends, "schedule": "constant", "warmup_steps": 3})
    assert [constant.lr(step) for step in (0, 1, 3, 9)] == pytest.approx([0.25, 0.5, 1.0, 1.0])
    cosine = Settings(**{**NEEDED, **ends})
    assert [cosine.lr(step) for step in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    one_cycle = Settings(**{**NEEDED, **ends, "schedule": "one_cycle"})
    assert [one_cycle.lr(step) for step in (0, 3, 10)] == pytest.approx([0.04, 1.0, 0.0])


def test_the_plan_of_progressive_patches_from_any_step():
    phases = {"progressive_iterations": [2, 1, 1], "progressive_batches": [4, 2, 1], "progressive_patches": [8, 16, 24]}
    settings = Settings(**{**NEEDED, **phases, "iterations": 5, "accumulate": 2})
    whole = list(settings.plan(0))
    assert whole == [(4, 8)] * 4 + [(2, 16)] * 2 + [(1, 24)] * 4
    assert list(settings.plan(2)) == whole[4:]
    assert list(Settings(**NEEDED).plan(8)) == [(2, None)] * 2


def test_of_a_notebooks_parameters_those_of_the_same_name_count():
    settings = settings_from({**NEEDED, "run": "demo", "patience": 3, "tile_size": 32})
    assert (settings.iterations, settings.patience) == (10, 3)
