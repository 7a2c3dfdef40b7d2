"""The ablation: what each stage and each part of its loss is worth, several seeds, on pictures nothing trained on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from torch import Tensor

from srlib.data.datasets import PicturePairs, training_patches
from srlib.evaluation.baseline import BASELINES
from srlib.evaluation.counted import Pairs, counted
from srlib.evaluation.evaluate import evaluate, gap_closed, means, tilings_of, ways_to_tile
from srlib.experiments import stages
from srlib.experiments.parameters import read_parameter_file
from srlib.files import atomic, digest
from srlib.losses.detector import ArtifactDetector, evaluate_detector
from srlib.networks.checkpoints import load

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


GROUND_TRUTH = {"teacher": "ground_truth", "pixel": 1.0, "frequency": 0.3, "gradient": 0.2, "ms_ssim": 0.1}
BY_DETECTOR = {"artifact_class": 0.04, "artifact_feature": 0.007}
OLDER = {"radius": 0, "channels": 32, "blocks": 2, "iterations": 150, "batch": 2, "learning_rate": 5e-4, "lr_patch": 64}

ARMS = {  # each after those it needs
    "1": Arm("02_stage1"),
    "1, sharpened": Arm("02_stage1", over={"sharpen": "unsharp"}),
    "1, longer": Arm("03_tiling", after="1", tiled=False),  # stage 2's steps and patches, but not its tiles
    "1+2": Arm("03_tiling", after="1"),
    "1+3": Arm("04_artifact_ft", after="1"),
    "1, longer+3": Arm("04_artifact_ft", after="1, longer"),
    "1+2+3": Arm("04_artifact_ft", after="1+2"),
    "1+2+3, blind": Arm("04_artifact_ft", after="1+2", over={"sees": []}),
    "1+2+3, seams alone": Arm("04_artifact_ft", after="1+2", over={"sees": ["seams"]}),
    "1+2+3, 0.2 M": Arm("04_artifact_ft", after="1+2", over={"channels": 42}),
    "1+2+3, 0.05 M": Arm("04_artifact_ft", after="1+2", over={"channels": 20}),
    "1+2+3, 4000 steps": Arm("04_artifact_ft", after="1+2", over={"iterations": 4000}),
    "1+2+3, any tile": Arm(
        "04_artifact_ft", after="1+2", over={"tile_choices": [32, 48, 64], "tile_pads": [0, 8, 16], "grids": 9}
    ),
    "1+2+3, ground truth": Arm("04_artifact_ft", after="1+2", over=GROUND_TRUTH),
    "1+2+3, ground truth and detector": Arm("04_artifact_ft", after="1+2", over={**GROUND_TRUTH, **BY_DETECTOR}),
    "1+2+3, detector on top": Arm("04_artifact_ft", after="1+2", over={"artifact_class": 0.1, "artifact_feature": 0.5}),
    "1+2+3, older eraser": Arm("04_artifact_ft", after="1+2", over={**OLDER, **GROUND_TRUTH, **BY_DETECTOR}),
}

QUESTIONS = {  # each is answered by the first arm minus the second
    "the eraser after stage 2": ("1+2+3", "1+2"),
    "the eraser after stage 1": ("1+3", "1"),
    "against the older eraser": ("1+2+3", "1+2+3, older eraser"),
    "told where seams are": ("1+2+3, seams alone", "1+2+3, blind"),
    "shown the LR picture, too": ("1+2+3", "1+2+3, seams alone"),
    "taught by the whole picture, not the ground truth": ("1+2+3", "1+2+3, ground truth"),
    "the detector's terms beside the ground truth": ("1+2+3, ground truth and detector", "1+2+3, ground truth"),
    "the detector's terms on top of the whole picture": ("1+2+3, detector on top", "1+2+3"),
    "0.46 M instead of 0.2 M": ("1+2+3", "1+2+3, 0.2 M"),
    "0.2 M instead of 0.05 M": ("1+2+3, 0.2 M", "1+2+3, 0.05 M"),
    "4000 steps instead of the demo's": ("1+2+3, 4000 steps", "1+2+3"),
    "one eraser for many tiles": ("1+2+3, any tile", "1+2+3"),
    "stage 2 before the eraser, not only longer": ("1+2+3", "1, longer+3"),
    "training through the tiling, not only longer": ("1+2", "1, longer"),
    "only training longer": ("1, longer", "1"),
    "sharpened targets": ("1, sharpened", "1"),
}

PROFILED = ("1", "1+2", "1+2+3, blind", "1+2+3", "1+2+3, 4000 steps", "1+2+3, ground truth")  # error by distance

MANY = ("1+2", "1+2+3", "1+2+3, any tile")  # the arms that other tiles and halos are tried on; without them the last


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

    judge: the detector, for those whose loss has its terms.
    """
    arm = ARMS[name]
    p = {**parameters[arm.notebook], **arm.over}
    if arm.notebook == "02_stage1":
        job = stages.stage1(root, p)
    elif arm.notebook == "03_tiling":
        job = stages.tiling(root, p, start=best_of(folder, arm.after))
        job.model.use_tiling = arm.tiled
    else:
        start = best_of(folder, arm.after)
        own = {"tile_choices", "tile_pads", "grids", "crops", "crop_side"} & arm.over.keys()  # answers that others lack
        answers = (best_of(folder, name) if own else start).parent / "answers"
        job = stages.eraser(root, p, judge or ArtifactDetector(), start=start, answers=answers)
    job.folder = best_of(folder, name).parent
    return float(job.run()["seconds"].max())


