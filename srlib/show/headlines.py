"""What a run has made so far: for every notebook when it was executed, and its result in one line."""

import json
import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from srlib.evaluation.baseline import BASELINES, baseline_of, in_words
from srlib.show.diagrams import STEPS


def made_so_far(out: Path, notebooks: Path) -> str:
    """A Markdown table of outputs/<run>/ with links to the executed notebooks, the reports, and what is next.

    Links are relative to the folder `notebooks`.
    """
    lines = ["| notebook | executed copy, with figures | result |", "|---|---|---|"]
    missing = []
    for step in STEPS:
        result = headline(step.name, out / step.folder)
        lines.append(f"| {step.name} | {_executed(out, step.name, notebooks)} | {result or 'nothing yet'} |")
        if not result and not step.beside:
            missing.append(step.name)
    if missing:
        following = f"Next: [{missing[0]}]({missing[0]}.ipynb), or all of it with `make RUN={out.name}` in a terminal."
    else:
        following = "All five are done. See [05_eval](05_eval.ipynb) for what they are worth."
    reports = [f"[{page.parent.name}]({_link(page, notebooks)})" for page in sorted(out.glob("*/report.html"))]
    if reports:
        following += f" Reports to send on, without code: {', '.join(reports)}."
    return "\n".join([*lines, "", following])


def headline(name: str, folder: Path) -> str:
    """The result of the notebook `name` in one line, out of its folder's metrics.json; "" if it made nothing yet."""
    path = folder / ("data.json" if name == "01_data" else "metrics.json")
    if not path.is_file():
        return ""
    try:
        return HEADLINES[name](_null_as_nan(json.loads(path.read_text())))
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{path.name} is not as this version writes it: run {name} again"


def _null_as_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_as_nan(one) for key, one in value.items()}
    return math.nan if value is None else value


def _data(made: dict) -> str:
    parts = list(made["split"].values())
    counts = ", ".join(f"{parts.count(part)} for {use}" for part, use in PARTS.items())
    return f"{len(parts)} pictures: {counts}; {', '.join(f'x{scale}' for scale in made['scales'])}"


def _stage1(made: dict) -> str:
    return f"{_gain(made['gain_over_baseline_db'])} against {in_words(made['baseline'])} (validation)"


def _tiling(made: dict) -> str:
    return f"{_seams(made['validation'])}; {_closed(made, 'stage 2')} (validation)"


def _artifact_ft(made: dict) -> str:
    known = [value for value in made["detector"]["average_precision"].values() if not math.isnan(value)]
    worst = f"detector's worst average precision {min(known):.2f}" if known else "no average precision of the detector"
    return f"{_seams(made['validation'])}; {_closed(made, 'stage 3')} (validation); {worst}"


def _gain(decibels: float) -> str:
    return "no PSNR-Y to compare" if math.isnan(decibels) else f"{decibels:+.2f} dB PSNR-Y"


def _closed(made: dict, stage: str) -> str:
    share = made["gap_closed_percent"][stage]
    return f"{stage}: no gap to close" if math.isnan(share) else f"{stage} closes {share:.0f} % of the gap"


def _eval(made: dict) -> str:
    test = made["test"]
    models, tiled = _tiled(test)
    base = baseline_of(key.removesuffix(" | whole") for key in test)
    gain = _gain(test[f"{models[-1]} | {tiled}"]["PSNR-Y"] - test[f"{base} | whole"]["PSNR-Y"])
    return f"{_seams(test)}; {gain} against {in_words(base)} (test)"


def _tiled(scores: dict) -> tuple[list[str], str]:
    """The models of {"variant | tiling": scores}, in their order, and the tiling that is judged."""
    names = [key.rpartition(" | ") for key in scores]  # variant, " | ", tiling
    models = list(dict.fromkeys(variant for variant, _, _ in names if variant not in BASELINES))
    return models, [tiling for _, _, tiling in names if tiling.startswith("tile")][0]


def _seams(scores: dict) -> str:
    """TC and SGR in tiles, of the first and of the last model."""
    models, tiled = _tiled(scores)
    shown = [scores[f"{model} | {tiled}"] for model in dict.fromkeys((models[0], models[-1]))]
    agree = ["equal" if math.isnan(one["TC"]) else f"{one['TC']:.1f}" for one in shown]  # infinity is written as null
    unit = "" if agree[-1] == "equal" else " dB"
    ratios = [f"{one['SGR']:.2f}" for one in shown]
    steps = "no SGR" if "nan" in ratios else f"SGR {' to '.join(ratios)}"
    return f"{models[-1]} in tiles: TC {' to '.join(agree)}{unit}, {steps}"


def _ablation(made: dict) -> str:
    return str(made.get("headline", "done"))


def _restoration(made: dict) -> str:
    small = {way.partition(" | ")[0]: row for way, row in made["scores"].items() if way.endswith("256x256")}
    gain = small["network"]["PSNR"] - small["colour polynomial"]["PSNR"]
    return f"PSNR {small['network']['PSNR']:.2f} dB, {gain:+.2f} dB against the fitted colour polynomial (test)"


def _hdr(made: dict) -> str:
    usable, inverse = made["scores"]["stage 2"], made["scores"]["inverse mapping"]
    gain = usable["PU21-PSNR"] - inverse["PU21-PSNR"]
    return f"PU21-PSNR {usable['PU21-PSNR']:.2f} dB, {gain:+.2f} dB against the inverse mapping (test)"


def _any_network(made: dict) -> str:
    ways = made["ways"]
    others = [row["TC, dB"] for way, row in ways.items() if way.endswith(")") and "auto" not in way]
    said = ""
    if "exact" in ways:
        exact = ways["exact"].get("TC, dB")
        said = ", exact equal" if exact is None or math.isnan(exact) else f", exact {exact:.0f} dB"
    told = f"{made['parameters']['model']}: TC {min(others):.0f} to {max(others):.0f} dB by other tools{said}"
    return f"{len(made['reach'])} networks; {told}"


PARTS = {"train": "training", "validation": "validation", "test": "test"}
HEADLINES: dict[str, Callable[[dict], str]] = {
    "01_data": _data,
    "02_stage1": _stage1,
    "03_tiling": _tiling,
    "04_artifact_ft": _artifact_ft,
    "05_eval": _eval,
    "06_ablation": _ablation,
    "07_restoration": _restoration,
    "08_hdr": _hdr,
    "09_any_network": _any_network,
}


def _executed(out: Path, name: str, notebooks: Path) -> str:
    """When the batch job ran, as a link to the executed notebook: of the finished, failed and begun one the newest."""
    found = {
        "": out / f"{name}.ipynb",
        "failed ": out / f"{name}.failed.ipynb",
        "begun ": out / f"{name}.running.ipynb",
    }
    times = {how: path.stat().st_mtime for how, path in found.items() if path.is_file()}
    if not times:
        return ""
    how = max(times, key=lambda kind: times[kind])
    return f"{how}[{datetime.fromtimestamp(times[how]):%Y-%m-%d %H:%M}]({_link(found[how], notebooks)})"


def _link(path: Path, notebooks: Path) -> str:
    return os.path.relpath(path, notebooks).replace(os.sep, "/").replace(" ", "%20")
