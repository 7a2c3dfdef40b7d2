"""The datasets of a data folder: its training patches and its whole pictures; and any other folder's pictures."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch.utils.data import Dataset

from srlib.data.description import read_description
from srlib.data.manifest import METHOD
from srlib.data.packs import read_pack
from srlib.data.pairs import read_pair
from srlib.data.patches import Mixture, OnlinePairs, PackedPairs
from srlib.data.pictures import read_picture, to_float
from srlib.data.resize import crop_to_multiple, downscale_integers
from srlib.data.sources import later_pages, pictures_in
from srlib.files import digest


def training_patches(data_dir: Path | str, *, scale: int, lr_patch: int, methods: Sequence[str] = ()) -> Dataset:
    """The training patches that 01_data prepared: packed, downscaled while training, or mixed with other runs' data.

    lr_patch: side of the crops in LR pixels; methods: LR kernels to use (none: all there are; of given pairs ignored).
    Raises FileNotFoundError or ValueError naming what to do in 01_data, also when another run trains on a picture that
    is held out in this one.
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
    """{id: picture} of the training pictures, and of the held-out ones; ids are a picture's path and its checksum."""
    description = read_description(data_dir)
    text = {"source": str, "source_checksum": str}
    known = pd.read_csv(data_dir / "manifest.csv", usecols=list(text), dtype=text, keep_default_na=False)
    training: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for name, checksum in known.drop_duplicates("source").itertuples(index=False):
        ids = training if description["split"].get(name) == "train" else held_out
        ids[str((Path(description["hr_root"]) / name).resolve())] = name
        if checksum not in ("", "0"):  # of online data there are none
            ids[checksum] = name
    return training, held_out


def find_pack(data_dir: Path | str, scale: int, patch: int) -> Path:
    """Folder of the pack of this scale with the smallest patches of at least `patch` HR pixels.

    Raises ValueError naming the parameter of 01_data to change when there is none.
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


class PicturePairs(Dataset):
    """Whole pictures of one part of the split: items {"lr": (3, h, w), "hr": (3, H, W), "name": str}, in [0, 1].

    HDR pairs are log-mapped. part: "train", "validation" or "test"; method: of the LR pictures ("": bicubic, or the
    first there is). `name` has no suffix, unless two pictures differ in nothing else.
    Raises ValueError when there are none.
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

    @property
    def key(self) -> str:
        """A checksum of what the pictures are."""
        known = ("source", "method", "scale", "source_bytes", "source_checksum", "lr_checksum", "settings")
        return digest(str([row[name] for name in known]) for row in self.rows)

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an LR picture, which is not read."""
        return self.rows[index]["lr_height"], self.rows[index]["lr_width"]

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        lr, hr = self.online(row) if self.online else read_pair(self.data_dir, self.hr_root, row)
        return {"lr": to_float(lr), "hr": to_float(hr), "name": self.names[index]}

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))


class DownscaledPictures(Dataset):
    """The pictures of any folder and its subfolders, downscaled by the protocol's bicubic; items as of PicturePairs.

    Each is cropped to a multiple of `scale`, downscaled and rounded to its own 8 or 16 bits when it is asked for.
    All are decoded once at the beginning, which takes little time compared with a network: those that cannot be read,
    or are too small for SSIM's window of 11 pixels inside the border that the protocol crops, are left out, each with
    a line "name: reason" in `left_out`; `left_alone` is as of sources.Found, with the pages after the first.
    Raises ValueError when none is left.
    """

    def __init__(self, folder: Path | str, *, scale: int):
        self.folder, self.scale, self.names = Path(folder), scale, []
        found = pictures_in(folder)
        self.left_out = list(found.left_out.values())
        least = scale * (2 + math.ceil(11 / scale))  # HR pixels a side: the border, of `scale`, twice and the window
        for name in found.names:
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
        self.left_alone = [*found.left_alone, *later_pages(folder, self.names)]
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
