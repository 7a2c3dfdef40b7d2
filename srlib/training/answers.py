"""A frozen network's answers, computed once: what the eraser learns from, at the speed of the small network.

HAT does not change in stage 3, so its whole and its tiled pictures never do. Each crop of a picture is run once as a
whole and once on each of several tile grids, and kept in a file; training reads patches around seams out of these.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from srlib.files import atomic, digest
from srlib.networks.eraser import TiledSR
from srlib.networks.fingerprint import fingerprint
from srlib.progress import progress_bar
from srlib.tiling.plan import TilePlan, plan_tiles
from srlib.tiling.seam_map import near, seam_map, turned
from srlib.tiling.tiled import tiled_apply

_SEEN = 1 / (16 * 255)  # rms of an error that is worth erasing: a sixteenth of an 8-bit level
_REUSE = 8  # epochs that a moving subset lasts: each of its patches in eight flips and rotations, on average


@dataclass(frozen=True)
class Crops:
    """What is cut out of the pictures, and the tile grids it is run on; LR pixels.

    count: crops in all, 0 for one of each picture; side: their largest side, smaller pictures are taken whole. grids:
    tile grids per crop; tiles, pads: the sizes and contexts that they have in turn. drawn: False takes the middle of
    each picture, and grids that begin at its corner, as validation does. gib: how much may lie on disk, those of
    `beside` in Answers included.
    """

    count: int
    side: int
    grids: int
    tiles: tuple[int, ...]
    pads: tuple[int, ...]
    gib: float
    seed: int = 0
    drawn: bool = True

    def __post_init__(self) -> None:
        for name, least in (("count", 0), ("side", 16), ("grids", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} of crops is {getattr(self, name)}; it must be at least {least}")
        if not self.tiles or not self.pads:
            raise ValueError("crops need at least one tile size and one tile_pad")
        if not self.gib > 0:
            raise ValueError(f"cache_gib {self.gib} leaves no room for HAT's answers: the demo's take 0.1 GiB")


class Answers(Dataset):
    """Patches of stitched pictures with what they should be, out of files in a folder of `folder`, made by `prepare`.

    Items {"lr": (lr, stitched, seams, unit), the arguments of TiledSR.forward, "target": (whole, unit), "hr": the
    ground truth, "name"}; lr (C, h, h), seams (4, h, h), unit (1, 1, 1), the others (C, h*scale, h*scale), of patches
    with a seam in them, flipped and rotated. Keys are those of srlib.data.patches.draw_keys; len counts the crops that
    are on disk at once times their grids. When all crops do not fit in crops.gib, they are taken in turns: each turn
    lasts _REUSE epochs and depends on the epoch alone, so that a resumed training sees what an unbroken one would.

    model: its HAT, frozen, answers. pictures: items {"lr", "hr", "name"} with `names` and a `key` for their content.
    lr_patch: side of a patch. beside: others in the same folder, which stay there, and whose first turn is all that is
    asked for; share: of crops.gib that these may take. Raises ValueError when no picture is large enough to have a seam
    or a patch, and when there is too little room.
    """

    def __init__(
        self,
        model: TiledSR,
        pictures: Any,
        folder: Path,
        crops: Crops,
        *,
        lr_patch: int,
        beside: Sequence["Answers"] = (),
        share: float = 1.0,
    ):
        self.model, self.pictures, self.crops, self.lr_patch = model, pictures, crops, lr_patch
        self.scale, self.window, self.radius = model.scale, model.window, model.radius or 8
        self.units: dict[int, float] = {}  # by halo, set by measure
        self.ready: list[int] = []  # crops, by prepare
        self.sizes = [self._size(i) for i in range(len(pictures))]
        self.usable = [i for i, size in enumerate(self.sizes) if self._grids_for(size) and min(size) >= lr_patch]
        if not self.usable:
            raise ValueError(
                f"no picture of {pictures.names[0]}, ... is large enough for patches of {lr_patch} LR pixels with a "
                f"seam of tiles {list(crops.tiles)} + {list(crops.pads)}, cut to {crops.side}: lower lr_patch or the "
                "tiles, or raise crop_side"
            )
        cut = {name: told for name, told in asdict(crops).items() if name not in ("count", "gib")}
        origin = json.dumps([cut, pictures.key, self.usable, self.scale, self.window, self.radius], sort_keys=True)
        content = digest([origin, fingerprint(model.hat_model)])
        self.folder = folder / content[:16]  # more crops, or room for more, leave those that are there as they are
        self.beside = list(beside)
        self.count = crops.count or len(self.usable)
        channels = model.config["hat"]["in_chans"]
        self.each = max(math.prod(self.sizes[i]) for i in self.usable) * channels * self._bytes_per_pixel()
        taken = sum(others.each * others.together for others in beside)
        self.room = int((share * crops.gib * 2**30 - taken) / self.each)
        self.moving = self.room < self.count
        if self.moving and self.room < 2:
            raise ValueError(
                f"cache_gib {crops.gib} has no room for two crops of {self.each / 2**20:.0f} MiB at once, beside those "
                "of the other pictures (training or validation): raise it, or lower crop_side"
            )
        self.together: int = self.room // 2 if self.moving else self.count  # the next turn is made while one lasts
        self.key = digest([content, str(self.count), str(self.together)])
        lacking = self._unmet(crops.pads, self.turn(0)) if self.moving else set()  # the units are the first turn's
        if lacking and self._unmet(lacking, range(self.count)) != lacking:
            raise ValueError(
                f"{crops.gib} GiB hold {self.together} crops at once, too few for a grid of each context "
                f"{list(crops.pads)}: raise cache_gib, or grids"
            )

    def _bytes_per_pixel(self) -> int:
        """Of a crop, per LR pixel and channel: lr in fp32; hr, whole and the error of each grid in fp16."""
        return 4 + 2 * self.scale**2 * (2 + self.crops.grids)

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self.pictures.size(index)
        return min(height, self.crops.side), min(width, self.crops.side)

    def _grids_for(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Pairs of tile and pad that give a picture of this size a seam, wherever the grid begins."""
        pairs = [(tile, pad) for pad in self.crops.pads for tile in self.crops.tiles]
        plans = {p: plan_tiles(*size, tile=p[0], halo=p[1], window=self.window) for p in pairs}
        return [pair for pair, plan in plans.items() if any(plan.seams(1))]

    def __len__(self) -> int:
        return self.together * self.crops.grids

    def __getstate__(self) -> dict:
        makes = ("model", "pictures", "beside")  # workers only read files
        return {name: value for name, value in vars(self).items() if name not in makes}

    def crop(self, number: int) -> tuple[int, int, int]:
        """Picture, top and left of a crop."""
        turn, place = divmod(number, len(self.usable))
        rng = np.random.default_rng([self.crops.seed, turn])
        index = self.usable[int(rng.permutation(len(self.usable))[place]) if self.crops.drawn else place]
        height, width = self.pictures.size(index)
        free = (height - self.sizes[index][0], width - self.sizes[index][1])
        if not self.crops.drawn:
            return index, free[0] // 2, free[1] // 2
        rng = np.random.default_rng([self.crops.seed, number, 1])
        return index, int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))

    def plans(self, number: int, size: tuple[int, int]) -> list[TilePlan]:
        """The tile grids of a crop of this size."""
        pairs, rng, plans = self._grids_for(size), np.random.default_rng([self.crops.seed, number, 2]), []
        for g in range(self.crops.grids):
            tile, halo = pairs[(number * self.crops.grids + g) % len(pairs)]
            row, column = (int(o) * self.window for o in rng.integers(0, tile // self.window, 2))
            grid: dict[str, Any] = {"tile": tile, "halo": halo, "window": self.window}
            plan = plan_tiles(*size, **grid, offset=(row, column) if self.crops.drawn else (0, 0))
            plans.append(plan if any(plan.seams(1)) else plan_tiles(*size, **grid))
        return plans

    def turn(self, epoch: int) -> list[int]:
        """The crops of an epoch, by number."""
        first = epoch // _REUSE * self.together if self.moving else 0
        return [(first + i) % self.count for i in range(self.together)]

    def _unmet(self, halos: Iterable[int], numbers: Iterable[int]) -> set[int]:
        """Those of these contexts that no grid of these crops has; looks no further than it takes."""
        left = set(halos)
        for number in numbers:
            left -= {plan.halo for plan in self.plans(number, self.sizes[self.crop(number)[0]])}
            if not left:
                break
        return left

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    @property
    def _measured(self) -> Path:
        """The file of the units."""
        return self.folder / f"units_{self.key[:16]}.json"

    def measure(self) -> None:
        """Set `units`, of the first turn's crops. They lie beside the files, so that this runs HAT only once."""
        if self.units:
            return
        units = None
        if PartialState().is_main_process and self._measured.is_file():
            units = json.loads(self._measured.read_text())
        (units,) = broadcast_object_list([units])  # the first process decides for all
        if units is None:
            self.make(self.turn(0))
            units = self._measure(self.turn(0))
            if PartialState().is_main_process:
                with atomic(self._measured) as temporary:
                    temporary.write_text(json.dumps(units))
        self.units = {int(halo): unit for halo, unit in units.items()}

    def prepare(self, drawn: int = 0, ahead: int = 0) -> None:
        """Make the files that the items drawn from number `drawn` to `drawn` + `ahead` need, and remove others: only a
        training that has its folder to itself calls this.
        """
        epochs = range(drawn // len(self), (drawn + ahead) // len(self) + 1)
        wanted = sorted({number for epoch in epochs for number in self.turn(epoch)})
        if wanted == self.ready:  # as at most steps; to look at the files of a thousand crops takes 10 ms
            return
        self.measure()
        process = PartialState()  # all processes come to this at the same step
        if process.is_main_process:
            self.remove_others(wanted)
        process.wait_for_everyone()  # or a file that another process is writing could be taken for a left one
        self.make(wanted)
        self.ready = wanted

    def make(self, numbers: Sequence[int]) -> None:
        """Run HAT on those of these crops whose files are missing; several processes take each its share, so that none
        waits long for another.
        """
        process = PartialState()
        own = numbers[process.process_index :: process.num_processes]
        missing = [n for n in own if not self._path(n).is_file()]
        if missing:
            hidden = not process.is_main_process
            bar = progress_bar(total=len(missing), desc="answers", unit="crop", disable=hidden)
            for number in missing:
                self._make(number)
                bar.update()
            bar.close()
        process.wait_for_everyone()

    def remove_others(self, wanted: Sequence[int] | None = None) -> None:
        """All files in the folder above but those of these crops and of `beside`: of other networks, pictures or turns.
        While all fit, crops left of a larger count stay, as long as there is room. None: before it is known which are
        wanted, any of its own stay, but only the first turn, if the units are still to be measured by that.
        """
        if wanted is None and self.moving and not self._measured.is_file():
            wanted = self.turn(0)
        staying = {others.folder: set(others.turn(0)) for others in self.beside}
        fitting = range(0 if self.moving else self.room)
        for file in sorted(self.folder.parent.rglob("*.safetensors")):
            number = int(file.stem) if file.stem.isdigit() else -1  # else one that a killed process was writing
            if file.parent == self.folder:
                stays = number in fitting or (number >= 0 if wanted is None else number in wanted)
            else:
                stays = number in staying.get(file.parent, ())
            if not stays:
                file.unlink(missing_ok=True)
        for folder in sorted(self.folder.parent.rglob("*/"), reverse=True):
            used = folder in (self.folder, *staying) or folder.is_symlink() or any(folder.rglob("*.safetensors"))
            if not used:
                for file in folder.glob("units_*.json"):
                    file.unlink(missing_ok=True)
                if not any(folder.iterdir()):
                    folder.rmdir()

    @torch.no_grad()
    def _make(self, number: int) -> None:
        """Run the network on one crop and write its file."""
        hat = self.model.hat_model.eval()
        device = next(hat.parameters()).device
        index, top, left = self.crop(number)
        item, (height, width), s = self.pictures[index], self.sizes[index], self.scale
        lr = item["lr"][:, top : top + height, left : left + width]
        hr = item["hr"][:, top * s : (top + height) * s, left * s : (left + width) * s]
        x = lr[None].to(device)
        whole = hat(x)
        stored = {"lr": lr, "whole": whole[0].half(), "hr": hr.half()}
        grids = []
        for g, plan in enumerate(self.plans(number, (height, width))):
            stitched, _ = tiled_apply(hat, x, plan, scale=s, batch=16)
            assert stitched is not None  # no `out` was given
            error = (stitched - whole)[0]
            seams = seam_map(plan.seams(1), range(height), range(width), radius=self.radius, device=device)
            counts = near(seams).repeat_interleave(s, -2).repeat_interleave(s, -1)[0, 0]
            squares = error.square().mean(0)[counts].double()
            stored[f"error_{g}"] = error.half()
            grid = {"tile": plan.tile, "halo": plan.halo, "offset": plan.offset}
            grids.append({**grid, "energy": squares.sum().item(), "pixels": squares.numel()})
        if not all(t.isfinite().all() for t in stored.values()):
            raise FloatingPointError(f"HAT's answer to {item['name']} is not finite: use another checkpoint")
        about = {"name": item["name"], "grids": grids}
        stored = {name: t.detach().cpu().contiguous() for name, t in stored.items()}
        with atomic(self._path(number)) as temporary:
            temporary.write_bytes(save(stored, {"about": json.dumps(about)}))

    def _measure(self, numbers: Sequence[int]) -> dict[int, float]:
        """By halo the rms of tiled - whole within the radius of seams; 0 where nobody could see it, which is then
        neither learned nor erased: in its own unit it would weigh as much as one that matters.
        """
        sums: dict[int, tuple[float, int]] = {}
        for number in numbers:
            with safe_open(self._path(number), "pt") as file:
                for grid in json.loads(file.metadata()["about"])["grids"]:
                    energy, pixels = sums.get(grid["halo"], (0.0, 0))
                    sums[grid["halo"]] = (energy + grid["energy"], pixels + grid["pixels"])
        units = {halo: math.sqrt(energy / max(pixels, 1)) for halo, (energy, pixels) in sorted(sums.items())}
        return {halo: unit if unit > _SEEN else 0.0 for halo, unit in units.items()}

    @property
    def gains(self) -> list[list[float]]:
        """The units as TiledSR's `gains` takes them."""
        return [[float(halo), unit] for halo, unit in self.units.items()]

    def __getitem__(self, key: tuple) -> dict:
        number, draw = key[:2]
        side = (key[2] if len(key) > 2 else None) or self.lr_patch
        place, grid = divmod(number, self.crops.grids)
        rng = random.Random(number << 96 | draw)
        crop = self.turn(draw % 2**32)[place]  # the low 32 bits of draw_keys' draw are the epoch
        useful = self._useful(crop)
        return self.patch(crop, useful[grid % len(useful)] if useful else grid, side, rng)

    def _useful(self, crop: int) -> list[int]:
        """The grids of a crop that make an error to learn from."""
        with safe_open(self._path(crop), "pt") as file:
            grids = json.loads(file.metadata()["about"])["grids"]
        return [number for number, grid in enumerate(grids) if self.units[grid["halo"]]]

    def example(self, seed: int) -> dict:
        """A patch to look at, of one of the crops that are there."""
        self.measure()
        there = sorted(int(file.stem) for file in self.folder.glob("*.safetensors") if file.stem.isdigit())
        if not there:  # somebody has removed them after the training
            self.make(there := self.turn(0)[:1])
        rng = random.Random(seed)
        crop = there[seed % len(there)]
        return self.patch(crop, (self._useful(crop) or [0])[0], self.lr_patch, rng)

    def patch(self, crop: int, grid: int, side: int | None = None, rng: random.Random | None = None) -> dict:
        """An item: a random patch of so many LR pixels, or, without a side, all of the crop as it is."""
        with safe_open(self._path(crop), "pt") as file:
            about = json.loads(file.metadata()["about"])
            known, s = about["grids"][grid], self.scale
            parts = {name: file.get_slice(name) for name in ("lr", "whole", "hr", f"error_{grid}")}
            height, width = parts["lr"].get_shape()[1:]
            plan = plan_tiles(
                height, width, tile=known["tile"], halo=known["halo"], window=self.window, offset=tuple(known["offset"])
            )
            rows, columns = range(height), range(width)
            if side is not None:
                assert rng is not None  # comes with a side
                rows, columns = self._place(plan, side, rng)
            large = (slice(rows.start * s, rows.stop * s), slice(columns.start * s, columns.stop * s))
            lr = parts["lr"][:, rows.start : rows.stop, columns.start : columns.stop]
            whole, hr, error = (parts[n][:, large[0], large[1]].float() for n in ("whole", "hr", f"error_{grid}"))
        seams = seam_map(plan.seams(1), rows, columns, radius=self.radius, context=plan.halo)[0]
        pictures = [lr, whole + error, whole, hr]
        if rng is not None:
            turn = rng.randrange(8)
            pictures, seams = [_turned(p, turn) for p in pictures], turned(seams, turn)
        lr, stitched, whole, hr = pictures
        unit = torch.full((1, 1, 1), self.units[plan.halo])
        return {"lr": (lr, stitched, seams, unit), "target": (whole, unit), "hr": hr, "name": about["name"]}

    def plan(self, crop: int, grid: int) -> TilePlan:
        """One of the tile grids that this crop was run on."""
        index, _, _ = self.crop(crop)
        return self.plans(crop, self.sizes[index])[grid]

    @staticmethod
    def _place(plan: TilePlan, side: int, rng: random.Random) -> tuple[range, range]:
        """Rows and columns of a patch with one of the seams somewhere in it, the other axis anywhere."""
        sizes = (plan.y.size, plan.x.size)
        if side > min(sizes):
            raise ValueError(f"a patch of {side} LR pixels does not fit into a crop of {sizes[1]}x{sizes[0]}")
        starts = [rng.randrange(size - side + 1) for size in sizes]
        lines = [(axis, c) for axis, seams in enumerate(plan.seams(1)) for c in seams]
        axis, c = lines[rng.randrange(len(lines))]
        starts[axis] = min(max(c - rng.randrange(1, side), 0), sizes[axis] - side)
        return range(starts[0], starts[0] + side), range(starts[1], starts[1] + side)


def _turned(picture: Tensor, turn: int) -> Tensor:
    """(C, h, h) in one of eight flips and rotations, as seam_map.turned."""
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if turn & bit]
    picture = picture.flip(axes) if axes else picture
    return (picture.transpose(-2, -1) if turn & 4 else picture).contiguous()
