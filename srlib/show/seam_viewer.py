"""The tile-seam visualizer: change the tiling, see the seam. Composed in Python, no custom JavaScript."""

import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from srlib.data.resize import upscale
from srlib.evaluation.metrics import psnr_y
from srlib.networks.eraser import TiledSR
from srlib.show import picture_figures, seam_figures
from srlib.show.panels import levels_between, seams_within, show_difference, show_picture
from srlib.show.style import plain, wrapped
from srlib.tiling.plan import BLENDS
from srlib.tiling.seams import seam_profile, seam_report, worst_seam
from srlib.tiling.tiled import STATISTICS, Execution, Report

VIEWS = ("wipe", "blink", "difference", "profile")
BEFORE = "not erased"  # tiled, without the stage's eraser


class SeamViewer:
    """Sliders for tile, halo, blend, statistics, stage and picture; wipe, blink, difference or profile of two results.

    pictures: {name: (lr (C, h, w), hr (C, H, W) or None)}, in [0, 1]. models: {stage: TiledSR}; if one of them has an
    eraser, "tiled" is with it, and a side can show the stage's tiles without it, too: BEFORE.
    tiles, halos: the choices in LR pixels, multiples of the window; with statistics "exact" the tile is the chunk.
    crop: output pixels shown. Every result is computed once per setting and kept.
    Show `viewer.widget`; set `viewer.tile.value = 32` and read `viewer.compose()` (an
    (H, W, 3) uint8 array) in a script; `viewer.figure()` is the static twin for a saved notebook.
    """

    def __init__(
        self,
        pictures: dict[str, tuple[Tensor, Tensor | None]],
        models: dict[str, TiledSR],
        *,
        tiles: tuple[int, ...] = (16, 32, 64),
        halos: tuple[int, ...] = (0, 8, 16),
        crop: int = 128,
    ):
        if not pictures or not models:
            raise ValueError("the viewer needs at least one picture and one model")
        self.pictures, self.models = pictures, models
        self._cache: dict[tuple, tuple] = {}
        choose = widgets.SelectionSlider
        self.picture = widgets.Dropdown(options=list(pictures), description="picture")
        self.stage = widgets.Dropdown(options=list(models), description="stage")
        self.tile = choose(options=tiles, value=tiles[len(tiles) // 2], description="tile, LR px")
        self.halo = choose(options=halos, value=halos[0], description="halo, LR px")
        self.blend = widgets.Dropdown(options=BLENDS, description="blend")
        self.statistics = widgets.Dropdown(
            options=[s for s in STATISTICS if s != "window"], description="statistics"
        )  # HAT has none
        erased = any(model.out_conv.weight.any() for model in models.values())
        kinds = ["tiled", *([BEFORE] if erased else []), "whole", "bicubic", "HR"]
        self.left = widgets.Dropdown(options=kinds, value="tiled", description="left, A")
        self.right = widgets.Dropdown(options=kinds, value="whole", description="right, B")
        self.view = widgets.ToggleButtons(
            options=VIEWS, description="view", style={"button_width": "96px"}, layout={"width": "410px"}
        )
        self.position = widgets.FloatSlider(value=0.5, min=0, max=1, step=0.01, description="wipe")
        self.blink = widgets.Play(min=0, max=999, interval=500, description="blink")
        self.gain = widgets.IntSlider(value=16, min=1, max=64, description="gain")
        self.crop = widgets.IntSlider(value=crop, min=32, max=512, step=32, description="crop, px")
        self.top = widgets.IntSlider(min=0, max=0, description="top")
        self.left_edge = widgets.IntSlider(min=0, max=0, description="left")
        self.jump = widgets.Button(description="jump to the worst seam", layout={"width": "auto"})
        self.image = widgets.Image(format="png", layout={"min_width": "384px"})
        self.metrics = widgets.HTML()
        self._settling = False
        for control in self._controls():
            control.observe(self._refresh, names="value")
        self.jump.on_click(lambda _: self.jump_to_worst())
        self.widget = widgets.HBox(
            [widgets.VBox([*self._controls(), self.jump]), widgets.VBox([self.image, self.metrics])]
        )
        self._refresh()

    def _controls(self) -> list[widgets.Widget]:
        return [
            self.picture,
            self.stage,
            self.tile,
            self.halo,
            self.blend,
            self.statistics,
            self.left,
            self.right,
            self.view,
            self.position,
            self.blink,
            self.gain,
            self.crop,
            self.top,
            self.left_edge,
        ]

    @torch.no_grad()
    def result(self, kind: str) -> Tensor:
        """The (C, H, W) picture of the current settings: "tiled", BEFORE, "whole", "bicubic" or "HR"."""
        lr, hr = self.pictures[self.picture.value]
        if kind == "HR":
            if hr is None:
                raise ValueError(f"{self.picture.value} has no HR picture to compare with")
            return hr
        if kind in ("tiled", BEFORE):
            return self._tiled(kind)[0]
        if kind == "bicubic":
            return upscale(lr, self.models[self.stage.value].scale, "bicubic")
        key = (self.picture.value, self.stage.value)
        if key not in self._cache:
            model = self.models[self.stage.value]
            x = lr[None].to(next(model.parameters()).device)
            self._cache[key] = (model.whole(x)[0].clamp(0, 1).cpu(),)
        return self._cache[key][0]

    @torch.no_grad()
    def _tiled(self, kind: str = "tiled") -> tuple[Tensor, Report]:
        options = {name: getattr(self, name).value for name in ("tile", "halo", "blend", "statistics")}
        if self.statistics.value == "exact":
            options |= {"halo": 0, "blend": "crop"}  # these change nothing then
        key = (self.picture.value, self.stage.value, kind, *options.values())
        if key not in self._cache:
            x, how = self.pictures[self.picture.value][0][None], Execution(on_oom="shrink")
            model = self.models[self.stage.value]
            if kind == BEFORE:  # the same HAT in front of an eraser that has learned nothing
                device = model.out_conv.weight.device
                model = TiledSR(model.hat_model, channels=1, blocks=0).to(device).eval()
            picture, report = model.tiled(x, batch=16, how=how, **options)
            self._cache[key] = (picture[0].clamp(0, 1), report)
        return self._cache[key]

    def compose(self) -> np.ndarray:
        """The current view as an (H, W, 3) uint8 array."""
        if self.view.value == "profile":
            return _rendered(seam_figures.seam_profiles(self._profiles()))
        if self.view.value == "difference":
            figure, axis = plt.subplots(figsize=(6, 5), layout="constrained")
            self._draw_difference(axis)
            return _rendered(plain(figure))
        a, b = (picture_figures.to_array(self.result(side.value)[self._box()]) for side in (self.left, self.right))
        if self.view.value == "blink":
            out = (a, b)[self.blink.value % 2]
        else:
            split = round(self.position.value * a.shape[1])
            out = np.concatenate([a[:, :split], b[:, split:]], 1)
        zoom = max(1, 384 // max(out.shape[:2]))
        out = out.repeat(zoom, 0).repeat(zoom, 1)
        if self.view.value == "wipe" and 0 < split * zoom < out.shape[1]:
            out[:, split * zoom] = 255
        return out

    def _box(self) -> tuple[slice, slice, slice]:
        top, left, size = self.top.value, self.left_edge.value, self.crop.value
        return slice(None), slice(top, top + size), slice(left, left + size)

    def _draw_difference(self, axis: Axes) -> None:
        """The shown square of A - B, 255 / gain levels at the ends of the bar; ticks mark the seams."""
        box = self._box()
        inside = seams_within(self._tiled()[1].seams, self.top.value, self.left_edge.value, self.crop.value)
        difference = levels_between(self.result(self.left.value)[box], self.result(self.right.value)[box])
        show_difference(axis, difference, 255 / self.gain.value, inside)
        axis.set_title(f"{self.left.value} - {self.right.value}; ticks: seams", fontsize=9, pad=10)

    def _before(self) -> bool:
        """Whether a side shows the tiles without the eraser."""
        return BEFORE in (self.left.value, self.right.value)

    def _profiles(self) -> dict[tuple[str, str], Tensor]:
        """The error by distance, of the tiles without the eraser too if a side shows them."""
        shown = {BEFORE: (BEFORE, "")} if self._before() else {}
        shown["tiled"] = (self.stage.value, "")
        whole = self.result("whole")
        return {name: seam_profile(self.result(k), whole, self._tiled(k)[1].seams) for k, name in shown.items()}

    def report(self) -> dict[str, float]:
        """Seam figures of the current settings, of the tiles without the eraser too if a side shows them; with an HR
        picture also both PSNR-Y.
        """
        tiled, run = self._tiled()
        whole = self.result("whole")
        figures = seam_report(tiled, whole, run.seams)
        if self._before():
            before, run_before = self._tiled(BEFORE)
            without = seam_report(before, whole, run_before.seams)
            figures |= {f"{name} {BEFORE}": without[name] for name in ("TC", "SGR")}
        hr = self.pictures[self.picture.value][1]
        if hr is not None:
            figures["PSNR-Y tiled"] = psnr_y(tiled[None], hr[None], run.scale).item()
            figures["PSNR-Y whole"] = psnr_y(whole[None], hr[None], run.scale).item()
        reads = 1.0 if run.statistics == "exact" else run.plan.overhead * (2 if run.statistics == "two_pass" else 1)
        return figures | {"tiles": len(run.plan), "pixels read": reads, "seconds": run.seconds}

    def jump_to_worst(self) -> tuple[int, int]:
        """Move the crop to the seam with the most error, of what the left side shows; returns (top, left)."""
        tiled, report = self._tiled(BEFORE if self.left.value == BEFORE else "tiled")
        top, left = worst_seam(tiled, self.result("whole"), report.seams, self.crop.value)
        self.top.value, self.left_edge.value = top, left
        return top, left

    def _refresh(self, _change: object = None) -> None:
        if self._settling:
            return
        height, width = self.result("whole").shape[-2:]
        self._settling = True  # moving the limits may move the values, which would call this again
        self.top.max = max(0, height - self.crop.value)
        self.left_edge.max = max(0, width - self.crop.value)
        self._settling = False
        png = io.BytesIO()
        Image.fromarray(self.compose()).save(png, "png")
        self.image.value = png.getvalue()
        self.metrics.value = _table(self.report())

    def figure(self) -> Figure:
        """The static twin: wipe, difference and profile of the current settings, with the figures."""
        view = self.view.value
        self.view.value = "wipe"
        wipe = self.compose()
        self.view.value = view
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
        show_picture(left, wipe)
        left.axvline(self.position.value * wipe.shape[1] - 0.5, color="white", lw=2)
        left.set_title(f"left of the line {self.left.value}, right {self.right.value}", fontsize=9, pad=10)
        self._draw_difference(middle)
        colours, _ = seam_figures.draw_profiles(right, self._profiles())
        if len(colours) > 1:
            lines = [plt.Line2D([], [], color=c, lw=2, label=wrapped(name, 2.4, 8)) for name, c in colours.items()]
            right.legend(handles=lines, fontsize=8)
        report = self.report()
        settings = (
            f"{self.picture.value}, {self.stage.value}, tile {self.tile.value}, halo {self.halo.value}, "
            f"{self.blend.value}, {self.statistics.value}"
        )
        scores = f"TC {report['TC']:.1f} dB, SGR {report['SGR']:.3f}"
        if self._before():
            scores += f"; {BEFORE}: TC {report[f'TC {BEFORE}']:.1f} dB, SGR {report[f'SGR {BEFORE}']:.3f}"
        figure.suptitle(f"{wrapped(settings, 12, 10)}\n{scores}", fontsize=10)
        return plain(figure)


def _table(report: dict[str, float]) -> str:
    """The report as an HTML table, figures with their units."""
    units = {
        "TC": "dB",
        f"TC {BEFORE}": "dB",
        "PSNR-Y tiled": "dB",
        "PSNR-Y whole": "dB",
        "pixels read": "per pixel",
        "seconds": "s",
    }
    rows = {name.replace("_", " "): f"{value:.4g} {units.get(name, '')}" for name, value in report.items()}
    rows["max difference"] = f"{report['max_difference'] * 255:.2f} of 255"
    rows["differing share"] = f"{report['differing_share']:.2%} of the 8-bit values"
    return "<table>" + "".join(f"<tr><td>{k}</td><td><b>{v}</b></td></tr>" for k, v in rows.items()) + "</table>"


def _rendered(figure: Figure) -> np.ndarray:
    """A figure as an (H, W, 3) uint8 array."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("RGB"))
