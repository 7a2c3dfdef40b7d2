"""The ablation: what each stage and each part of its loss is worth, several seeds, on pictures nothing trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from srlib.evaluation.counted import counted
from srlib.evaluation.evaluate import gap_closed, means
from srlib.experiments import stages
from srlib.experiments.parameters import read_parameter_file
from srlib.losses.detector import ArtifactDetector, evaluate_detector

RECIPE = ("02_stage1", "03_tiling", "04_artifact_ft")  # the notebooks whose trainings are taken apart


@dataclass(frozen=True)
class Arm:
    """One training: that of `notebook`, begun from the arm `after`, with `over` instead of the recipe's parameters.

    tiled: False trains on whole patches what the notebook trains through the tiling.
    """

    notebook: str
    after: str = ""
    over: Mapping = field(default_factory=dict)
    tiled: bool = True


ARMS = {  # each after those it needs
    "1": Arm("02_stage1"),
    "1, sharpened": Arm("02_stage1", over={"sharpen": "unsharp"}),
    "1, longer": Arm("03_tiling", after="1", tiled=False),  # stage 2's steps and patches, but not its tiles
    "1+2": Arm("03_tiling", after="1"),
    "1+3": Arm("04_artifact_ft", after="1"),
    "1, longer+3": Arm("04_artifact_ft", after="1, longer"),
    "1+2+3": Arm("04_artifact_ft", after="1+2"),
    "1+2+3, no detector": Arm("04_artifact_ft", after="1+2", over={"artifact_class": 0.0, "artifact_feature": 0.0}),
    "1+2+3, plain weights": Arm("04_artifact_ft", after="1+2", over={"learnable": "plain"}),
    "1+2+3, entropy weights": Arm("04_artifact_ft", after="1+2", over={"learnable": "entropy"}),
}

QUESTIONS = {  # each is answered by the first arm minus the second
    "training through the tiling, not only longer": ("1+2", "1, longer"),
    "only training longer": ("1, longer", "1"),
    "the eraser after stage 1": ("1+3", "1"),
    "the eraser after stage 2": ("1+2+3", "1+2"),
    "the eraser after longer training": ("1, longer+3", "1, longer"),
    "stage 2 before the eraser, not only longer": ("1+2+3", "1, longer+3"),
    "all three stages, not only longer": ("1+2+3", "1, longer"),
    "the detector's terms": ("1+2+3", "1+2+3, no detector"),
    "learned weights, plain": ("1+2+3, plain weights", "1+2+3"),
    "learned weights with entropy": ("1+2+3, entropy weights", "1+2+3"),
    "sharpened targets": ("1, sharpened", "1"),
}


def recipe_of(root: Path, name: str, run: str, seed: int) -> dict[str, dict]:
    """All parameters of 02 to 04 as params/<name>/ sets them, by notebook, but with this run and seed."""
    return {
        notebook: read_parameter_file(
            root / "notebooks" / f"{notebook}.ipynb",
            root / "params" / name / f"{notebook}.yaml",
            {"run": run, "seed": seed},
        )
        for notebook in RECIPE
    }


def best_of(folder: Path, arm: str) -> Path:
    """Where an arm's best weights are, in the folder of its seed."""
    return folder / arm.replace(", ", "_").replace(" ", "_") / "best.safetensors"


def train_detector(root: Path, folder: Path, parameters: Mapping) -> tuple[ArtifactDetector, dict[str, float]]:
    """A detector that learns the seams of `folder`'s arm "1"; with its average precision on validation pictures."""
    p = parameters["04_artifact_ft"]
    made = stages.material(root, p, start=best_of(folder, "1"))
    job = stages.detector(root, p, made)
    job.folder = folder / "detector"
    job.run()
    judge, held_out = cast(ArtifactDetector, job.model), made["validation"]
    quality = evaluate_detector(judge, held_out.clean, held_out.seams, patch=p["detector_patch"], seed=p["seed"])
    quality = quality["average_precision"]
    if min(quality.values()) < p["detector_bar"]:
        raise ValueError(
            f"the detector is below its bar of {p['detector_bar']} ({quality}): raise detector_iterations in the "
            "recipe, or lower detector_bar: without its terms there is little to take apart"
        )
    return judge, quality


