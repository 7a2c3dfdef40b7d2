"""The loop does what each stage needs, resumes exactly, repeats itself, and survives what goes wrong."""

import pandas as pd
import pytest
import torch

from srlib.checkpoints import load_tiled
from srlib.discriminator import MultiScaleDiscriminator
from srlib.eraser import TiledSR
from srlib.hat import CONFIGS, HAT
from srlib.initial import start_as_interpolation
from srlib.losses import TotalLoss
from srlib.train import Settings, train, validate_on

TINY = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4, "compress_ratio": 4}


class Patches(torch.utils.data.Dataset):
    """Smooth random patches; keys as KeySampler's."""

    def __init__(self, size: int = 16, scale: int = 2):
        self.size, self.scale, self.poison = size, scale, None

    def __len__(self):
        return 6

    def __getitem__(self, key):
        number, draw = key if isinstance(key, tuple) else (key, 0)
        if number >= len(self):
            raise IndexError
        noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(number * 1000 + draw % 1000))
        side = self.size * self.scale
        hr = torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic").clamp(0, 1)
        lr = torch.nn.functional.avg_pool2d(hr, self.scale)[0]
        return {"lr": lr * float("nan") if number == self.poison else lr, "hr": hr[0], "name": f"picture {number}"}


def tiny(**arguments) -> TiledSR:
    torch.manual_seed(5)
    return TiledSR(start_as_interpolation(HAT(**TINY)), channels=8, blocks=1, tile_size=8, tile_pad=0, **arguments)


def settings(iterations=8, **changes) -> Settings:
    return Settings(
        **{"iterations": iterations, "batch": 2, "learning_rate": 2e-3, "validate_every": 4, "log_every": 1, **changes}
    )


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_training_lowers_the_loss_and_keeps_the_best(tmp_path):
    model = tiny()
    log = train(
        model,
        TotalLoss(),
        Patches(),
        settings(60, validate_every=20),
        folder=tmp_path,
        validate=validate_on(Patches(), 2),
    )
    assert log["loss"].tail(5).mean() < 0.8 * log["loss"].head(5).mean()
    assert {"loss", "lr", "raw_pixel", "weighted_pixel", "gradient_norm", "psnr_y", "ssim_y"} <= set(log.columns)
    best = load_tiled(tmp_path / "best.safetensors")
    assert same(weights(best), weights(model))
    scores = log["psnr_y"].dropna()
    assert validate_on(Patches(), 2)(best)["psnr_y"] == pytest.approx(scores.max(), abs=1e-6)
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == len(log)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "state.pt",
    ]


def test_same_seed_same_numbers(tmp_path):
    runs = []
    for name in "ab":
        model = tiny(use_tiling=True)
        log = train(model, TotalLoss(frequency=0.2), Patches(), settings(), folder=tmp_path / name)
        runs.append((weights(model), log["loss"].tolist()))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, stage, workers):
    def start(folder, callback=None):
        torch.manual_seed(1)
        model = tiny(use_tiling=stage > 1)
        loss = TotalLoss(learnable="normalised") if stage == 2 else TotalLoss()
        discriminator = None
        if stage == 3:
            model.freeze_hat()
            discriminator = MultiScaleDiscriminator(channels=4, scales=1)
            loss = TotalLoss(adversarial=0.1, discriminator=discriminator)
        log = train(
            model,
            loss,
            Patches(),
            settings(workers=workers),
            folder=folder,
            validate=validate_on(Patches(), 2),
            discriminator=discriminator,
            callback=callback,
        )
        return weights(model), log

    unbroken, log = start(tmp_path / "a")

    def interrupt(row):
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", interrupt)
    resumed, again = start(tmp_path / "b")
    assert same(unbroken, resumed)
    assert log.drop(columns="seconds").equals(again.drop(columns="seconds"))


def test_stage_3_leaves_hat_as_it_was_to_the_bit(tmp_path):
    model = tiny(use_tiling=True).freeze_hat()
    before = weights(model)
    train(model, TotalLoss(), Patches(), settings(), folder=tmp_path)
    after = weights(model)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("hat_model."), name
    optimizer = torch.load(tmp_path / "state.pt", weights_only=False)["optimizer"]
    assert len(optimizer["state"]) == sum(1 for n, _ in model.named_parameters() if not n.startswith("hat_model."))


def test_a_run_of_other_settings_starts_anew(tmp_path, capsys):
    train(tiny(), TotalLoss(), Patches(), settings(2), folder=tmp_path)
    log = train(tiny(), TotalLoss(), Patches(), settings(3, learning_rate=1e-3), folder=tmp_path)
    assert log["step"].tolist() == [1, 2, 3] and "starting anew" in capsys.readouterr().out


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    results = []
    for name, batch, accumulate in (("a", 4, 1), ("b", 2, 2)):
        model = tiny()
        train(model, TotalLoss(), Patches(), settings(3, batch=batch, accumulate=accumulate), folder=tmp_path / name)
        results.append(weights(model))
    for name in results[0]:
        assert torch.allclose(results[0][name].float(), results[1][name].float(), atol=2e-5), name


def test_a_non_finite_loss_names_term_and_picture_skips_and_then_stops(tmp_path, capsys):
    data = Patches()
    data.poison = 2
    train(tiny(), TotalLoss(), data, settings(6, batch=1), folder=tmp_path / "a")
    assert "pixel not finite on picture 2" in capsys.readouterr().out
    data.__class__.__len__, length = (lambda self: 3), data.__class__.__len__
    try:
        with pytest.raises(FloatingPointError, match="pixel not finite on .*picture 2.*3 such steps in a row"):
            train(tiny(), TotalLoss(), data, settings(6, batch=3), folder=tmp_path / "b", max_bad=3)
    finally:
        data.__class__.__len__ = length
    assert (tmp_path / "b/last.safetensors").is_file()
    assert all(v.isfinite().all() for v in load_tiled(tmp_path / "b/last.safetensors").state_dict().values())


def test_patience_ends_the_run(tmp_path):
    model = tiny()
    validate = iter([{"psnr_y": 30.0}, {"psnr_y": 29.0}, {"psnr_y": 28.0}])
    log = train(
        model, TotalLoss(), Patches(), settings(40, patience=2), folder=tmp_path, validate=lambda m: next(validate)
    )
    assert log["step"].max() == 12


def test_targets_alternate_with_sharpened_ones_for_most_of_the_run(tmp_path):
    calls = []
    sharpen = lambda x: calls.append(1) or x  # noqa: E731
    train(tiny(), TotalLoss(), Patches(), settings(10), folder=tmp_path, sharpen=sharpen)
    assert len(calls) == 4  # steps 0, 2, 4, 6 of the first 80 %


def test_nothing_to_train_and_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        train(tiny().requires_grad_(False), TotalLoss(), Patches(), settings(), folder=tmp_path)
    with pytest.raises(ValueError, match="schedule 'cosin' is none of"):
        settings(schedule="cosin")
    with pytest.raises(ValueError, match="batch is 0"):
        settings(batch=0)


@pytest.mark.parametrize("preset", ["vram8", "vram12", "vram24", "demo"])
def test_presets_build_and_take_one_step_on_a_shrunk_picture(preset, tmp_path):
    config = CONFIGS[preset]
    hat = HAT(**config, checkpointing=True)
    window = config["window_size"]
    model = TiledSR(hat, use_tiling=True, tile_size=window, tile_pad=0)
    log = train(model, TotalLoss(), Patches(2 * window), settings(1, batch=1), folder=tmp_path)
    assert log["loss"].iloc[0] < 0.5
