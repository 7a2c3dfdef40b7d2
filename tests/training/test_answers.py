"""HAT's answers are computed once, known by content, bounded on disk; resumed trainings see what unbroken ones do."""

import json
import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch.nn.functional import interpolate
from trainings import same, settings, stop_at, tiny, weights

from srlib.losses.erasure import ErasureLoss
from srlib.networks.eraser import TiledSR
from srlib.networks.fingerprint import fingerprint
from srlib.tiling.seam_map import near
from srlib.tiling.tiled import tiled_apply
from srlib.training import answers as module
from srlib.training.answers import Answers, Crops
from srlib.training.erased import validate_erased
from srlib.training.train import train

CROPS = Crops(count=4, side=24, grids=2, tiles=(8, 16), pads=(0,), gib=1.0)


class Pictures:
    """Smooth random pictures x2, of several sizes."""

    def __init__(self, sizes=((24, 24), (40, 24), (32, 33)), key="a"):
        self.sizes, self.key = list(sizes), key
        self.names = [f"picture {i}" for i in range(len(self.sizes))]

    def __len__(self):
        return len(self.sizes)

    def size(self, index):
        return self.sizes[index]

    def __getitem__(self, index):
        noise = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(index))
        lr, hr = (interpolate(noise, size=[k * s for s in self.sizes[index]], mode="bicubic")[0] for k in (1, 2))
        return {"lr": lr.clamp(0, 1), "hr": hr.clamp(0, 1), "name": self.names[index]}


def model(**arguments) -> TiledSR:
    made = tiny(**arguments).freeze_hat()
    with torch.no_grad():
        for parameter in made.hat_model.parameters():  # or its tiles are all but its whole picture
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made


def answers(folder, crops=CROPS, pictures=None, net=None, side=16) -> Answers:
    made = Answers(net or model(), pictures or Pictures(), folder, crops, lr_patch=side)
    made.prepare()
    return made


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_the_same_key_is_the_same_patch_with_a_seam_and_what_it_should_be(tmp_path):
    data = answers(tmp_path)
    assert len(data) == 8
    for number in range(len(data)):
        item, again = (data[(number, 3, 12)] for _ in range(2))
        lr, stitched, seams, unit = item["lr"]
        assert all(torch.equal(a, b) for a, b in zip(item["lr"], again["lr"], strict=True))
        assert lr.shape == (3, 12, 12) and stitched.shape == item["target"][0].shape == item["hr"].shape == (3, 24, 24)
        assert near(seams[None]).any() and unit.item() == pytest.approx(data.units[0]) and unit > 0
    assert any(not torch.equal(data[(0, a)]["lr"][0], data[(0, 3)]["lr"][0]) for a in (4, 5))


def test_patches_are_parts_of_hats_own_answers(tmp_path):
    net = model()
    data = answers(tmp_path, net=net)
    for crop in range(4):
        index, top, left = data.crop(crop)
        height, width = data.sizes[index]
        lr = Pictures()[index]["lr"][:, top : top + height, left : left + width]
        whole = net.hat_model(lr[None])[0]
        for grid, plan in enumerate(data.plans(crop, (height, width))):
            item = data.patch(crop, grid)
            stitched, _ = tiled_apply(net.hat_model, lr[None], plan, scale=2)
            assert torch.equal(item["lr"][0], lr) and (item["target"][0] - whole).abs().max() < 1e-3  # as fp16
            error = (stitched[0] - whole).detach()
            assert (item["lr"][1] - item["target"][0] - error).abs().max() < 1e-3 * error.abs().max() + 1e-6
            assert data.plan(crop, grid) == plan


def test_the_unit_is_the_error_near_seams(tmp_path):
    net, squares = model(), []
    data = answers(tmp_path, net=net)
    for crop in range(4):
        for grid in range(2):
            item = data.patch(crop, grid)
            counts = near(item["lr"][2][None])[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)
            squares.append((item["lr"][1] - item["target"][0]).square().mean(0)[counts])
    assert data.gains == [[0.0, pytest.approx(math.sqrt(torch.cat(squares).mean()), rel=1e-2)]]


def test_files_are_made_once_and_known_by_content(tmp_path, monkeypatch):
    first = answers(tmp_path)
    times = {f: f.stat().st_mtime_ns for f in files(tmp_path)}
    assert len(times) == 4
    files(tmp_path)[1].unlink()
    made = []
    make = Answers._make
    monkeypatch.setattr(Answers, "_make", lambda self, number: (made.append(number), make(self, number)))
    again = answers(tmp_path)
    assert made == [1] and again.key == first.key
    for other in (
        {"crops": replace(CROPS, seed=1)},
        {"pictures": Pictures(key="b")},
        {"net": model(hat={"embed_dim": 8})},
        {"crops": replace(CROPS, pads=(0, 8), side=32)},
    ):
        made.clear()
        data = answers(tmp_path, **other)
        assert data.key != first.key and made == [0, 1, 2, 3]
        assert {f.parent for f in files(tmp_path)} == {data.folder}  # those of others are gone


