"""Artifacts do what their names say, targets are where they were put, and the detector can be trained and asked."""

import cv2
import numpy as np
import pytest
import torch

from srlib.artifacts import (
    ARTIFACTS,
    CLASSES,
    ArtifactDetector,
    SeamExample,
    evaluate_detector,
    make_batch,
    seam_examples,
    show_classes,
    train_detector,
)
from srlib.drawings import draw
from srlib.eraser import TiledSR
from srlib.hat import HAT
from srlib.initial import start_as_interpolation
from srlib.pictures import to_float


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.03, (128, 128, 1))
    return np.clip(draw(3, 128, 128) / 255 + noise, 0, 1).astype(np.float32)


def seam(size=128) -> SeamExample:
    whole = to_float(draw(5, size, size))
    tiled = whole.clone()
    tiled[:, size // 2 :] += 0.06
    return SeamExample(tiled.clamp(0, 1), whole, ([size // 2], []))


@pytest.mark.parametrize("name", ARTIFACTS)
def test_strength_grows_and_the_same_draw_gives_the_same_picture(name, picture):
    def damage(strength):
        after = ARTIFACTS[name](picture, strength, np.random.default_rng(1))
        assert after.shape == picture.shape and after.dtype == np.float32 and after.min() >= 0 and after.max() <= 1
        return ((after - picture) ** 2).mean()

    assert 0 < damage(0.0) < damage(0.5) < damage(1.0)
    assert damage(0.5) == damage(0.5)


def test_blocks_show_steps_every_eight_pixels(picture):
    smooth = cv2.GaussianBlur(picture, (0, 0), 3)
    phases = []
    for seed in range(6):
        after = ARTIFACTS["blocks"](smooth, 1.0, np.random.default_rng(seed))
        step = np.abs(np.diff(after.mean(2), axis=1)).mean(0)
        by_phase = [step[p::8].mean() for p in range(8)]
        assert max(by_phase) > 1.5 * np.median(by_phase)
        phases.append(int(np.argmax(by_phase)))
    assert len(set(phases)) > 1  # the grid moves


def test_blur_removes_detail_and_ringing_overshoots():
    edge = np.full((64, 64, 3), 0.25, np.float32)
    edge[:, 32:] = 0.75
    blurred = ARTIFACTS["blur"](edge, 0.8, np.random.default_rng(0))
    assert np.abs(np.diff(blurred, axis=1)).max() < 0.3 and blurred.max() <= 0.75 + 1e-4
    rung = ARTIFACTS["ringing"](edge, 0.8, np.random.default_rng(0))
    assert rung.max() > 0.78 and rung.min() < 0.22


def test_banding_leaves_few_levels(picture):
    assert len(np.unique(ARTIFACTS["banding"](picture, 1.0, np.random.default_rng(0)))) <= 4


def test_targets_lie_where_the_artifact_is():
    clean, seams = [to_float(draw(s, 128, 128)) for s in range(2)], [seam()]
    rng = np.random.default_rng(0)
    for name in (*CLASSES, "clean"):
        pictures, target, counts = make_batch(clean, seams, batch=3, patch=64, rng=rng, only=name)
        assert pictures.shape == (3, 3, 64, 64) and target.shape == counts.shape == (3, 5, 8, 8)
        present = {CLASSES[k] for k in range(5) if target[:, k].any()}
        assert present == ({name} if name != "clean" else set())
        if name == "seam":
            rows = target[:, 4].any(2).sum(1)
            assert set(rows.tolist()) <= {1, 2}  # a line touches one row of cells or two


def test_batches_are_reproducible_and_a_third_is_clean():
    arguments = ([to_float(draw(0, 128, 128))], [seam()])
    first, second = (make_batch(*arguments, batch=60, patch=32, rng=np.random.default_rng(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    clean = (first[1].flatten(1).sum(1) == 0).float().mean()
    assert 0.2 < clean < 0.55


def test_detector_takes_any_size_and_gives_gradients_through_frozen_weights():
    detector = ArtifactDetector(channels=8).requires_grad_(False)
    x = torch.rand(2, 3, 37, 50, requires_grad=True)
    assert detector(x).shape == (2, 5, 5, 7)
    assert detector.heatmap(x).shape == (2, 5, 37, 50) and detector.picture_logits(x).shape == (2, 5)
    assert [f.shape[-1] for f in detector.features(x)] == [28, 14, 7]
    detector(x).sum().backward()
    assert x.grad.abs().sum() > 0
    single = detector.eval()(x[:1])
    assert torch.allclose(single, detector(x)[:1], atol=1e-5)  # no batch statistics


def test_a_short_training_sees_seams_and_artifacts_on_a_drawing_it_never_saw():
    clean = [to_float(draw(s, 128, 128)) for s in range(4)]
    detector = ArtifactDetector(channels=16)
    log = train_detector(detector, clean, [seam()], iterations=250, batch=8, patch=48, learning_rate=5e-3)
    assert log["loss"].tail(10).mean() < 0.6 * log["loss"].head(10).mean()
    quality = evaluate_detector(detector, [to_float(draw(9, 128, 128))], [seam()], batches=6, patch=48)
    precision, chance = quality["average_precision"], quality["chance"]
    assert set(precision) == set(CLASSES) and all(precision[c] > chance[c] for c in CLASSES)
    assert precision["blur"] > chance["blur"] + 0.2 and precision["seam"] > 0.5
    assert quality["seam_ratio"] > 3
    heat = quality["confusion"]
    assert heat.shape == (6, 5) and all(heat.loc[c, c] > heat.loc["clean", c] for c in CLASSES)


def test_real_seams_come_from_the_model_on_a_grid_that_moves():
    hat = start_as_interpolation(HAT(embed_dim=16, depths=(2,), num_heads=(2,), window_size=8, squeeze_factor=4))
    lrs = [torch.rand(3, 40, 48)] * 6
    examples = seam_examples(TiledSR(hat), lrs, tile=16, rng=np.random.default_rng(0))
    assert len({str(e.seams) for e in examples}) > 1
    for e in examples:
        assert e.tiled.shape == e.whole.shape == (3, 80, 96)
        assert all(c % 16 == 0 for c in e.seams[0] + e.seams[1]) and not torch.equal(e.tiled, e.whole)


def test_patches_must_fit():
    with pytest.raises(ValueError, match="multiple of the detector's cell"):
        make_batch([torch.rand(3, 64, 64)], [], batch=1, patch=30, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="20x64 picture is smaller than the patch"):
        make_batch([torch.rand(3, 64, 20)], [], batch=1, patch=32, rng=np.random.default_rng(0))


def test_show_classes():
    shown = show_classes(to_float(draw(1, 128, 128)), [seam()], np.random.default_rng(0), crop=64)
    assert list(shown) == ["clean", *ARTIFACTS, "seam"]
    assert cv2.PSNR(shown["clean"].numpy(), shown["blur"].numpy(), 1.0) < 45
