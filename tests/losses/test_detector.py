"""Artifacts do what their names say, labels are where they can be told, and the detector can be trained and asked."""

import pickle

import cv2
import numpy as np
import pytest
import torch

from srlib.data.drawings import draw
from srlib.data.pictures import to_float
from srlib.losses.artifacts import ARTIFACTS, CLASSES, ArtifactPatches, SeamExample, _labels, variation
from srlib.losses.detector import ArtifactDetector, DetectorLoss, evaluate_detector, seam_examples, show_classes
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.initial import start_as_interpolation
from srlib.training.settings import Settings
from srlib.training.train import train

K = {name: k for k, name in enumerate(CLASSES)}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.03, (128, 128, 1))
    return np.clip(draw(3, 128, 128) / 255 + noise, 0, 1).astype(np.float32)


def seam(size=128) -> SeamExample:
    whole = to_float(draw(5, size, size))
    tiled = whole.clone()
    tiled[:, size // 2 :] += 0.06
    return SeamExample(tiled.clamp(0, 1), whole, ([size // 2], []))


def drawings(count=3) -> list[torch.Tensor]:
    return [to_float(draw(s, 128, 128)) for s in range(count)]


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
    for strength in (0.0, 0.8):
        rung = ARTIFACTS["ringing"](edge, strength, np.random.default_rng(0))
        assert rung.max() > 0.77 and rung.min() < 0.23


def test_banding_leaves_few_levels(picture):
    assert len(np.unique(ARTIFACTS["banding"](picture, 1.0, np.random.default_rng(0)))) <= 4


def test_variations_stay_in_range_and_treat_two_pictures_alike(picture):
    crop = np.ascontiguousarray(picture[:64, :64])
    greys, means = 0, set()
    for seed in range(60):
        for worn in (True, False):
            change = variation(np.random.default_rng(seed), 64, worn=worn)
            after = change(crop)
            assert after.shape == crop.shape and after.dtype == np.float32 and after.min() >= 0 and after.max() <= 1
            assert np.array_equal(after, change(crop))
            means.add(after.mean().round(3))
        greys += (after[..., 0] / after[..., 1]).std() < 0.001  # but for the tint
    assert 12 < greys < 36 and len(means) > 60


@pytest.mark.parametrize("vary", [False, True])
def test_targets_lie_where_the_artifact_is(vary):
    for name in (*CLASSES, "clean"):
        patches = ArtifactPatches(drawings(), [seam()], 64, vary=vary, only=name)
        items = [patches[n, 0] for n in range(12)]
        present = np.stack([item["hr"][0].amax((1, 2)) for item in items]).max(0)
        assert [c for c, there in zip(CLASSES, present, strict=True) if there] == ([name] if name != "clean" else [])
        assert all(item["name"].split()[0] == name for item in items)
        assert all((item["hr"][0] <= item["hr"][1]).all() for item in items)


def test_labels_turn_with_the_picture():
    whole = torch.full((3, 128, 128), 0.5)
    tiled = whole.clone()
    tiled[:, 64:] = 0.8
    patches = ArtifactPatches([whole], [SeamExample(tiled, whole, ([64], []))], 64, only="seam")
    directions = set()
    for n in range(16):
        item = patches[n, 0]
        grey, there = item["lr"].mean(0), item["hr"][0, K["seam"]].bool()
        across = there.any(1).sum() <= 2  # rows of cells with a seam
        if not across:
            grey, there = grey.T, there.T
        last = (grey[1:] - grey[:-1]).abs().mean(1).argmax().item()  # row before the step
        assert there.any() and there[[last // 8, (last + 1) // 8]].any(0).all()
        assert not there[: last // 8].any() and not there[(last + 1) // 8 + 1 :].any()
        directions.add((bool(across), bool(grey[0, 0] > grey[-1, -1])))
    assert len(directions) == 4


def labels(*, on_seam=0, seam=0.0, covered=None, weakest=None, shown=None, **changes):
    """What _labels says of one cell; by default every artifact's weakest form would be seen, and all that changed."""
    cell = lambda value, kind=float: np.full((1, 1), value, kind)  # noqa: E731
    weakest = dict.fromkeys(ARTIFACTS, 0.01) | (weakest or {})
    covered = {name: cell(1.0) for name in changes} | {name: cell(c) for name, c in (covered or {}).items()}
    target, asked = _labels(
        cell(on_seam, bool),
        cell(seam),
        {name: cell(w) for name, w in weakest.items()},
        {name: cell(c) for name, c in (changes | (shown or {})).items()},
        {name: cell(c) for name, c in changes.items()},
        covered,
    )[:, :, 0, 0]
    return {c: bool(target[k]) if asked[k] else None for c, k in K.items()}


NONE = dict.fromkeys(CLASSES, False)


def test_what_can_be_told_of_a_cell():
    assert labels() == NONE
    assert labels(blocks=0.02) == NONE | {"blocks": True, "ringing": None, "blur": None, "banding": None}  # hides them
    assert labels(blocks=0.0045) == NONE | {"blocks": True}  # too weak to hide anything
    assert labels(blur=0.05) == NONE | {"blur": True}  # blur hides nothing: it comes first
    # moot by nature, whether it was put in or not; put in, yet not to be seen
    assert labels(weakest={"blur": 0.003}) == NONE | {"blur": None}
    assert labels(weakest={"blur": 0.003}, blur=0.05) == NONE | {"blur": None}
    assert labels(blur=0.003) == NONE | {"blur": None}
    # the rim of a rectangle, and outside of it
    assert labels(covered={"blur": 0.5}, blur=0.05) == NONE | {"blur": None}
    assert labels(covered={"blur": 0.0}, blur=0.0) == NONE
    # a sinc blurs as well; a blur does not ring
    assert labels(ringing=0.05, shown={"ringing": 0.003}) == NONE | {"ringing": None, "blur": None}  # no ripples
    assert labels(ringing=0.008) == NONE | {"ringing": True, "blur": None}
    assert labels(blur=0.05, ringing=0.008) == NONE | {"ringing": True, "blur": None}
    assert labels(blur=0.05, ringing=0.002) == NONE | {"ringing": None, "blur": True}
    assert labels(blur=0.05, blocks=0.0045) == NONE | {"blur": True, "blocks": True}
    assert labels(blur=0.05, blocks=0.02)["blur"] is None
    # seams: asked about everywhere but where one hides
    assert labels(on_seam=1, seam=0.02) == NONE | {"seam": True}
    assert labels(on_seam=1, seam=0.003) == NONE | {"seam": None}
    assert labels(on_seam=1, seam=0.02, blocks=0.05)["seam"] is None
    assert labels(seam=0.02, blocks=0.05)["seam"] is False


@pytest.mark.parametrize("name", ARTIFACTS)
def test_which_cells_are_asked_about_does_not_tell_the_answer(name, picture):
    """The same patches with the artifact and without: but for cells that it left unchanged, the same questions."""
    half = torch.from_numpy(picture).permute(2, 0, 1).clone()
    half[:, :, 64:] = 0.5  # nothing to be seen there
    asked = {}
    for only in (name, "clean"):
        patches = ArtifactPatches([half], [], 64, vary=False, only=only)
        asked[only] = torch.stack([patches[n, 1]["hr"][1, K[name]] for n in range(20)])
    crops = torch.stack([patches[n, 1]["lr"] for n in range(20)])
    plain = (crops.reshape(20, 3, 8, 8, 8, 8).std((1, 3, 5)) < 1e-3).float()
    inside = 1 - torch.nn.functional.max_pool2d(1 - plain, 5, 1, 2)  # where nothing reaches from the other half
    assert inside.sum() > 50 and asked["clean"][inside > 0].max() == 0
    assert asked["clean"][plain == 0].mean() > 0.6
    assert (asked[name] <= asked["clean"]).all()
    assert asked[name].sum() > 0.9 * asked["clean"].sum() > 0


def test_levels_tell_nothing():
    """Files have whole levels, filtered pictures would not: as often with an artifact as without."""
    for vary, low, high in ((False, 1, 1), (True, 0.3, 0.7)):
        for only in ("clean", "blur"):
            patches = ArtifactPatches(drawings(), [], 64, vary=vary, only=only)
            levels = [patches[n, 0]["lr"] * 255 for n in range(60)]
            assert low <= np.mean([(x - x.round()).abs().max().item() < 1e-3 for x in levels]) <= high


def test_a_patch_is_its_key():
    patches = ArtifactPatches(drawings(), [seam()], 32)
    again = pickle.loads(pickle.dumps(ArtifactPatches(drawings(), [seam()], 32)))
    keys = [(3, 7), (4, 7), (3, 8), (3, 7 + 2**72)]
    items = [patches[key] for key in keys]
    torch.rand(3)  # nothing global is drawn from
    for key, item in reversed(list(zip(keys, items, strict=True))):
        same = again[(*key, "anything")]
        assert same["name"] == item["name"]
        assert torch.equal(same["lr"], item["lr"]) and torch.equal(same["hr"], item["hr"])
    assert not any(torch.equal(items[0]["lr"], other["lr"]) for other in items[1:])
    item = items[0]
    assert item["lr"].shape == (3, 32, 32) and item["hr"].shape == (2, 5, 4, 4)
    assert item["lr"].dtype == item["hr"].dtype == torch.float32
    assert patches.key == again.key and len(patches) > 1000
    others = [
        ArtifactPatches(drawings(), [seam()], 40),
        ArtifactPatches(drawings(2), [seam()], 32),
        ArtifactPatches(drawings(), [], 32),
        ArtifactPatches(drawings(), [seam()], 32, vary=False),
    ]
    assert len({patches.key, *(other.key for other in others)}) == 5


def test_a_third_is_clean_and_names_say_what_is_in():
    patches = ArtifactPatches(drawings(), [seam()], 32)
    items = [patches[n, 0] for n in range(200)]
    names = [item["name"] for item in items]
    assert 0.2 < np.mean([name == "clean" for name in names]) < 0.5
    for name in CLASSES:
        with_it = np.array([name in n for n in names])
        assert 0.05 < with_it.mean() < 0.4
        labelled = np.array([item["hr"][0, K[name]].any() for item in items])
        assert not (labelled & ~with_it).any() and (labelled & with_it).sum() > 0.4 * with_it.sum()


def test_the_loss_asks_only_where_the_answer_can_be_told():
    target = torch.zeros(1, 2, 5, 3, 3)
    target[0, 1, 2, 0] = 1
    target[0, 0, 2, 0, 0] = 1
    logits = torch.randn(1, 5, 3, 3, requires_grad=True)
    total, parts = DetectorLoss()(logits, target, original=None)
    total.backward()
    assert torch.equal(logits.grad != 0, target[:, 1] > 0)
    assert logits.grad[0, 2, 0, 0] < 0 < logits.grad[0, 2, 0, 1]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[0, 2, 0], target[0, 0, 2, 0])
    assert torch.isclose(total, expected)
    assert parts["artifacts"]["raw"] == total and not parts["artifacts"]["weighted"].requires_grad
    assert DetectorLoss()(logits, torch.zeros_like(target))[0] == 0  # nobody asked: no loss, and not NaN


def test_detector_takes_any_size_and_gives_gradients_through_frozen_weights():
    detector = ArtifactDetector(channels=8).requires_grad_(False)
    x = torch.rand(2, 3, 37, 50, requires_grad=True)
    assert detector(x).shape == (2, 5, 5, 7)
    assert detector.heatmap(x).shape == (2, 5, 37, 50)
    assert [f.shape[-1] for f in detector.features(x)] == [28, 14, 7]
    detector(x).sum().backward()
    assert x.grad.abs().sum() > 0
    single = detector.eval()(x[:1])
    assert torch.allclose(single, detector(x)[:1], atol=1e-5)  # no batch statistics
    twin = ArtifactDetector(**detector.config)
    twin.load_state_dict(detector.state_dict())
    assert torch.equal(twin(x), detector(x))


def test_a_short_training_sees_seams_and_artifacts_on_a_drawing_it_never_saw(tmp_path):
    torch.manual_seed(0)
    detector = ArtifactDetector(channels=16)
    patches = ArtifactPatches(drawings(4), [seam()], 48)
    rates = {"learning_rate": 5e-3, "schedule": "one_cycle", "optimizer": "adamw", "weight_decay": 1e-4}
    settings = Settings(iterations=300, batch=8, log_every=1, **rates)
    log = train(detector, DetectorLoss(), patches, settings, folder=tmp_path)
    assert log["loss"].tail(10).mean() < 0.75 * log["loss"].head(10).mean()
    quality = evaluate_detector(detector, [to_float(draw(9, 128, 128))], [seam()], batches=12, patch=48)
    precision, chance = quality["average_precision"], quality["chance"]
    assert set(precision) == set(CLASSES) == set(quality["asked"])
    assert all(precision[c] > chance[c] + 0.1 for c in CLASSES)
    assert all(0.05 < quality["asked"][c] < 0.95 for c in ARTIFACTS) and quality["asked"]["seam"] > 0.8
    assert quality["seam_ratio"] > 2
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
        ArtifactPatches([torch.rand(3, 64, 64)], [], 30)
    with pytest.raises(ValueError, match="20x64 picture is smaller than the patch"):
        ArtifactPatches([torch.rand(3, 64, 20)], [], 32)


def test_show_classes():
    shown = show_classes(to_float(draw(1, 128, 128)), [seam()], np.random.default_rng(0), crop=64)
    assert list(shown) == ["clean", *ARTIFACTS, "seam"]
    assert cv2.PSNR(shown["clean"].numpy(), shown["blur"].numpy(), 1.0) < 45