def test_more_crops_are_added_and_fewer_or_other_room_leave_those_that_fit(tmp_path):
    few = answers(tmp_path)
    times = {f: f.stat().st_mtime_ns for f in files(tmp_path)}
    many = answers(tmp_path, replace(CROPS, count=7))
    assert many.key != few.key and many.folder == few.folder and len(files(tmp_path)) == 7
    assert {f: f.stat().st_mtime_ns for f in files(tmp_path)}.items() >= times.items()
    again = answers(tmp_path)  # four of seven, trained as if there were no others
    assert len(files(tmp_path)) == 7 and again.key == few.key and again.units == few.units != many.units
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    for room, left in ((5.5, 5), (3.5, 1)):  # all fit; half of the room, as the next turn is made while one lasts
        answers(tmp_path, replace(CROPS, gib=room * each / 2**30))
        assert [int(f.stem) for f in files(tmp_path)] == list(range(left))


def test_which_pictures_are_large_enough_is_part_of_what_files_are_known_by(tmp_path):
    pictures = Pictures([(18, 18), (40, 24)])
    for side in (16, 20):  # with 20 the second picture's crop is number 0
        data = answers(tmp_path, pictures=pictures, side=side)
        for crop in range(4):
            assert data.patch(crop, 0)["name"] == pictures.names[data.crop(crop)[0]]


def test_more_crops_than_fit_take_turns_and_the_bound_holds(tmp_path):
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    bounded = replace(CROPS, count=9, gib=5 * each / 2**30)
    data = answers(tmp_path, bounded)
    assert data.moving and data.together == 2 and len(data) == 4
    seen = set()
    for epoch in range(40):
        data.prepare(epoch * len(data), len(data))
        seen |= set(data.turn(epoch))
        assert sum(f.stat().st_size for f in files(tmp_path)) < 5 * each
        for number in range(len(data)):
            assert data[(number, epoch)]["lr"][0].shape == (3, 16, 16)
    assert seen == set(range(9))


def test_each_process_makes_its_share(tmp_path):
    state = PartialState()
    for rank in (1, 0):  # the second is done before the first begins
        data = Answers(model(), Pictures(), tmp_path, CROPS, lr_patch=16)
        with (
            patch.multiple(state, num_processes=2, process_index=rank, wait_for_everyone=lambda: None),
            patch.object(PartialState, "is_main_process", not rank),
        ):
            data.make(data.turn(0))
        assert [int(file.stem) for file in files(tmp_path)] == ([1, 3] if rank else [0, 1, 2, 3])
    assert answers(tmp_path).units == answers(tmp_path / "alone").units


def test_a_cache_too_small_for_the_contexts_is_refused(tmp_path):
    each, pictures = 48 * 48 * 3 * (4 + 2 * 4 * 3), Pictures([(48, 48)])
    crops = replace(CROPS, count=9, grids=1, pads=(0, 8), side=48)
    with pytest.raises(ValueError, match="hold 1 crops at once, too few for a grid of each context .0, 8.: raise"):
        answers(tmp_path, replace(crops, gib=3.5 * each / 2**30), pictures)
    data = answers(tmp_path, replace(crops, gib=8.5 * each / 2**30), pictures)
    for epoch in range(40):
        data.prepare(epoch * len(data), len(data))
        for number in range(len(data)):
            assert data[(number, epoch)]["lr"][0].shape == (3, 16, 16)


