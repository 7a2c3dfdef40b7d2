"""Datasets: packed training patches, whole pictures, and the order in which patches are drawn."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch.utils.data import Dataset, Sampler

from srlib.data import read_description
from srlib.pictures import read_picture, to_float, to_integers


def pack(data_dir: Path | str, hr_root: Path | str, split: Mapping[str, str], *, scale: int, patch: int = 128) -> dict:
    """Cut the training pictures into HR patches and the matching LR patches: uint8 arrays to memory-map.

    patch: HR pixels, lowered to a multiple of the scale. LR patches are cut out of the LR pictures, which is
    not the same as reducing the HR patch. The last row and column lie flush with the border. 16-bit pictures
    are rounded to 8 bits. Writes packs/<scale>x_<patch>/: hr.npy (N, p, p, 3), <method>.npy (N, p/s, p/s, 3),
    index.csv, pack.json, whose content is returned; skipped when up to date.
    Raises ValueError when no training picture is large enough.
    """
    data_dir = Path(data_dir)
    manifest = pd.read_csv(data_dir / "manifest.csv")
    manifest = manifest[(manifest["scale"] == scale) & (manifest["source"].map(split) == "train")]
    side = patch - patch % scale
    folder = data_dir / "packs" / f"{scale}x_{patch}"
    content = pd.util.hash_pandas_object(manifest[["source", "lr", "lr_checksum", "source_checksum"]], index=False)
    key = hashlib.sha256(content.to_numpy().tobytes()).hexdigest()[:16]
    if (folder / "pack.json").is_file() and (known := json.loads((folder / "pack.json").read_text()))["key"] == key:
        return known
    methods = sorted(manifest["method"].unique())
    first = manifest.drop_duplicates("source").set_index("source", drop=False)
    index = pd.DataFrame(
        [
            (source, y, x)
            for source, row in first.iterrows()
            for y in _starts(row["hr_height"], side)
            for x in _starts(row["hr_width"], side)
        ],
        columns=["source", "y", "x"],
    )
    if index.empty:
        raise ValueError(f"no training picture is as large as a patch of {side} pixels: lower patch_sizes in 01_data")
    temporary = folder.with_name(f".{folder.name}.part")  # the folder appears whole or not at all
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sides = {"hr": side} | dict.fromkeys(methods, side // scale)
    arrays = {
        name: np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", np.uint8, (len(index), s, s, 3))
        for name, s in sides.items()
    }
    files = manifest.set_index(["source", "method"])["lr"]
    for source, places in index.groupby("source"):
        hr = _eight_bits(read_hr(hr_root, first.loc[source]))
        lrs = {m: _eight_bits(read_picture(data_dir / files[source, m]).rgb) for m in methods}
        for number, y, x in places[["y", "x"]].itertuples():
            arrays["hr"][number] = hr[y : y + side, x : x + side]
            for method, lr in lrs.items():
                arrays[method][number] = lr[y // scale : (y + side) // scale, x // scale : (x + side) // scale]
    for array in arrays.values():
        array.flush()
    index.to_csv(temporary / "index.csv", index=False)
    small = sorted(set(first.index) - set(index["source"]))
    facts = {
        "key": key,
        "scale": scale,
        "patch": side,
        "patches": len(index),
        "methods": methods,
        "too_small": small,
    }
    (temporary / "pack.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return facts


def _starts(size: int, side: int) -> list[int]:
    return sorted({*range(0, size - side + 1, side), size - side}) if size >= side else []


def read_hr(hr_root: Path | str, row: Mapping) -> np.ndarray:
    """The part of the HR picture that a manifest row's LR picture was made from: (H, W, 3)."""
    rgb = read_picture(Path(hr_root) / row["source"]).rgb
    top, left = row["hr_top"], row["hr_left"]
    return rgb[top : top + row["hr_height"], left : left + row["hr_width"]]


