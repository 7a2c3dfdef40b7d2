"""The ablation compares what it says it compares, seed by seed."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from projects import ROOT, TINY, execute
from trainings import tiny

from srlib.experiments import ablation
from srlib.losses.detector import ArtifactDetector
from srlib.networks.checkpoints import load


def scores(seed: int, tiled: dict[str, float]) -> pd.DataFrame:
    rows = [{"picture": "p", "variant": "bicubic", "tiling": "whole", "PSNR-Y": 29.0}]
    for arm, value in tiled.items():
        rows.append({"picture": "p", "variant": arm, "tiling": "whole", "PSNR-Y": 31.0})
        rows.append({"picture": "p", "variant": arm, "tiling": "t", "PSNR-Y": value, "TC": 40 + seed, "SGR": 1.5})
    return pd.DataFrame(rows).assign(seed=seed)


def test_gaps_are_closed_against_the_same_seeds_stage_1():
    table = pd.concat([scores(0, {"1": 30.0, "1+2": 30.5}), scores(1, {"1": 30.8, "1+2": 30.8})])
    rows = ablation.per_seed(table, "t")
    assert rows["gap closed, %"].round(6).to_dict() == {(0, "1"): 0, (0, "1+2"): 50, (1, "1"): 0, (1, "1+2"): 0}
    assert rows.loc[(0, "1"), "gap"] == 1.0


def test_blank_pictures_and_missing_gaps_leave_no_infinity():
    fine = pd.concat([scores(0, {"1": 30.0, "1+2+3": 30.5}), scores(1, {"1": 31.0, "1+2+3": 30.9})]).assign(blank=False)
    odd = fine.assign(picture="q", blank=True, **{"PSNR-Y": float("inf"), "SGR": 864.0})
    table = pd.concat([fine, odd])
    rows = ablation.per_seed(table, "t")
    assert rows.equals(ablation.per_seed(fine, "t"))
    assert rows["gap closed, %"].isna().tolist() == [False, False, True, True]  # the second seed has no gap to close
    arms = ablation.with_spread(rows, "arm", {"gap closed, %": 0, "TC": 1})
    assert arms.loc["1+2+3", "gap closed, %"] == "50"
    digits = {"gap closed, %": 0, "TC": 1, "SGR": 1}
    said = ablation.headline(ablation.with_spread(rows, "arm", digits), 2)
    assert said.startswith("of 2 seeds: ") and said.endswith("50 % of the gap in PSNR-Y closed")
    none = ablation.with_spread(ablation.per_seed(fine[fine["seed"] == 1], "t"), "arm", digits)
    assert ablation.headline(none, 1).endswith("TC 41.0 to 41.0 dB, SGR 1.5 to 1.5, no gap in PSNR-Y to close")
    ways = ablation.ways_per_seed(table.assign(seconds=1.0))
    assert ways.index.names == ["way", "seed"] and ("1, t", 0) in ways.index and ways.loc[("1, t", 0), "SGR"] == 1.5


def test_tc_of_equal_pictures_makes_no_infinite_difference():
    table = scores(0, {"1": 30.0, "1, longer": 30.1})
    table.loc[(table["variant"] == "1") & (table["tiling"] == "t"), "TC"] = float("inf")
    differences = ablation.answers(ablation.per_seed(table, "t"))
    assert differences["TC"].isna().all() and differences["PSNR-Y tiled"].notna().all()


def test_the_error_by_distance_is_that_of_the_pictures_that_count():
    table = pd.concat([scores(0, {"1": 30.0}), scores(0, {"1": 30.0}).assign(picture="q", blank=True)])
    nan = float("nan")
    profiles = {("p", "1", "t"): torch.tensor([3.0, nan]), ("q", "1", "t"): torch.tensor([9.0, 9.0])}
    rows = ablation.by_distance(table.assign(blank=table["picture"] == "q"), profiles)
    assert rows["squared"].iloc[0] == 9.0 and rows["squared"].isna().tolist() == [False, True]


def test_answers_are_differences_of_one_seed_and_spread_is_their_range():
    table = pd.concat([scores(s, {"1": 30.0, "1, longer": 30.1, "1+2": 30.1 + s}) for s in range(3)])
    differences = ablation.answers(ablation.per_seed(table, "t"))
    question = "training through the tiling, not only longer"
    assert differences.loc[question, "PSNR-Y tiled"].round(6).tolist() == [0.0, 1.0, 2.0]
    text = ablation.with_spread(differences, "question", {"PSNR-Y tiled": 2}, sign=True)
    assert text.loc[question, "PSNR-Y tiled"] == "+1.00 (+0.00 to +2.00)"
    alone = ablation.with_spread(differences.xs(1, level="seed", drop_level=False), "question", {"PSNR-Y tiled": 1})
    assert alone.loc[question, "PSNR-Y tiled"] == "1.0"
    nothing = ablation.with_spread(differences * -1e-9, "question", {"PSNR-Y tiled": 2, "TC": 0}, sign=True)
    assert nothing.loc[question, "PSNR-Y tiled"] == "+0.00 (+0.00 to +0.00)"
    unknown = ablation.with_spread(differences * float("nan"), "question", {"TC": 1})
    assert unknown.loc[question, "TC"] == ""
    assert "the eraser after stage 2" not in differences.index  # its arms are not there


@pytest.mark.parametrize("arms", [[name] for name in ablation.ARMS], ids=str)
def test_any_arm_alone_has_its_tables(arms):
    names = ablation.with_starts(arms)
    table = pd.concat([scores(seed, dict.fromkeys(names, 30.5)) for seed in range(2)])
    rows = ablation.per_seed(table, "t")
    differences = ablation.answers(rows)
    assert differences.index.names == ["question", "seed"] and list(differences.columns) == list(rows.columns)
    asked = ablation.with_spread(differences, "question", {"TC": 1, "SGR": 2}, sign=True)
    wanted = [q for q, pair in ablation.QUESTIONS.items() if set(pair) <= set(names)]
    assert list(asked.index) == wanted and list(asked.columns) == ["TC", "SGR"]
    digits = {"TC": 1, "SGR": 1, "gap closed, %": 0}
    said = ablation.headline(ablation.with_spread(rows, "arm", digits), 2)
    assert ("stage 1 alone" in said) == (names == ["1"])


def test_every_arm_starts_from_one_before_it_and_every_question_has_its_arms():
    names = list(ablation.ARMS)
    assert all(not arm.after or arm.after in names[: names.index(name)] for name, arm in ablation.ARMS.items())
    assert all({a, b} <= set(names) for a, b in ablation.QUESTIONS.values())
    assert len({ablation.best_of(Path("folder"), name) for name in names}) == len(names)


def trained() -> list[str]:
    return ablation.with_starts(TINY["06_ablation"]["arms"])


@pytest.fixture(scope="module")
def ablated(folder):
    return execute(folder, "06_ablation", **TINY["06_ablation"])


def test_the_notebook_trains_every_arm_and_writes_its_tables(folder, ablated):
    out = folder / "outputs/demo/ablation"
    arms = pd.read_csv(out / "arms.csv", index_col="arm")
    assert list(arms.index) == trained() and (arms["training, s"] >= 0).all()
    asked = {q for q, pair in ablation.QUESTIONS.items() if set(pair) <= set(trained())}
    assert set(pd.read_csv(out / "answers.csv")["question"]) == asked and "the eraser after stage 2" in asked
    assert len(pd.read_csv(out / "tilings.csv")) == 2 * (1 + 4)  # whole, and four ways to tile
    assert len(pd.read_csv(out / "sizes.csv")) == 3 * (
        1 + 9
    )  # whole; three tiles, as two of the four are one size, at three halos
    costs = pd.read_csv(out / "costs.csv", index_col="arm")
    assert costs.loc["1+2+3", "parameters"] > costs.loc["1+2+3", "multiply-adds per LR pixel"] > 0
    profiles = pd.read_csv(out / "seed0/scores/profiles.csv", dtype={"arm": str})
    assert list(profiles["arm"].unique()) == trained() and profiles["squared"].iloc[0] > 0
    assert {"arms.png", "answers.png", "profile.png"} <= {p.name for p in (out / "figures").iterdir()}


def test_arms_differ_in_what_they_are_said_to_differ_in(folder, ablated):
    def model(arm, which):
        best = ablation.best_of(folder / "outputs/demo/ablation/seed0", arm)
        return load(best.with_stem(which)).state_dict()

    def same(a, b, prefix, which="last"):  # in so few steps the best is the start
        a, b = model(a, which), model(b, which)
        return all(torch.equal(a[k], b[k]) for k in a if k.startswith(prefix))

    assert same("1", "1+3", "hat_model", "best") and same("1+2", "1+2+3", "hat_model", "best")  # frozen
    assert not same("1", "1+2", "hat_model") and not same("1, longer", "1+2", "hat_model")
    assert not same("1", "1, sharpened", "hat_model")
    assert not same("1+2+3", "1+2+3, ground truth and detector", "residual")


def test_run_again_nothing_is_trained(folder, ablated):
    again = execute(folder, "06_ablation", **TINY["06_ablation"])
    said = "".join(o.get("text", "") for c in again.cells if c.cell_type == "code" for o in c.outputs)
    assert "steps/s" not in said and "nothing to train" not in said  # the scores are there
    kept = folder / "outputs/demo/ablation/seed0/scores/made_of"
    kept.unlink()
    fewer = {**TINY["06_ablation"], "arms": ["1"]}
    again = execute(folder, "06_ablation", **fewer)
    said = "".join(o.get("text", "") for c in again.cells if c.cell_type == "code" for o in c.outputs)
    assert said.count("is finished: nothing to train") == 1 and "steps/s" not in said
    assert "none of the questions has both of its arms among these" in said
    assert kept.is_file()


def test_scores_are_taken_as_long_as_the_pictures_are_the_same(folder, ablated, tmp_path, monkeypatch):
    data = tmp_path / "outputs/demo/data"
    data.parent.mkdir(parents=True)
    shutil.copytree(folder / "outputs/demo/data", data)
    trained = []
    monkeypatch.setattr(ablation, "train_arm", lambda *_: trained.append("arm") or 1.0)
    monkeypatch.setattr(ablation, "load", lambda _: tiny())
    table, profiles = (
        pd.DataFrame({"picture": ["p"], "variant": ["1"], "PSNR-Y": [30.0]}),
        {("p", "1", "t"): torch.ones(3)},
    )
    monkeypatch.setattr(ablation, "evaluate", lambda *_, **__: (table, {}, profiles))
    given = ablation.recipe_of(ROOT, "demo", "demo", 0)
    description = json.loads((data / "data.json").read_text())
    parts = {part: name for name, part in description["split"].items()}  # a picture of each
    for changed, times in (("", 1), ("", 1), ("train", 2), ("", 2), ("test", 3), ("", 3)):
        if changed:
            rows = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
            rows.loc[rows["source"] == parts[changed], "source_checksum"] = "another"
            rows.to_csv(data / "manifest.csv", index=False)
        ablation.scored(tmp_path, tmp_path / "seed0", given, ArtifactDetector, [], arms=["1"])
        assert len(trained) == times, changed


def test_an_unknown_arm_is_refused_and_a_known_one_brings_its_start():
    assert ablation.with_starts(["1+2+3"]) == ["1", "1+2", "1+2+3"] and ablation.with_starts([]) == list(ablation.ARMS)
    with pytest.raises(ValueError, match="arm '1\\+4' is none of '1', "):
        ablation.with_starts(["1+4"])