def trained(folder, crops=CROPS, callback=None, radius=8, **changes):
    net = model(radius=radius)
    held_out = Answers(net, Pictures(), folder / "held", replace(CROPS, count=0, grids=1, drawn=False), lr_patch=8)
    data = Answers(net, Pictures(), folder / "answers", crops, lr_patch=16)
    data.measure()
    net.gains = data.gains
    log = train(
        net,
        ErasureLoss(),
        data,
        settings(**changes),
        folder=folder / "run",
        validate=validate_erased(held_out),
        best_by="tc",
        callback=callback,
    )
    return net, log


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_through_several_turns_is_the_unbroken_one(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(module, "_REUSE", 2)
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    bounded = replace(CROPS, count=9, gib=5 * each / 2**30)
    unbroken, _ = trained(tmp_path / "a", bounded, workers=workers, iterations=20)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", bounded, stop_at(9), workers=workers, iterations=20)
    resumed, _ = trained(tmp_path / "b", bounded, workers=workers, iterations=20)
    assert same(weights(unbroken), weights(resumed))


def test_stage_3_erases_and_leaves_hat_as_it_was(tmp_path):
    before = weights(model().hat_model)
    net, log = trained(tmp_path, iterations=80, learning_rate=3e-3, validate_every=20, batch=4)
    assert same(before, weights(net.hat_model))
    scores = log.dropna(subset=["tc"])
    assert {"tc", "sgr", "psnr_y"} <= set(scores) and scores["tc"].iloc[-1] > scores["tc"].iloc[0]


def test_small_pictures_are_left_out_and_none_left_is_said(tmp_path):
    data = answers(tmp_path, pictures=Pictures([(24, 24), (8, 40), (10, 10)]))
    assert {data.crop(n)[0] for n in range(8)} == {0}
    with pytest.raises(ValueError, match="no picture of picture 0, .* is large enough for patches of 16 LR pixels"):
        answers(tmp_path, pictures=Pictures([(8, 8)]))
    with pytest.raises(ValueError, match="lower lr_patch or the tiles, or raise crop_side"):
        answers(tmp_path, replace(CROPS, tiles=(24,)))
    with pytest.raises(ValueError, match="side of crops is 4"):
        replace(CROPS, side=4)
    for gib in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="cache_gib .* leaves no room for HAT's answers"):
            replace(CROPS, gib=gib)


def test_room_is_shared_with_what_lies_beside_and_that_stays(tmp_path):
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    fixed = replace(CROPS, count=0, drawn=False)
    held_out = Answers(model(), Pictures(), tmp_path, fixed, lr_patch=8)
    held_out.make(held_out.turn(0))
    beside = {"lr_patch": 16, "beside": [held_out]}
    data = Answers(model(), Pictures(), tmp_path, replace(CROPS, count=5, gib=7.5 * each / 2**30), **beside)
    assert data.moving and data.together == 2  # three crops of the validation leave four and a half
    other = Answers(model(), Pictures(), tmp_path, replace(CROPS, seed=9), lr_patch=16)
    other.measure()
    data.prepare()
    assert {f.parent for f in files(tmp_path)} == {data.folder, held_out.folder} and not other.folder.exists()
    with pytest.raises(
        ValueError, match="cache_gib .* has no room for two crops of .* MiB at once, beside those of the"
    ):
        Answers(model(), Pictures(), tmp_path, replace(CROPS, count=5, gib=4.5 * each / 2**30), **beside)
    for share, room in ((1.0, 7), (0.5, 3)):
        of_all = replace(CROPS, count=9, gib=7.5 * each / 2**30)
        assert Answers(model(), Pictures(), tmp_path, of_all, lr_patch=16, share=share).room == room


def test_what_nothing_will_read_again_is_removed_wherever_it_lies(tmp_path):
    fixed = replace(CROPS, count=0, drawn=False)
    held_out = Answers(model(), Pictures(), tmp_path, fixed, lr_patch=8)
    held_out.make(held_out.turn(0))
    data = Answers(model(), Pictures(), tmp_path, CROPS, lr_patch=16, beside=[held_out])
    data.measure()
    mine = {*files(tmp_path)}
    for left in ("train/abc/000000.safetensors", f"{held_out.folder.name}/000009.safetensors", "b/units_x.json"):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).touch()
    for folder in (data.folder, held_out.folder):  # a killed process was writing them
        (folder / ".000001.77.part.safetensors").touch()
    data.remove_others()
    assert {*files(tmp_path)} == mine
    assert {path for path in tmp_path.rglob("*/")} == {data.folder, held_out.folder}
    Answers(model(), Pictures(), tmp_path, replace(CROPS, seed=1), lr_patch=16, beside=[held_out]).remove_others()
    assert {*files(tmp_path)} == {*held_out.folder.glob("*.safetensors")}


def test_what_only_measures_removes_nothing_and_runs_hat_once(tmp_path, monkeypatch):
    """A second start of a run that is training, before it is refused; and a finished run, looked at again."""
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    bounded = replace(CROPS, count=9, gib=5 * each / 2**30)
    first = answers(tmp_path, bounded)
    first.prepare(40, 8)
    there = files(tmp_path)
    monkeypatch.setattr(Answers, "_make", lambda *_: pytest.fail("HAT has run already"))
    again = Answers(model(), Pictures(), tmp_path, bounded, lr_patch=16)
    again.measure()
    assert again.units == first.units and files(tmp_path) == there
    assert again.example(3)["lr"][0].shape == (3, 16, 16)  # of a crop that is there


