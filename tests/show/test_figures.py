"""Every figure, of usual and of awkward input, as a person sees it; what the check itself sees; names as they are."""

import importlib
import inspect
import math
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from figures import faults
from matplotlib.figure import Figure

from srlib import show
from srlib.losses.artifacts import CLASSES
from srlib.show import eraser_figures, picture_figures, score_figures, seam_figures, seam_viewer
from srlib.show.sides import BEFORE
from srlib.tiling.seam_map import seam_map

LONG = "photographs/holiday 2019, the long way round/DSC_0042 a building in the evening, second attempt"
DOLLARS = ("a$b$c_{x}.png", "100$", r"$\frac", r"$\alpha$ $x_1$")
NAMES = (*DOLLARS, "tab\there", "not utf-8 \udcff", "", LONG, "W" * 90)
STAGES = ("stage 1", "stage 2", "stage 3")


def picture(height=64, width=96, seed=0, channels=3):
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


def tilings(names, height=64, width=96, error=0.02):
    """{name: (tiled, whole)}, which differ less from name to name."""
    whole = picture(height, width)
    return {n: (whole + picture(height, width, 1) * error / (i + 1), whole) for i, n in enumerate(names)}


def seams(height=64, width=96, step=16):
    return list(range(step, height, step)), list(range(step, width, step))


SHAPES = ((64, 96), (40, 400), (400, 40), (8, 8))
MAPS = [
    lambda s=s: seam_figures.seam_maps(tilings(STAGES, *s), seams(*s), against="stage 1", title=LONG * 3)
    for s in SHAPES
]
MAPS += [
    lambda: seam_figures.seam_maps(tilings([f"moon, {s}" for s in STAGES[:2]]), seams()),
    lambda: seam_figures.seam_maps(tilings(NAMES), seams(), against=LONG),
    lambda: seam_figures.seam_maps(tilings(STAGES, error=0.0), ([], []), against="stage 1"),
    lambda: seam_figures.seam_maps(tilings(["one"]), seams()),
]


def profile(scale=1.0, n=32):
    return torch.exp(-torch.arange(n) / 4).double() * scale / 255


PROFILES = [
    lambda: seam_figures.seam_profiles({("stage 1", ""): profile()}),
    lambda: seam_figures.seam_profiles({(s, t): profile(1 / (i + 1)) for i, s in enumerate(STAGES) for t in "ab"}),
    lambda: seam_figures.seam_profiles({(s, t): profile() for s in NAMES for t in ("tile 32 halo 0", LONG)}),
    lambda: seam_figures.seam_profiles({(s, "tile 8"): torch.full((32,), math.nan) for s in STAGES}),
    lambda: seam_figures.seam_profiles({(s, "tile 8"): torch.zeros(32) for s in STAGES}),
    lambda: seam_figures.seam_profiles({(s, "tile 8"): profile(n=1) for s in STAGES}),
]


def sheet(height=64, width=96, error=0.05, at=None, title="moon, stage 1, tile 32 halo 0"):
    (tiled, whole), *_ = tilings(["x"], height, width, error).values()
    return seam_figures.seam_sheet(tiled, whole, seams(height, width) if at is None else at, title)


def patch_seen(side=16, scale=2, both=True):
    shown = seam_map(([5], [9] if both else []), range(side), range(side), radius=4)[0]
    large = [picture(scale * side, scale * side, seed=i) for i in range(2)]
    return {"lr": (picture(side, side), large[0], shown, torch.ones(1, 1, 1)), "target": (large[1], None)}


def erased(height=64, width=96, title="moon, tile 32 halo 0", error=0.05, **options):
    tiled, whole = next(iter(tilings(["x"], height, width, error).values()))
    between = whole + 0.2 * (tiled - whole)
    return eraser_figures.erased_seam(tiled, between, whole, seams(height, width), title=title, **options)


ERASERS = [
    lambda: eraser_figures.eraser_patch(patch_seen(), radius=4),
    lambda: eraser_figures.eraser_patch(patch_seen(40, 4, both=False), radius=4),
    lambda: erased(),
    lambda: erased(crop=16, title=LONG),
    lambda: erased(error=0.0, title=""),
    *(lambda s=s: erased(*s) for s in SHAPES),
]
SHEETS = [lambda s=s: sheet(*s) for s in SHAPES]
SHEETS += [lambda: sheet(at=([], [])), lambda: sheet(error=0.0), lambda: sheet(title=LONG * 3), lambda: sheet(title="")]


