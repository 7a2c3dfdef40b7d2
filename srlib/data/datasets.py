"""Datasets: packed patches, patches made on the fly, mixtures of both, whole pictures, and the order of drawing.

Patches are indexed by keys (number, draw): the number says which patch, the draw seeds the crop's place and one of
8 flips and rotations, so that a key always means the same pixels; a third part, if not None, is the side of the crop
in LR pixels. Items are {"lr": (3, h, h), "hr": (3, h*s, h*s),
"name": str}, float32 in [0, 1].
"""

import json
import math
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import Dataset

from srlib.data.degrade import Degradation
from srlib.data.manifest import METHOD, read_manifest
from srlib.data.packs import open_shards, read_pack
from srlib.data.pairs import read_pair
from srlib.data.pictures import read_picture, to_float
from srlib.data.pregenerate import Recipe
from srlib.data.resize import centre, crop_to_multiple, downscale_integers
from srlib.data.sources import list_pictures, read_description
from srlib.files import digest


def training_patches(data_dir: Path | str, *, scale: int, lr_patch: int, methods: Sequence[str] = ()) -> Dataset:
    """What 01_data prepared to train on: a pack, pictures downscaled on the fly, or a mixture with other runs' data.

    lr_patch: side of the crops in LR pixels. methods: LR kernels to use; none: all there are. Pairs that were there
    already have none to choose from. Never a held-out picture of this run, whatever the others train on.
    Raises FileNotFoundError or ValueError naming what to do in 01_data.
    """
    data_dir = Path(data_dir)
    own = _own_patches(data_dir, scale, lr_patch, methods)
    also = read_description(data_dir)["also"]
    if not also:
        return own
    own_train, held_out = _identities(data_dir)
    for other in also:
        shared = (held_out.keys() - own_train.keys()) & _identities(data_dir / other)[0].keys()
        if shared:
            raise ValueError(
                f"{held_out[min(shared)]} is held out here and trained on in {(data_dir / other).resolve()} "
                f"({len(set(map(held_out.get, shared)))} such): hold out the same pictures in both runs"
            )
    others = [_own_patches(data_dir / other, scale, lr_patch, methods) for other in also]
    return Mixture([own, *others], [1.0, *also.values()])


def _own_patches(data_dir: Path, scale: int, lr_patch: int, methods: Sequence[str]) -> "PackedPairs | OnlinePairs":
    description = read_description(data_dir)
    if description["methods"] == [METHOD]:
        methods = ()
    if description["online"]:
        return OnlinePairs(data_dir, scale=scale, lr_patch=lr_patch, methods=methods)
    pack = PackedPairs(find_pack(data_dir, scale, lr_patch * scale), methods=methods, lr_patch=lr_patch)
    wrong = sorted(n for n in pack.sources if description["split"].get(n) != "train")
    if wrong:
        raise ValueError(f"{pack.folder} holds {wrong[0]}, which the split does not train on: run 01_data to its end")
    return pack


