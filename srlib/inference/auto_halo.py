"""`--halo auto`: context as a picture needs it; and the reach of a model file, kept for the next time."""

import json
import os
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srlib.files import atomic, digest
from srlib.networks.eraser import TiledSR
from srlib.networks.fingerprint import fingerprint
from srlib.networks.wrappers import unwrapped
from srlib.tiling.context import Choice, choose_halo
from srlib.tiling.reach import Reach, find_reach
from srlib.tiling.tiled import WALKED, Execution

_VERSION = 1  # of what find_reach finds: a newer one makes older files stale


@dataclass(frozen=True)
class AutoHalo:
    """Given as `halo` to srlib.upscale: the context is chosen for each picture, as choose_halo says.

    reach: of the network, from reach_of; None: not known, so that it is measured whatever it is. decibels, places,
    seed: as of choose_halo.
    """

    reach: Reach | None = None
    decibels: float | None = None
    places: int = 6
    seed: int = 0

    @torch.no_grad()
    def choose(self, model: TiledSR, x: Tensor, options: dict[str, Any]) -> Choice:
        """For the picture x (B, C, H, W), tiled with these options of TiledSR.tiled."""
        statistics, how = options.get("statistics", "local"), options.get("how", Execution())
        if statistics in WALKED:
            return Choice(0)
        device = torch.device(how.device or model.out_conv.weight.device)
        batch = options.get("batch") or 1

        def run(read: Tensor) -> Tensor:
            with torch.autocast(device.type, how.dtype) if how.dtype else nullcontext():
                return model.hat_model(read.to(device)).to(x)

        tile = options.get("tile")
        return choose_halo(
            run,
            x,
            lambda tile, halo: model.plan(x, tile=tile, halo=halo, batch=batch, how=how),
            scale=model.scale,
            grid=model.window,
            tile=model.tile_size if tile is None else tile,
            reach=self.reach,
            statistics=statistics,
            decibels=self.decibels,
            places=self.places,
            seed=self.seed,
        )


def with_context(model: TiledSR, x: Tensor, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options with a number as halo, and notes for the report that say how it was chosen."""
    halo = options.get("halo")
    if halo != "auto" and not isinstance(halo, AutoHalo):
        return options, []
    choice = (AutoHalo() if halo == "auto" else halo).choose(model, x, options)
    walked = options.get("statistics") in WALKED
    return {**options, "halo": choice.halo}, [] if walked else [str(choice)]


def reach_of(model: TiledSR, *, seconds: float = 120.0, folder: Path | None = None) -> Reach:
    """The reach of the network in `model`, the eraser aside: from the cache if the same weights were looked at before.

    seconds: as of find_reach. folder: of the cache, by default srlib/ in $XDG_CACHE_HOME or ~/.cache; where that cannot
    be written, nothing is kept. Neither is a reach that was not found for lack of time.
    """
    network: Any = unwrapped(model.hat_model)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # which leaves ~ for nobody's home
    folder = folder or Path(os.devnull if home.startswith("~") else home) / "srlib"
    path = folder / f"reach-{_content(network)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):  # missing, or of another version
        kept = json.loads(path.read_text())
        return Reach(**{**kept, "notes": tuple(kept["notes"])})
    channels = network.config.get("in_chans", 3)
    reach = find_reach(network, channels=channels, window=model.window, seconds=seconds)
    if reach.halo is not None or reach.seconds < seconds / 2:
        with suppress(OSError), atomic(path) as temporary:
            temporary.write_text(json.dumps(asdict(reach)))
    return reach


def _content(network: Any) -> str:
    """Checksum of a network: its kind, its configuration, its weights."""
    texts = [str(_VERSION), type(network).__name__, str(network.scale), json.dumps(network.config, default=str)]
    return digest([*texts, fingerprint(network)])