def ways(names, **columns):
    rows = len(names)
    values = {"TC": np.linspace(40, 60, rows), "SGR": np.linspace(1.7, 1.01, rows)}
    values |= {"seconds": np.linspace(1, 2, rows), "MiB": np.linspace(20, 90, rows), **columns}
    return pd.DataFrame(values, index=names)


SEVERAL = ["whole", "crop, no halo", "crop", "ramp", "mean", "gaussian", "misaligned", "two_pass", "exact"]
WAYS = [
    lambda: seam_figures.ways_to_tile(ways(SEVERAL)),
    lambda: seam_figures.ways_to_tile(ways(["whole", "a"], TC=[np.nan, np.inf], SGR=[np.nan, 1.0], MiB=np.nan)),
    lambda: seam_figures.ways_to_tile(ways(NAMES)),
    lambda: seam_figures.ways_to_tile(ways(["a", "b"], SGR=[np.nan, 1 + 1e-9], TC=[np.inf, 40.0], seconds=0.0)),
]


def viewer(name="moon", stage="stage 1", side=24, left="tiled", right="whole"):
    from srlib.networks.eraser import TiledSR
    from srlib.networks.hat import HAT

    hat = HAT(embed_dim=8, depths=(1,), num_heads=(1,), window_size=8, squeeze_factor=4)
    models = {stage: TiledSR(hat, channels=8, gains=[(0, 0.1)]).eval()}
    torch.nn.init.normal_(models[stage].out_conv.weight, std=0.1)
    made = seam_viewer.SeamViewer({name: (picture(side, side), None)}, models, tiles=(8, 16), halos=(0,))
    made.show(a={"shows": left}, b={"shows": right})
    return made.figure()


FOUR = ("LR", "HR", "bicubic", "stage 1")
CROPS = [
    lambda: picture_figures.crops({n: picture(seed=i) for i, n in enumerate(FOUR)}, 8, 8, 32),
    lambda: picture_figures.crops({n: picture() for n in NAMES}, 0, 0, 64, title=LONG * 3),
    lambda: picture_figures.crops({"one": picture(8, 400)}, 0, 0, 8, title="t"),
    lambda: picture_figures.crops({"HR": picture(1, 1), "b": picture(1, 1, channels=1)}, 0, 0, 1),
]


def seam_crops(names, references=("HR", "bicubic"), shape=(64, 96), size=32, title="median gain over bicubic: moon"):
    beside = {name: picture(*shape, seed=i) for i, name in enumerate(references)}
    return picture_figures.seam_crops(beside, tilings(names, *shape), 8, 8, size, seams(*shape), title=title)


CROPS_OF_SEAMS = [
    lambda: seam_crops(STAGES),
    lambda: seam_crops(["a"], ["HR"]),
    lambda: seam_crops(NAMES, [LONG, DOLLARS[0]], title=LONG),
    lambda: seam_crops(STAGES, shape=(400, 40)),
    lambda: seam_crops(STAGES, shape=(12, 400), size=12),
]
GRIDS = [
    lambda: picture_figures.picture_grid({n: picture(seed=i) for i, n in enumerate(NAMES)}),
    lambda: picture_figures.picture_grid({f"patch {i}": picture(32, 32) for i in range(16)}, columns=8, width=1.4),
    lambda: picture_figures.picture_grid({str(s): picture(*s) for s in SHAPES}),
    lambda: picture_figures.picture_grid({"one": picture(1, 1)}),
]


def heat(titles=("stage 1 tiled", "stage 3 tiled", "HR"), shape=(64, 96), classes=CLASSES):
    rows = {t: (picture(*shape), picture(*shape, seed=i, channels=len(classes))) for i, t in enumerate(titles)}
    return score_figures.artifact_heat(rows, classes, {titles[0]: seams(*shape)}, title=LONG)


HEAT = [lambda s=s: heat(shape=s) for s in SHAPES]
HEAT += [lambda: heat(["stage 1 tiled"]), lambda: heat([LONG, DOLLARS[0]]), lambda: heat(classes=["only"])]
BARS = [
    lambda: score_figures.bars(dict.fromkeys(CLASSES, 0.8), "average precision", 0.75),
    lambda: score_figures.bars({n: i / 10 for i, n in enumerate(NAMES)}, "average precision"),
    lambda: score_figures.bars({"one": 0.0}, "average precision", 0.5),
    lambda: score_figures.bars({"a": math.nan, "b": 0.5}, "average precision"),
]


