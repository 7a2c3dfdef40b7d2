"""What a run has made so far: for every notebook when it was executed, and its result in one line."""

import json
import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

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
    return f"{_gain(made['gain_over_bicubic_db'])} against bicubic (validation)"


def _tiling(made: dict) -> str:
    return f"{_closed(made, 'stage 2')} between whole and tiled (validation)"


def _artifact_ft(made: dict) -> str:
    known = [value for value in made["detector"]["average_precision"].values() if not math.isnan(value)]
    worst = f"detector's worst average precision {min(known):.2f}" if known else "no average precision of the detector"
    return f"{_closed(made, 'stage 3')} (validation); {worst}"


def _gain(decibels: float) -> str:
    return "no PSNR-Y to compare" if math.isnan(decibels) else f"{decibels:+.2f} dB PSNR-Y"


def _closed(made: dict, stage: str) -> str:
    share = made["gap_closed_percent"][stage]
    return f"{stage}: no gap to close" if math.isnan(share) else f"{stage} closes {share:.0f} % of the gap"


def _eval(made: dict) -> str:
    test = made["test"]
    names = [key.rpartition(" | ") for key in test]  # variant, " | ", tiling
    models = list(dict.fromkeys(variant for variant, _, _ in names if variant != "bicubic"))
    tiled = [tiling for _, _, tiling in names if tiling.startswith("tile")][0]
    first, last = (test[f"{model} | {tiled}"] for model in (models[0], models[-1]))
    gain = _gain(last["PSNR-Y"] - test["bicubic | whole"]["PSNR-Y"])
    ratios = [f"{one['SGR']:.2f}" for one in ((first, last) if len(models) > 1 else (last,))]
    seams = "no SGR" if "nan" in ratios else f"SGR {' to '.join(ratios)}"
    return f"{models[-1]} in tiles: {gain} against bicubic; {seams} (test)"


def _ablation(made: dict) -> str:
    return str(made.get("headline", "done"))


PARTS = {"train": "training", "validation": "validation", "test": "test"}
HEADLINES: dict[str, Callable[[dict], str]] = {
    "01_data": _data,
    "02_stage1": _stage1,
    "03_tiling": _tiling,
    "04_artifact_ft": _artifact_ft,
    "05_eval": _eval,
    "06_ablation": _ablation,
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