def _eight_bits(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.uint8 else to_integers(to_float(array))


def find_pack(data_dir: Path | str, scale: int, patch: int) -> Path:
    """The pack of this scale with the smallest patches of at least `patch` HR pixels.

    Raises ValueError naming 01_data's parameter to change when there is none.
    """
    packs = [json.loads(p.read_text()) | {"path": p.parent} for p in Path(data_dir).glob("packs/*/pack.json")]
    if not any(p["scale"] == scale for p in packs):
        made = sorted({p["scale"] for p in packs})
        raise ValueError(f"no patches at scale {scale} in {data_dir}, only at {made}: set scales in 01_data")
    fitting = [p for p in packs if p["scale"] == scale and p["patch"] >= patch]
    if not fitting:
        largest = max(p["patch"] for p in packs if p["scale"] == scale)
        raise ValueError(
            f"training needs HR patches of {patch} pixels, the largest packed are {largest}: "
            f"add {patch} to patch_sizes in 01_data, or lower lr_patch to {largest // scale}"
        )
    return min(fitting, key=lambda p: p["patch"])["path"]


class PackedPairs(Dataset):
    """Training pairs out of a pack, by random access to memory-mapped arrays.

    methods: LR kernels to use (None: all); lr_patch: side of the random crop in LR pixels (None: the whole
    patch). An item's key is (number, draw): number = patch * len(methods) + method; draw seeds the crop's place
    and one of 8 flips and rotations, so that a key always means the same pixels.
    Items: {"lr": (3, h, h), "hr": (3, h*s, h*s), "name": str}, float32 in [0, 1].
    """

    def __init__(self, folder: Path | str, *, methods: Sequence[str] | None = None, lr_patch: int | None = None):
        folder = Path(folder)
        facts = json.loads((folder / "pack.json").read_text())
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
        self.hr = np.load(folder / "hr.npy", mmap_mode="r")
        self.lrs = [np.load(folder / f"{m}.npy", mmap_mode="r") for m in self.methods]
        self.names = pd.read_csv(folder / "index.csv")["source"].tolist()

    def __len__(self) -> int:
        return len(self.hr) * len(self.methods)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        number, draw = key
        patch, method = divmod(number, len(self.methods))
        rng = np.random.default_rng([number, draw])
        lr = self.lrs[method][patch]
        y, x = rng.integers(0, lr.shape[0] - self.lr_patch + 1, 2)
        s, side = self.scale, self.lr_patch
        lr = lr[y : y + side, x : x + side]
        hr = self.hr[patch, y * s : (y + side) * s, x * s : (x + side) * s]
        turn = rng.integers(8)
        lr, hr = _turned(lr, turn), _turned(hr, turn)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.names[patch]}


def _turned(array: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight flips and rotations of a square (H, H, C)."""
    array = np.rot90(array, turn % 4)
    return np.ascontiguousarray(array[::-1] if turn >= 4 else array)


class KeySampler(Sampler):
    """Batches of PackedPairs keys for steps start..steps-1, each a pure function of (seed, step).

    Every patch once an epoch, in an order drawn anew for each. A resumed run, or one with other workers, gets
    exactly the batches an unbroken run gets.
    """

    def __init__(self, length: int, *, seed: int, batch: int, steps: int, start: int = 0):
        self.length, self.seed, self.batch, self.steps, self.start = length, seed, batch, steps, start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, None
        for step in range(self.start, self.steps):
            keys = []
            for place in range(step * self.batch, (step + 1) * self.batch):
                if place // self.length != epoch:
                    epoch = place // self.length
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
                keys.append((int(order[place % self.length]), self.seed * 2**32 + epoch))
            yield keys


class PicturePairs(Dataset):
    """Whole pictures of one part of the split: {"lr": (3, h, w), "hr": (3, H, W), "name": str}, in [0, 1].

    `name` has no suffix. LR pictures are those of `method`; HR is cropped to what they were made from.
    """

    def __init__(self, data_dir: Path | str, part: str, *, scale: int, method: str = "bicubic"):
        self.data_dir = Path(data_dir)
        description = read_description(data_dir)
        manifest = pd.read_csv(self.data_dir / "manifest.csv")
        self.hr_root = description["hr_root"]
        wanted = (manifest["scale"] == scale) & (manifest["source"].map(description["split"]) == part)
        self.rows = manifest[wanted & (manifest["method"] == method)].to_dict("records")
        if not self.rows:
            raise ValueError(
                f"no {part} pictures made by {method} at scale {scale} in {data_dir}: 01_data made scales "
                f"{description['scales']} by {', '.join(description['methods'])}"
            )
        self.names = [str(Path(row["source"]).with_suffix("")) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        if index >= len(self):
            raise IndexError(index)  # ends a for loop over the dataset
        row = self.rows[index]
        lr = to_float(read_picture(self.data_dir / row["lr"]).rgb)
        return {"lr": lr, "hr": to_float(read_hr(self.hr_root, row)), "name": self.names[index]}