def gains(pictures=("moon", "chelsea"), variants=STAGES, kinds=("whole", "tile 32 halo 0"), step=0.1, base=30):
    rows = [{"picture": p, "variant": "bicubic", "tiling": "whole", "v": float(base)} for p in pictures]
    rows += [
        {"picture": p, "variant": m, "tiling": t, "v": base + step * (i + j)}
        for p in pictures
        for i, m in enumerate(variants)
        for j, t in enumerate(kinds)
    ]
    return score_figures.gains(pd.DataFrame(rows), "v", "PSNR-Y: gain over bicubic, dB", "bicubic")


GAINS = [
    gains,
    lambda: gains(NAMES, NAMES[3:]),
    lambda: gains([f"picture {i}" for i in range(100)]),
    lambda: gains(["one"], ["a"], ["whole"], 0.0),
    lambda: gains(step=math.nan),
    lambda: gains(step=1e-6),
    lambda: gains(step=-1e-3, base=0.123456),
]
LABELS = {"PSNR-Y": "PSNR-Y whole: gain over bicubic, dB", "gap": "gap closed, %", "TC": "TC, dB", "SGR": "SGR"}


def dots(names=("1", "1+2", "1+2+3"), seeds=2, step=1.0, reference=None):
    index = pd.MultiIndex.from_product([range(seeds), names], names=["seed", "arm"])
    values = {column: 30 + step * np.arange(len(index), dtype=float) for column in LABELS}
    return score_figures.seed_dots(pd.DataFrame(values, index=index), LABELS, "arm", reference)


DOTS = [
    dots,
    lambda: dots([f"a long question about the recipe, {i}\n1+2+3, entropy weights  minus  1+2+3" for i in range(11)]),
    lambda: dots([n for n in NAMES if n], 1),
    lambda: dots(["one"], 1, 0.0),
    lambda: dots(step=-1e-7, reference=0),
    lambda: dots(step=math.nan),
]
CASES = {
    "picture_figures.picture_grid": GRIDS,
    "picture_figures.crops": CROPS,
    "picture_figures.seam_crops": CROPS_OF_SEAMS,
    "seam_figures.seam_maps": MAPS,
    "seam_figures.seam_profiles": PROFILES,
    "eraser_figures.eraser_patch": ERASERS[:2],
    "eraser_figures.erased_seam": ERASERS[2:],
    "seam_figures.seam_sheet": SHEETS,
    "seam_figures.ways_to_tile": WAYS,
    "seam_viewer.SeamViewer.figure": [
        viewer,
        lambda: viewer(LONG, DOLLARS[0], 8),
        lambda: viewer(left=BEFORE, right="tiled"),
        lambda: viewer(LONG, LONG, left=BEFORE, right="tiled"),
        lambda: viewer(left="bicubic"),
    ],
    "score_figures.artifact_heat": HEAT,
    "score_figures.bars": BARS,
    "score_figures.gains": GAINS,
    "score_figures.seed_dots": DOTS,
}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.mark.parametrize(("name", "draw"), [(name, draw) for name, draws in CASES.items() for draw in draws])
def test_a_figure_can_be_read(name, draw):
    assert faults(draw()) == []


def test_no_function_that_makes_a_figure_is_forgotten():
    """Its cases are above, or in another file here that asks for the faults. Who gets a figure and gives it back makes
    none.
    """
    made = set()
    others = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    others = "".join(text for text in others if "from figures import faults" in text)
    for module in pkgutil.iter_modules(show.__path__):
        of = importlib.import_module(f"srlib.show.{module.name}")
        own = {n: v for n, v in vars(of).items() if getattr(v, "__module__", "") == of.__name__}
        classes = {n: v for n, v in own.items() if inspect.isclass(v)}
        own |= {f"{n}.{m}": function for n, v in classes.items() for m, function in vars(v).items()}
        for name, function in own.items():
            hints = dict(getattr(function, "__annotations__", {}))
            if hints.pop("return", None) is Figure and Figure not in hints.values() and "_" not in (name[0], name[-1]):
                made.add(f"{module.name}.{name}")
    assert set(CASES) <= made
    assert [name for name in made - set(CASES) if f"{name.rpartition('.')[2]}(" not in others] == []


