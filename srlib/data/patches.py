"""Datasets of training patches: packed, downscaled while training, or a mixture; and the order they are drawn in.

Items are {"lr": (3, h, h), "hr": (3, h*s, h*s), "name": str}, float32 in [0, 1], indexed by keys (number, draw) or
(number, draw, side): number says which patch; draw seeds the place of the crop and which of 8 flips and rotations it
gets, so that a key always means the same pixels; side is that of the crop in LR pixels (None: the dataset's own).
"""

import json
import math
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import Dataset

from srlib.data.degrade import Degradation
from srlib.data.description import read_description
from srlib.data.manifest import read_manifest
from srlib.data.packs import open_shards, read_pack
from srlib.data.pictures import read_picture, to_float
from srlib.data.pregenerate import Recipe
from srlib.data.resize import centre, crop_to_multiple, downscale_integers
from srlib.files import digest


class PackedPairs(Dataset):
    """Training pairs out of a pack, by random access to memory-mapped arrays.

    A key's number is patch * len(methods) + method. methods: LR kernels to use (none: all); lr_patch: side of the
    random crop in LR pixels (None: the whole patch).
    Raises ValueError for a method that the pack does not have, or a crop larger than its patches.
    """

    def __init__(self, folder: Path | str, *, methods: Sequence[str] = (), lr_patch: int | None = None):
        self.folder, facts = Path(folder), read_pack(folder)
        self.scale = facts["scale"]
        self.methods = list(methods or facts["methods"])
        for method in self.methods:
            if method not in facts["methods"]:
                raise ValueError(f"no {method} patches in {folder}, only {', '.join(facts['methods'])}: see 01_data")
        self.lr_patch = lr_patch or facts["patch"] // self.scale
        if self.lr_patch * self.scale > facts["patch"]:
            raise ValueError(
                f"lr_patch {lr_patch} needs HR patches of {lr_patch * self.scale}, {folder} has {facts['patch']}"
            )
        self.key = f"{facts['key']} {self.methods} {self.lr_patch}"
        index = pd.read_csv(self.folder / "index.csv", dtype={"source": str}, keep_default_na=False)
        self.slots = index["slot"].to_numpy()  # arrays, not lists of objects: workers share them without copying
        self.codes, sources = pd.factorize(index["source"])
        self.sources = sources.tolist()  # looked up faster than an index
        self._open()

    def _open(self) -> None:
        self.hr = open_shards(self.folder, "hr")
        self.lrs = [open_shards(self.folder, m) for m in self.methods]
        self.per_file = len(self.hr[0])

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("hr", "lrs")}  # a spawned worker maps them itself

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.slots) * len(self.methods)

    def __getitem__(self, key: tuple) -> dict:
        lr, hr = self.levels(key)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.sources[self.codes[key[0] // len(self.methods)]]}

    def levels(self, key: tuple) -> tuple[np.ndarray, np.ndarray]:
        """lr (h, h, 3) and hr (h*s, h*s, 3) as they are stored, in the pack's dtype."""
        patch, method = divmod(key[0], len(self.methods))
        file, place = divmod(int(self.slots[patch]), self.per_file)
        lr, hr = self.lrs[method][file][place], self.hr[file][place]
        return _crop(lr, hr, _side(key, self.lr_patch), self.scale, _random(key))


class OnlinePairs(Dataset):
    """Training pairs downscaled from the HR pictures while training: needs no disk space, and is as slow as decoding.

    A key's number is picture * len(methods) + method. methods: LR kernels to use (none: those of 01_data). The pixels
    are those of pre-generated LR pictures, except that blur, noise and compression are drawn anew for every patch.
    Raises ValueError when no training picture is as large as a patch.
    """

    def __init__(self, data_dir: Path | str, *, scale: int, lr_patch: int, methods: Sequence[str] = ()):
        description = read_description(data_dir)
        self.hr_root = Path(description["hr_root"])
        degradation = Degradation(**description["degradation"])
        self.recipe = Recipe((scale,), methods or description["methods"], description["size"], degradation=degradation)
        self.scale, self.lr_patch = scale, lr_patch
        rows = {n: rows[0] for n, rows in read_manifest(data_dir).items() if description["split"].get(n) == "train"}
        pictures = digest(f"{name} {row['source_bytes']}" for name, row in rows.items())
        moved = {**description, "hr_root": ""}  # a moved folder is the same data
        self.key = json.dumps([moved, pictures, methods, scale, lr_patch], sort_keys=True)
        self.names = [n for n, r in rows.items() if min(r["hr_height"], r["hr_width"]) >= lr_patch * scale]
        if not self.names:
            raise ValueError(f"no training picture is as large as a patch of {lr_patch * scale}: lower lr_patch")

    def __len__(self) -> int:
        return len(self.names) * len(self.recipe.methods)

    def __getitem__(self, key: tuple) -> dict:
        lr, hr = self.levels(key)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.names[key[0] // len(self.recipe.methods)]}

    def levels(self, key: tuple) -> tuple[np.ndarray, np.ndarray]:
        """lr (h, h, 3) and hr (h*s, h*s, 3), uint8 or uint16.

        Of a picture that cannot be read it warns, and takes the next one.
        """
        number, method = divmod(key[0], len(self.recipe.methods))
        name, s, side = self.names[number], self.scale, _side(key, self.lr_patch)
        try:
            hr, rng = crop_to_multiple(self._picture(name), s), _random(key)
            if min(hr.shape[:2]) < side * s:
                raise ValueError(f"{name} has become smaller than a patch of {side * s} pixels")
        except (ValueError, OSError) as error:
            if key[1] >= 2**80:  # the 256th in a row
                raise
            warnings.warn(str(error), stacklevel=2)
            return self.levels(((key[0] + len(self.recipe.methods)) % len(self), key[1] + 2**72, side))
        height, width = (pixels // s - side for pixels in hr.shape[:2])
        y, x = rng.randrange(height + 1), rng.randrange(width + 1)
        # beyond the crop a kernel reaches 4 LR pixels at most, and the blur 3 sigma; at the border there is less
        reach = 4 + math.ceil(3 * self.recipe.degradation.blur[1] / s)
        top, left = max(0, y - reach), max(0, x - reach)
        context = hr[top * s : (y + side + reach) * s, left * s : (x + side + reach) * s]
        drawn = f"{name} {key[:2]}"
        degraded = self.recipe.degradation.hr(np.ascontiguousarray(context), drawn)
        lr = self.recipe.degradation.lr(downscale_integers(degraded, s, self.recipe.methods[method]), drawn)
        y, x = y - top, x - left
        lr = lr[y : y + side, x : x + side]
        hr = context[y * s : (y + side) * s, x * s : (x + side) * s]
        return _crop(lr, hr, side, s, rng)

    def whole(self, row: Mapping) -> tuple[np.ndarray, np.ndarray]:
        """lr and hr of a row of the manifest, as a whole: the same pixels that pregenerate would have written."""
        name, s, hr = row["source"], self.scale, self._picture(row["source"])
        degraded = crop_to_multiple(self.recipe.degradation.hr(hr, name), s)
        return self.recipe.downscale(degraded, name, s, row["method"]), crop_to_multiple(hr, s)

    def _picture(self, name: str) -> np.ndarray:
        return centre(read_picture(self.hr_root / name).rgb, self.recipe.size)[0]


class Mixture(Dataset):
    """Several datasets of patches as one, each with a share of every epoch's items in proportion to its weight.

    weights: one for each dataset, above 0; only their ratio counts. Of a dataset with more patches than its share, the
    next epoch takes the following ones; a smaller one is repeated. Raises ValueError for weights that do not fit.
    """

    def __init__(self, datasets: Sequence["PackedPairs | OnlinePairs"], weights: Sequence[float]):
        if len(datasets) != len(weights) or min(weights) <= 0:
            raise ValueError(f"{len(datasets)} datasets need as many weights above 0, not {list(weights)}")
        self.datasets, self.key = list(datasets), json.dumps([[d.key for d in datasets], list(weights)])
        total = sum(map(len, datasets))
        self.shares = [max(1, round(total * w / sum(weights))) for w in weights]

    def __len__(self) -> int:
        return sum(self.shares)

    def __getitem__(self, key: tuple) -> dict:
        number, draw = key[:2]
        for dataset, share in zip(self.datasets, self.shares, strict=True):
            if number < share:
                turn = (draw % 2**32) * share + number  # the low 32 bits of draw_keys' draw are the epoch
                return dataset[(turn % len(dataset), draw + turn // len(dataset), *key[2:])]
            number -= share
        raise IndexError(f"{key[0]} of {len(self)}")


def _side(key: tuple, largest: int) -> int:
    """Side of the crop that a key asks for, in LR pixels. ValueError when it is larger than the patches."""
    side = (key[2] if len(key) > 2 else None) or largest
    if side > largest:
        raise ValueError(f"a crop of {side} LR pixels does not fit into patches of {largest}: raise lr_patch")
    return side


def _random(key: tuple) -> random.Random:
    """A random generator seeded by the key; Python's, as numpy's takes ten times as long to create."""
    return random.Random(key[0] << 96 | key[1])


def _crop(lr: np.ndarray, hr: np.ndarray, side: int, scale: int, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """The same random square of both, in the same one of eight flips and rotations; contiguous."""
    y, x, turn = rng.randrange(lr.shape[0] - side + 1), rng.randrange(lr.shape[1] - side + 1), rng.randrange(8)
    box = (slice(y, y + side), slice(x, x + side))
    large = (slice(y * scale, (y + side) * scale), slice(x * scale, (x + side) * scale))
    return _turned(lr[box], turn), _turned(hr[large], turn)


def _turned(array: np.ndarray, turn: int) -> np.ndarray:
    """(H, H, C) with rows, columns or both reversed (turn % 4), then transposed (turn // 4); a copy."""
    half = array.dtype == np.float16  # unknown to OpenCV, which turns ten times as fast as NumPy
    array = array.view(np.uint16) if half else array
    array = cv2.flip(array, (0, 1, -1)[turn % 4 - 1]) if turn % 4 else array.copy()
    array = cv2.transpose(array) if turn >= 4 else array
    return array.view(np.float16) if half else array


def draw_keys(
    length: int,
    plan: Iterable[tuple[int, int | None]],
    *,
    seed: int,
    place: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[list[tuple[int, int, int | None]]]:
    """Batches of keys for a dataset of `length` patches: a batch sampler whose order depends on the seed alone.

    plan: for every batch to come, its size and the side of its patches (LR pixels, None: the dataset's own); place:
    number of patches drawn so far. Every epoch has each patch once, in a new order. Each of `ranks` processes gets
    its part of a batch `ranks` times as large. So a resumed run, or one with another number of workers or processes,
    gets exactly the patches that an uninterrupted one gets.
    """
    epoch, order = -1, np.empty(0, int)
    for batch, patch in plan:
        keys = []
        for drawn in range(place + rank * batch, place + (rank + 1) * batch):
            if drawn // length != epoch:
                epoch = drawn // length
                order = np.random.default_rng([seed, epoch]).permutation(length)
            keys.append((int(order[drawn % length]), seed * 2**32 + epoch, patch))
        yield keys
        place += batch * ranks