def train_arm(root: Path, folder: Path, name: str, parameters: Mapping, judge: ArtifactDetector | None = None) -> float:
    """Train ARMS[name] into `folder`, or take it if it is finished; the seconds that it trained, its start's not.

    judge: the detector, for those of stage 3.
    """
    arm = ARMS[name]
    p = {**parameters[arm.notebook], **arm.over}
    if arm.notebook == "02_stage1":
        job = stages.stage1(root, p)
    elif arm.notebook == "03_tiling":
        job = stages.tiling(root, p, start=best_of(folder, arm.after))
        job.model.use_tiling = arm.tiled
    else:
        assert judge is not None
        job = stages.eraser(root, p, judge, start=best_of(folder, arm.after))
    job.folder = best_of(folder, name).parent
    return float(job.run()["seconds"].max())


def per_seed(table: pd.DataFrame, tiling: str) -> pd.DataFrame:
    """One row a seed and arm, means over the pictures that count for all seeds: PSNR-Y whole and tiled and their gap
    (dB), the share of the same seed's stage-1 gap that is closed (%, NaN where there is none), TC (dB), SGR.

    table: `evaluate`'s, with a column "seed".
    """
    rows = {}
    for seed, part in _trained(table).groupby("seed"):
        mean = means(part.drop(columns="seed"))
        whole, tiled = (mean.xs(kind, level="tiling") for kind in ("whole", tiling))
        rows[seed] = pd.DataFrame(
            {
                "PSNR-Y whole": whole["PSNR-Y"],
                "PSNR-Y tiled": tiled["PSNR-Y"],
                "gap": whole["PSNR-Y"] - tiled["PSNR-Y"],
                "gap closed, %": gap_closed(part, tiling, "1"),
                "TC": tiled["TC"],
                "SGR": tiled["SGR"],
            }
        )
    return pd.concat(rows, names=["seed", "arm"])


def ways_per_seed(table: pd.DataFrame) -> pd.DataFrame:
    """One row a way to tile, "<arm>, <tiling>", and seed: means over the pictures that count for all seeds.

    table: as of per_seed.
    """
    by_seed = {seed: means(part.drop(columns="seed")) for seed, part in _trained(table).groupby("seed")}
    rows = pd.concat(by_seed, names=["seed"]).reset_index()
    rows.insert(0, "way", rows["variant"] + ", " + rows["tiling"])
    return rows.drop(columns=["variant", "tiling"]).set_index(["way", "seed"])


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    rows = counted(table)
    return rows[rows["variant"] != "bicubic"]


def answers(seeds: pd.DataFrame) -> pd.DataFrame:
    """For each of QUESTIONS the difference of its two arms, seed by seed; index (question, seed); NaN where one of the
    two is infinite.
    """
    seeds = seeds.where(np.isfinite(seeds))
    by_arm = {arm: rows.droplevel("arm") for arm, rows in seeds.groupby("arm")}
    asked = {q: by_arm[a] - by_arm[b] for q, (a, b) in QUESTIONS.items() if a in by_arm and b in by_arm}
    return pd.concat(asked, names=["question"])


def with_spread(rows: pd.DataFrame, level: str, digits: Mapping[str, int], sign: bool = False) -> pd.DataFrame:
    """Mean and, of several seeds, smallest and largest as text, by `level` of the index, in its order; "" for NaN.
    Seeds without a value are left out.
    """

    def text(values: pd.Series) -> str:
        values = values.dropna()
        if values.empty:
            return ""
        places = digits[str(values.name)]
        mean, low, high = (
            f"{round(v, places) + 0.0:{'+' if sign else ''}.{places}f}"  # + 0.0: no minus before nothing
            for v in (values.mean(), values.min(), values.max())
        )
        return f"{mean} ({low} to {high})" if len(values) > 1 else mean

    return rows[list(digits)].groupby(level=level, sort=False).agg(text)


def headline(arms: pd.DataFrame, seeds: int) -> str:
    """The result in one line. arms: with_spread's table of the arms, of so many seeds."""
    share = arms.loc["1+2+3", "gap closed, %"]
    closed = f"the three stages close {share} % of stage 1's gap between whole and tiled"
    return f"of {seeds} seeds: {closed if share else 'stage 1 loses nothing by tiling, there is no gap to close'}"