def _identities(data_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What a picture is known by, its place and its checksum, -> its name: training pictures, held-out ones."""
    description = read_description(data_dir)
    text = {"source": str, "source_checksum": str}
    known = pd.read_csv(data_dir / "manifest.csv", usecols=list(text), dtype=text, keep_default_na=False)
    training: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for name, checksum in known.drop_duplicates("source").itertuples(index=False):
        ids = training if description["split"].get(name) == "train" else held_out
        ids[str((Path(description["hr_root"]) / name).resolve())] = name
        if checksum not in ("", "0"):  # online, none has been read
            ids[checksum] = name
    return training, held_out


def find_pack(data_dir: Path | str, scale: int, patch: int) -> Path:
    """The pack of this scale with the smallest patches of at least `patch` HR pixels.

    Raises ValueError naming 01_data's parameter to change when there is none.
    """
    packs = [read_pack(p.parent) | {"path": p.parent} for p in Path(data_dir).glob("packs/[!.]*/pack.json")]
    if not any(p["scale"] == scale for p in packs):
        if not packs:
            raise ValueError(f"no patches in {data_dir}: run 01_data to its end, with patch_sizes")
        made = sorted({p["scale"] for p in packs})
        raise ValueError(
            f"no patches at scale {scale} in {data_dir}, only at {made}: "
            "set scale in 02_stage1 to one of these, or scales in 01_data"
        )
    fitting = [p for p in packs if p["scale"] == scale and p["patch"] >= patch]
    if not fitting:
        largest = max(p["patch"] for p in packs if p["scale"] == scale)
        raise ValueError(
            f"training needs HR patches of {patch} pixels, the largest packed are {largest}: "
            f"add {patch} to patch_sizes in 01_data, or lower lr_patch to {largest // scale}"
        )
    return min(fitting, key=lambda p: p["patch"])["path"]


class PackedPairs(Dataset):
    """Training pairs out of a pack, by random access to memory-mapped arrays; number = patch * methods + method.

    methods: LR kernels to use (none: all); lr_patch: side of the random crop in LR pixels (None: the whole patch).
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
        return {k: v for k, v in vars(self).items() if k not in ("hr", "lrs")}  # a started worker maps them itself

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.slots) * len(self.methods)

    def __getitem__(self, key: tuple) -> dict:
        lr, hr = self.levels(key)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.sources[self.codes[key[0] // len(self.methods)]]}

    def levels(self, key: tuple) -> tuple[np.ndarray, np.ndarray]:
        """lr (h, h, 3) and hr (h*s, h*s, 3) as they are stored, in the pack's type."""
        patch, method = divmod(key[0], len(self.methods))
        file, place = divmod(int(self.slots[patch]), self.per_file)
        lr, hr = self.lrs[method][file][place], self.hr[file][place]
        return _crop(lr, hr, _side(key, self.lr_patch), self.scale, _random(key))


class OnlinePairs(Dataset):
    """Training pairs downscaled from the HR pictures while training: no LR files, no packs, and a decoder's speed.

    For those without disk, and to compare with. number = picture * methods + method. The same pixels as the
    pre-generated LR pictures, except that blur, noise and compression are drawn anew for every draw.
    """

    def __init__(self, data_dir: Path | str, *, scale: int, lr_patch: int, methods: Sequence[str] = ()):
        description = read_description(data_dir)
        self.hr_root = Path(description["hr_root"])
        degradation = Degradation(**description["degradation"])
        self.recipe = Recipe(
            (scale,), tuple(methods or description["methods"]), description["size"], False, degradation
        )
        self.scale, self.lr_patch = scale, lr_patch
        rows = {n: rows[0] for n, rows in read_manifest(data_dir).items() if description["split"].get(n) == "train"}
        pictures = digest(f"{name} {row['source_bytes']}" for name, row in rows.items())
        moved = {**description, "hr_root": ""}  # the same pictures in another place are the same
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
        """lr (h, h, 3) and hr (h*s, h*s, 3), uint8 or uint16. For a picture that cannot be read the next one, with a
        warning.
        """
        number, method = divmod(key[0], len(self.recipe.methods))
        name, s, side = self.names[number], self.scale, _side(key, self.lr_patch)
        try:
            hr, rng = crop_to_multiple(self._picture(name), s), _random(key)
            if min(hr.shape[:2]) < side * s:
                raise ValueError(f"{name} has become smaller than a patch of {side * s} pixels")
        except (ValueError, OSError) as error:
            if key[1] >= 2**80:  # no end of broken ones
                raise
            warnings.warn(str(error), stacklevel=2)
            return self.levels(((key[0] + len(self.recipe.methods)) % len(self), key[1] + 2**72, side))
        height, width = (pixels // s - side for pixels in hr.shape[:2])
        y, x = rng.randrange(height + 1), rng.randrange(width + 1)
        # 4 LR pixels around the crop are all that any kernel reaches, and 3 sigma of blur; less at the border
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
        """lr and hr of a row of the manifest: the very pixels that pregenerate would have written."""
        name, s, hr = row["source"], self.scale, self._picture(row["source"])
        degraded = crop_to_multiple(self.recipe.degradation.hr(hr, name), s)
        return self.recipe.downscale(degraded, name, s, row["method"]), crop_to_multiple(hr, s)

    def _picture(self, name: str) -> np.ndarray:
        return centre(read_picture(self.hr_root / name).rgb, self.recipe.size)[0]


class Mixture(Dataset):
    """Several datasets of patches as one: of an epoch's items each gets the share of its weight.

    weights: one a dataset, above 0; only their ratio counts. A dataset with more patches than its share of an
    epoch goes on in the next one, a smaller one is repeated.
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
                turn = (draw % 2**32) * share + number  # draw_keys' draw ends in the number of the epoch
                return dataset[(turn % len(dataset), draw + turn // len(dataset), *key[2:])]
            number -= share
        raise IndexError(f"{key[0]} of {len(self)}")


def _side(key: tuple, largest: int) -> int:
    """Of the crop that a key asks for, in LR pixels. ValueError when the patches are not as large."""
    side = (key[2] if len(key) > 2 else None) or largest
    if side > largest:
        raise ValueError(f"a crop of {side} LR pixels does not fit into patches of {largest}: raise lr_patch")
    return side


def _random(key: tuple) -> random.Random:
    """A generator of the key's own; numpy's takes ten times as long to begin."""
    return random.Random(key[0] << 96 | key[1])


def _crop(lr: np.ndarray, hr: np.ndarray, side: int, scale: int, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """The same random square of both, turned alike into one of the eight flips and rotations; contiguous."""
    y, x, turn = rng.randrange(lr.shape[0] - side + 1), rng.randrange(lr.shape[1] - side + 1), rng.randrange(8)
    box = (slice(y, y + side), slice(x, x + side))
    large = (slice(y * scale, (y + side) * scale), slice(x * scale, (x + side) * scale))
    return _turned(lr[box], turn), _turned(hr[large], turn)


def _turned(array: np.ndarray, turn: int) -> np.ndarray:
    """(H, H, C) with its rows, its columns or both reversed (turn % 4), then perhaps exchanged (turn // 4); a copy."""
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
    """Batches of a dataset's keys, each a pure function of the seed and of its place in the order of drawing.

    plan: for every batch to come, its size and the side of its patches (LR pixels, None: the dataset's own). place:
    patches drawn so far. Every patch comes once an epoch, in an order drawn anew for each. Each of `ranks` processes
    gets its part of a batch `ranks` times as large. So a resumed run, or one with other workers or processes, gets
    exactly the patches that an unbroken one gets.
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


class PicturePairs(Dataset):
    """Whole pictures of one part of the split: {"lr": (3, h, w), "hr": (3, H, W), "name": str}, in [0, 1]; HDR pairs
    log-mapped.

    `name` has no suffix, unless another picture differs in nothing else. LR pictures are those of `method` (none:
    bicubic, or the first there is).
    """

    def __init__(self, data_dir: Path | str, part: str, *, scale: int, method: str = ""):
        self.data_dir = Path(data_dir)
        description = read_description(data_dir)
        manifest = pd.read_csv(self.data_dir / "manifest.csv", dtype={"source": str}, keep_default_na=False)
        self.hr_root = description["hr_root"]
        self.online = OnlinePairs(data_dir, scale=scale, lr_patch=1).whole if description["online"] else None
        if not method:
            method = "bicubic" if "bicubic" in description["methods"] else description["methods"][0]
        wanted = (manifest["scale"] == scale) & (manifest["source"].map(description["split"]) == part)
        self.rows = manifest[wanted & (manifest["method"] == method)].to_dict("records")
        if not self.rows:
            raise ValueError(
                f"no {part} pictures made by {method} at scale {scale} in {data_dir}: 01_data made scales "
                f"{description['scales']} by {', '.join(description['methods'])}"
            )
        bare = [str(Path(row["source"]).with_suffix("")) for row in self.rows]
        twice = {name for name, count in Counter(bare).items() if count > 1}  # a.png and a.jpg keep their suffixes
        self.names = [row["source"] if n in twice else n for n, row in zip(bare, self.rows, strict=True)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        lr, hr = self.online(row) if self.online else read_pair(self.data_dir, self.hr_root, row)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.names[index]}

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))


class DownscaledPictures(Dataset):
    """Any HR pictures, downscaled by the bicubic of the protocol: items as PicturePairs has them.

    folder: is searched with its subfolders. Each picture is cropped to a multiple of `scale`, downscaled and rounded to
    its own 8 or 16 bits when it is asked for. All are decoded once at the beginning, a small part of the time that
    any network takes: what cannot be read, or is too small for SSIM's window of 11 pixels inside the border that the
    protocol crops, is no item but a line "name: reason" of `left_out`. Raises ValueError when nothing is left.
    """

    def __init__(self, folder: Path | str, *, scale: int):
        self.folder, self.scale, self.names = Path(folder), scale, []
        self.left_out: list[str] = []
        least = scale * (2 + math.ceil(11 / scale))  # HR pixels a side: the border, of `scale`, twice and the window
        for name in list_pictures(folder):
            path = self.folder / name
            try:
                height, width = read_picture(path).rgb.shape[:2]
            except (ValueError, OSError) as error:
                self.left_out.append(f"{name}: {str(error).removeprefix(f'{path} ')}")
                continue
            if min(height, width) < least:
                self.left_out.append(f"{name}: {width}x{height} is too small, x{scale} needs {least} pixels a side")
            else:
                self.names.append(name)
        if not self.names:
            raise ValueError(f"{folder} holds no picture to score on: {self.left_out[0]}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        hr = crop_to_multiple(self.original(index), self.scale)
        lr = downscale_integers(hr, self.scale, "bicubic")
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.names[index]}

    def original(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 or uint16, uncropped."""
        return read_picture(self.folder / self.names[index]).rgb