def test_a_smaller_bound_holds_before_the_training_begins(tmp_path):
    each = 24 * 24 * 3 * (4 + 2 * 4 * 4)
    large = answers(tmp_path, replace(CROPS, count=20, gib=16.5 * each / 2**30))
    large.prepare(8 * len(large), 8 * len(large))
    assert len(files(tmp_path)) == 16
    small = Answers(model(), Pictures(), tmp_path, replace(CROPS, count=20, gib=6.5 * each / 2**30), lr_patch=16)
    small.remove_others()
    small.measure()
    assert len(files(tmp_path)) == 3


def test_a_look_at_a_patch_after_the_files_were_removed_makes_one_crop(tmp_path):
    data = answers(tmp_path)
    for file in files(tmp_path):
        file.unlink()
    assert data.example(0)["lr"][0].shape == (3, 16, 16) and len(files(tmp_path)) == 1


@pytest.mark.parametrize("change", [{"count": 6}, {"seed": 5}, {"pads": (0, 8), "side": 32}, {"grids": 3}])
def test_a_training_resumes_with_other_crops_in_their_unit(tmp_path, capsys, change):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, callback=stop_at(9), iterations=20)
    capsys.readouterr()
    _, log = trained(tmp_path, replace(CROPS, **change), iterations=20)
    said = capsys.readouterr().out
    assert "resumed at step 9" in said and "changed since step 9: data" in said and "starting anew" not in said
    data = Answers(model(), Pictures(), tmp_path / "answers", replace(CROPS, **change), lr_patch=16)
    data.measure()
    for name in ("best", "last"):
        gains = load_file(tmp_path / "run" / f"{name}.safetensors")["eraser_facts"][1:]
        assert gains.tolist() == [[h, pytest.approx(u)] for h, u in data.gains], name
    assert log.attrs["steps"] == 20 and "was measured anew: the best step is looked for from here on" in said


@pytest.mark.parametrize("patience", [0, 2])
def test_a_finished_training_stays_as_it_is_when_its_units_are_measured_anew(tmp_path, capsys, patience):
    """As after answers/ was removed, and made again on another machine."""
    settled = {"iterations": 30, "validate_every": 3, "patience": patience, "learning_rate": 0.3 if patience else 1e-3}
    before, log = trained(tmp_path, **settled)
    steps, best = log.attrs["steps"], load_file(tmp_path / "run/best.safetensors")
    assert (steps < 30) == bool(patience)
    (units,) = (tmp_path / "answers").rglob("units_*.json")
    units.write_text(json.dumps({halo: 1.01 * unit for halo, unit in json.loads(units.read_text()).items()}))
    capsys.readouterr()
    after, log = trained(tmp_path, **settled)
    said = capsys.readouterr().out
    assert log.attrs["steps"] == steps and "is finished: nothing to train" in said and "anew" not in said
    assert same(weights(before), weights(after)) and same(best, load_file(tmp_path / "run/best.safetensors"))
    _, log = trained(tmp_path, **{**settled, "iterations": 36, "patience": 0})
    assert "was measured anew" in capsys.readouterr().out and log.attrs["steps"] == 36


def test_another_radius_is_another_training_and_an_older_state_of_stage_1_is_not(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, callback=stop_at(9), iterations=20)
    capsys.readouterr()
    trained(tmp_path, radius=4, iterations=20)
    assert "of another model or other starting weights: starting anew" in capsys.readouterr().out
    bare = tiny(gains=())  # stages 1 and 2 know no gains: they start from all that there is, as states of before say
    assert fingerprint(bare.start()) == fingerprint(bare)


def test_validation_is_in_the_models_own_unit_over_every_context_that_has_one(tmp_path):
    net = model()
    crops = replace(CROPS, count=0, grids=4, pads=(0, 8), drawn=False, side=40)
    held_out = Answers(net, Pictures([(40, 40), (40, 33)]), tmp_path, crops, lr_patch=8)
    validate, seen = validate_erased(held_out), []
    with torch.no_grad():
        net.out_conv.bias.fill_(0.5)
    erase = TiledSR.erase

    def watched(self, stitched, lr, seams, unit):
        seen.append((unit, seams[0, 2:].max().item()))
        return erase(self, stitched, lr, seams, unit)

    for gains, contexts in (([[0, 0.2], [8, 0.1]], 2), ([[0, 0.2], [8, 0.0]], 1), ([], 2)):
        net.gains, seen = gains, []
        with patch.object(TiledSR, "erase", watched):
            scores = validate(net)
        tiles = 2
        assert len(seen) == 2 * tiles * contexts and math.isfinite(scores["tc"])  # of two pictures
        units = {round(unit, 6) for unit, _ in seen}
        assert units == {round(unit, 6) for _, unit in gains if unit} or (not gains and units == {0.0})