def with_starts(arms: Sequence[str]) -> list[str]:
    """These arms, of none all, with "1" and those they begin from, in the order of ARMS. ValueError for others."""
    for name in arms:
        if name not in ARMS:
            raise ValueError(f"arm {name!r} is none of {', '.join(map(repr, ARMS))}")
    wanted = {"1", *(arms or ARMS)}
    for name in reversed(ARMS):
        if name in wanted and ARMS[name].after:
            wanted.add(ARMS[name].after)
    return [name for name in ARMS if name in wanted]


def _needs_detector(name: str, parameters: Mapping) -> bool:
    """Whether an arm's loss has a term of the detector."""
    arm = ARMS[name]
    p = {**parameters[arm.notebook], **arm.over}
    return any(p.get(weight) for weight in BY_DETECTOR)


@dataclass(frozen=True)
class Scores:
    """What one seed's arms score on the test pictures: `evaluate`'s tables, and the seconds that each arm trained.

    arms: whole, and tiled as trained; sizes: MANY, or the last arm, on tiles and halos beside that; ways: the first and
    the whole recipe tiled in other ways, with memory; profiles: the arms' squared error by distance to the seams.
    """

    arms: pd.DataFrame
    sizes: pd.DataFrame
    ways: pd.DataFrame
    profiles: pd.DataFrame
    seconds: pd.Series

    FILES = ("arms", "sizes", "ways", "profiles", "seconds")


def scored(
    root: Path,
    folder: Path,
    parameters: Mapping,
    judge: Callable[[], ArtifactDetector],
    pairs: Pairs,
    *,
    arms: Sequence[str] = (),
    tile_batch: int = 16,
) -> Scores:
    """Train arms into `folder`, or take those that are finished, and score them on `pairs`. arms: their names, those
    they begin from are trained, too; none for all.

    judge: gives the detector, asked for when the first arm needs it. The scores are kept in scores/ beside the arms,
    and taken from there as long as parameters, arms and the run's pictures are the same.
    """
    names = with_starts(arms)
    many = [a for a in MANY if a in names] or names[-1:]
    p, told = parameters["02_stage1"], ({a: repr(ARMS[a]) for a in names}, parameters, many, Scores.FILES)
    data = root / "outputs" / p["run"] / "data"
    pictures = [PicturePairs(data, part, scale=p["scale"]).key for part in ("train", "validation", "test")]
    packed: Any = training_patches(data, scale=p["scale"], lr_patch=p["lr_patch"], methods=p["methods"])
    made_of = digest([*(json.dumps(x, sort_keys=True) for x in told), *pictures, packed.key])
    kept = folder / "scores"
    if (kept / "made_of").is_file() and (kept / "made_of").read_text() == made_of:
        tables = {name: pd.read_csv(kept / f"{name}.csv", dtype={"arm": str, "variant": str}) for name in Scores.FILES}
        return Scores(**{**tables, "seconds": tables["seconds"].set_index("arm")["seconds"]})
    seconds = {}
    for name in names:
        print(name)
        detector = judge() if _needs_detector(name, parameters) else None
        seconds[name] = train_arm(root, folder, name, parameters, detector)
    device = PartialState().device
    models = {name: load(best_of(folder, name)).to(device) for name in names}
    tile, halo = (parameters["03_tiling"][name] for name in ("tile_size", "tile_pad"))
    window = models["1"].window
    more: dict[str, Any] = {"tile_batch": tile_batch, "keep": 0}
    trained, _, errors = evaluate(models, pairs, tilings_of([(tile, halo)]), **more)
    wanted = [(t, h) for h in (0, window, 2 * window) for t in (tile, tile + 2 * window, 2 * tile, 3 * tile)]
    sizes, _, _ = evaluate({a: models[a] for a in many}, pairs, tilings_of(wanted), **more)
    ways = ways_to_tile(tile, window, window)
    ways = {name: ways[name] for name in ("crop, no halo", "crop", "ramp", "exact")}
    other, _, _ = evaluate({a: models[a] for a in ("1", "1+2+3") if a in names}, pairs, ways, memory=True, **more)
    times = pd.Series(seconds, name="seconds").rename_axis("arm")
    scores = Scores(trained, sizes, other, by_distance(trained, errors), times)
    for name in Scores.FILES:
        with atomic(kept / f"{name}.csv") as temporary:
            getattr(scores, name).to_csv(temporary, index=name == "seconds")
    with atomic(kept / "made_of") as temporary:
        temporary.write_text(made_of)
    return scores