def faulty(kind):
    """A figure with one fault, which the check names by this word."""
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2])
    right.plot([1, 2])
    if kind == "mathematics not rendered":
        left.set_title(r"$\mathdefault{10^{1}}$", parse_math=False)
    elif kind == "a name read as mathematics":
        left.set_title("a$b$c")
    elif kind == "cut":
        left.text(0.9, 1.2, "a long sentence", clip_on=True, transform=left.transAxes)
    elif kind == "over 'right'":
        left.set_title("a title that is as long as two of these axes are wide, or longer")
        right.set_title("right")
    elif kind == "a legend over":
        left.plot([1, 2], label="a line")
        left.set_ylim(0, 1)
        left.legend(loc="center right", bbox_to_anchor=(0.1, 0.4))
    elif kind == "over a picture":
        right.imshow(np.ones((8, 8)))
        left.text(1.5, 0.5, "here", transform=left.transAxes)
    elif kind == "5 points":
        left.set_title("small", fontsize=5)
    elif kind == "narrow":
        left.set_position((0.1, 0.1, 0.05, 0.8))
    elif kind == "empty":
        right.clear()
        right.axhline(1)
        right.plot([0, 1], [math.nan, math.nan])
    elif kind == "warns":
        left.set_title("\x07")
    return figure


KINDS = ("mathematics not rendered", "a name read as mathematics", "cut", "over 'right'", "a legend over")
KINDS += ("over a picture", "5 points", "narrow", "empty", "warns")


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_sees_each_fault(kind):
    assert [fault for fault in faults(faulty(kind)) if kind in fault]


def test_the_check_lets_a_good_figure_pass():
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    left.plot([1, 2], label="a line")
    left.legend()
    left.set(yscale="log", ylim=(1e-3, 1e3), title="a power of ten at the axis")
    right.imshow(np.ones((8, 8)))
    figure.colorbar(right.images[0], ax=right, label="levels")
    assert faults(figure) == []


def test_names_are_drawn_as_they_are():
    """Mathematics that is none, half of it, none that matplotlib knows, and what cannot be printed."""
    names = [*DOLLARS, "tab\there", "not utf-8 \udcff"]
    shown = [name.replace("\t", r"\t").replace("\udcff", r"\xff").replace(" ", "") for name in names]
    drawn = [
        picture_figures.picture_grid({name: picture() for name in names}),
        picture_figures.crops({name: picture() for name in names}, 0, 0, 8),
        seam_crops(names),
        seam_figures.seam_maps(tilings(names), seams()),
        seam_figures.seam_profiles({(name, "tile 8"): profile() for name in names}),
        seam_figures.seam_profiles({("stage 1", name): profile() for name in names}),
        seam_figures.ways_to_tile(ways(names)),
        heat(names, classes=["seam"]),
        heat(["HR"], classes=names),
        score_figures.bars(dict.fromkeys(names, 0.5), "average precision"),
        gains(names, ["stage 1"]),
        gains(["moon"], names),
        dots(names),
        *(sheet(title="; ".join(names)), viewer("; ".join(names))),
        seam_figures.seam_maps(tilings(["a"]), seams(), title="; ".join(names)),
    ]
    for figure in drawn:
        figure.canvas.draw()
        words = "".join("".join(text.get_text().split()) for text in figure.findobj(plt.Text) if not math_in(text))
        assert [name for name in shown if name not in words] == []


def math_in(text):
    return text.get_parse_math() and text.get_text().count("$") > 1


def test_nothing_is_changed_for_the_figures_of_others():
    """Importing the room, drawing and keeping leave matplotlib's settings; a logarithmic axis has its powers of ten."""
    code = """
import pkgutil, importlib, tempfile
import matplotlib.pyplot as plt
import srlib.show
before = dict(plt.rcParams)
for module in pkgutil.iter_modules(srlib.show.__path__):
    importlib.import_module(f"srlib.show.{module.name}")
from srlib.show.score_figures import bars
from srlib.show.sides import BEFORE
from srlib.show.style import keep_figure
with tempfile.TemporaryDirectory() as folder:
    keep_figure(bars({"a$b$": 0.5}, "x"), folder + "/a.png")
changed = [name for name in before if before[name] != plt.rcParams[name]]
assert not changed, changed
figure, axis = plt.subplots()
axis.loglog([1, 100], [1, 100])
figure.canvas.draw()
assert all(label.get_parse_math() for label in axis.get_xticklabels())
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MPLBACKEND": "agg"})