def by_distance(table: pd.DataFrame, profiles: Mapping[tuple[str, str, str], Tensor]) -> pd.DataFrame:
    """Columns arm, distance (output pixels to the nearest seam), squared (error of tiled against whole, in [0, 1]):
    means over the pictures that count and have that distance. table, profiles: `evaluate`'s.
    """
    names = set(counted(table)["picture"])
    rows = []
    for arm in dict.fromkeys(variant for _, variant, _ in profiles):
        squares = torch.stack([e.square() for (name, own, _), e in profiles.items() if own == arm and name in names])
        rows += [{"arm": arm, "distance": k, "squared": v} for k, v in enumerate(squares.nanmean(0).tolist())]
    return pd.DataFrame(rows)


def costs(folder: Path, scores: Mapping[int, Scores]) -> pd.DataFrame:
    """By arm of stage 3: the eraser's parameters, its multiply-adds per LR pixel where it is computed, and the seconds
    that it trained, the median of the seeds. folder: one seed's.
    """
    rows = {}
    for name, arm in ARMS.items():
        if arm.notebook != "04_artifact_ft" or any(name not in s.seconds for s in scores.values()):
            continue
        model = load(best_of(folder, name))
        weights = [p for part in (model.residual_block, model.out_conv) for p in part.parameters()]
        per_pixel = 1 if model.radius else model.scale**2  # the older kind works on output pixels
        rows[name] = {
            "parameters": sum(p.numel() for p in weights),
            "multiply-adds per LR pixel": per_pixel * sum(p.numel() for p in weights if p.ndim > 1),
            "training, s": round(median(float(s.seconds[name]) for s in scores.values())),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def per_seed(table: pd.DataFrame, tiling: str) -> pd.DataFrame:
    """One row a seed and arm, means over the pictures that count for all seeds: TC (dB), SGR, PSNR-Y tiled, whole, and
    their gap (dB), the share of the same seed's stage-1 gap that is closed (%, NaN where there is none).

    table: `evaluate`'s, with a column "seed".
    """
    rows = {}
    for seed, part in _trained(table).groupby("seed"):
        mean = means(part.drop(columns="seed"))
        whole, tiled = (mean.xs(kind, level="tiling") for kind in ("whole", tiling))
        rows[seed] = pd.DataFrame(
            {
                "TC": tiled["TC"],
                "SGR": tiled["SGR"],
                "PSNR-Y tiled": tiled["PSNR-Y"],
                "PSNR-Y whole": whole["PSNR-Y"],
                "gap": whole["PSNR-Y"] - tiled["PSNR-Y"],
                "gap closed, %": gap_closed(part, tiling, "1"),
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
    return rows[~rows["variant"].isin(BASELINES)]


def answers(seeds: pd.DataFrame) -> pd.DataFrame:
    """For each of QUESTIONS the difference of its two arms, seed by seed; index (question, seed); NaN where one of the
    two is infinite. Empty where no question has both of its arms.
    """
    seeds = seeds.where(np.isfinite(seeds))
    by_arm = {arm: rows.droplevel("arm") for arm, rows in seeds.groupby("arm")}
    asked = {q: by_arm[a] - by_arm[b] for q, (a, b) in QUESTIONS.items() if a in by_arm and b in by_arm}
    if not asked:
        return seeds.iloc[:0].rename_axis(["seed", "question"]).swaplevel()
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
    before, after = arms.loc["1"], arms.loc["1+2+3" if "1+2+3" in arms.index else arms.index[-1]]
    if len(arms) == 1:
        return f"of {seeds} seeds: tiles without context, stage 1 alone: TC {before['TC']} dB"
    said = f"tiles without context, stage 1 against {after.name}: TC {before['TC']} to {after['TC']} dB"
    said += f", SGR {before['SGR']} to {after['SGR']}" if before["SGR"] and after["SGR"] else ""
    share = after["gap closed, %"]
    closed = f"{share} % of the gap in PSNR-Y closed" if share else "no gap in PSNR-Y to close"
    return f"of {seeds} seeds: {said}, {closed}"
