"""Given pairs: folders of LR and HR pictures, or of LDR and HDR ones, checked before training.

folder/train/input/sub/a.png    folder/train/gt/sub/a.png       LR and HR of one name; suffixes may differ
folder/test/input/b.png         folder/test/gt/b.png            never trained on; likewise validation/, if there is one
folder/train/input/c.png        folder/train/gt/c.exr           HDR: gt is .hdr, .exr, .npy or a TIFF of floats; c.txt,
folder/train/input/c.txt                                        beside either of the two, gives dgain and gamma
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srlib.data import hdr
from srlib.data.copies import copies_among
from srlib.data.listing import Listing, find_pictures
from srlib.data.manifest import COLUMNS, METHOD
from srlib.data.packs import Pack, PackSettings, PictureSlots
from srlib.data.passes import Made, Pass, Result
from srlib.data.pictures import SUFFIXES, picture_size, read_picture, to_float
from srlib.data.sources import later_pages, split_pictures, unusable_name
from srlib.files import digest, printable, stamp

_PARTS = ("train", "validation", "test")


def prepare_pairs(
    folder: Path | str,
    output: Path | str,
    *,
    scale: int,
    validation: float = 0.15,
    packs: Sequence[PackSettings] = (),
    jobs: int = 1,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Result, dict[str, str]]:
    """Check the pairs in `folder`, list them in output/manifest.csv and pack the training ones; makes no pictures.

    scale: HR side / LR side, 1 where both have one size; validation: share of the training pairs that is taken for
    validation where there is no folder validation/, and for test where there is no test/; packs, jobs, overwrite: as
    in pregenerate. Returns the Result and the split. A pair that cannot be decoded is recorded as a failure.
    Raises FileNotFoundError for missing folders; ValueError listing every name without partner and every wrong size.
    """
    folder, output = Path(folder).absolute(), Path(output).absolute()
    found, left_alone = _matched(folder)
    left_alone += later_pages(folder, [name for pair in found.items() for name in pair])
    left_out = _copies_held_out(folder, list(found))
    found = {name: lr for name, lr in found.items() if name not in left_out}
    if not any(_part(name) == "train" for name in found):
        raise ValueError(f"no training pair is left: {'; '.join([*left_out.values()][:3]) or 'train/ is empty'}")
    if any(hdr.is_hdr(folder / n) for n in found):
        for settings in packs:
            if not settings.dtype.startswith("float"):
                raise ValueError(f"a pack of {settings.dtype} cannot hold HDR: set pack_dtype to float32")
    sizes = _checked_sizes(folder, found, scale)
    split = _split(folder, list(found), validation, seed)
    training = {n: size for n, size in sizes.items() if split[n] == "train"}
    marks = {n: _marks(folder / found[n], folder / n) for n in training}
    planned = [
        Pack(output, training, scale=scale, methods=[METHOD], settings=settings, marks=marks) for settings in packs
    ]
    tasks = [PairTask(folder, n, lr, scale, _key(folder, n, lr, scale), overwrite) for n, lr in found.items()]
    run = Pass(output, planned, jobs, overwrite, title="check pairs", progress=progress)
    return run.run(tasks, sources=set(found), key=None, left_out=left_out, left_alone=left_alone), split


@dataclass(frozen=True)
class PairTask:
    """One given pair and what is to be made of it; a passes.Task.

    name, lr_name: of its HR and LR pictures, relative to the folder; key: checksum of the settings, and of the sizes
    and times of the files; overwrite: check again what is up to date.
    """

    folder: Path
    name: str
    lr_name: str
    scale: int
    key: str
    overwrite: bool

    def up_to_date(self, rows: list[dict]) -> bool:
        """Whether the pair has been checked and its files have not changed since, by sizes and times."""
        return not self.overwrite and bool(rows) and rows[0]["settings"] == self.key

    def make(self, rows: list[dict], waiting: Sequence[PictureSlots]) -> Made:
        """Decode the pair, check it and cut its patches. rows: not looked at; waiting: packs that lack its patches.

        A pair that cannot be used is returned with the reason.
        """
        start, hr_path, lr_path = time.perf_counter(), self.folder / self.name, self.folder / self.lr_name
        try:
            lr, gt = _decoded(lr_path, hr_path, given=True)
            if gt.shape[:2] != (lr.shape[0] * self.scale, lr.shape[1] * self.scale):
                raise ValueError(_wrong_size(self.name, gt.shape[:2], lr.shape[:2], self.scale))
            lr_checksum, checksum = (digest(path.read_bytes()) for path in (lr_path, hr_path))
            (lr_bytes, _), source = stamp(lr_path), stamp(hr_path)
        except (ValueError, OSError, ImportError) as error:
            return Made(self.name, reason=str(error))
        values = [self.name, self.lr_name, self.scale, METHOD, 0, 0, *gt.shape[:2], *lr.shape[:2]]
        values += [*source, checksum, lr_bytes, lr_checksum, 0, "", self.key]
        row = dict(zip(COLUMNS, values, strict=True))
        try:
            patches = {one.pack: one.put(gt, {METHOD: lr}, [row]) for one in waiting}
        except ValueError as error:  # a full disk, on the other hand, is no fault of the pair
            return Made(self.name, reason=f"{self.name}: {error}")
        return Made(self.name, [row], 1, time.perf_counter() - start, patches)


def read_pair(data_dir: Path | str, hr_root: Path | str, row: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """lr (h, w, 3) and hr (H, W, 3) of a row of the manifest: uint8 or uint16, of HDR pairs both log-mapped float32.

    HR is cropped to what the LR picture was made from. LR pictures are read from the data folder, given ones from
    `hr_root`, as the HR ones.
    """
    lr_root = hr_root if row["method"] == METHOD else data_dir
    lr, gt = _decoded(Path(lr_root) / row["lr"], Path(hr_root) / row["source"])
    top, left = row["hr_top"], row["hr_left"]
    return lr, gt[top : top + row["hr_height"], left : left + row["hr_width"]]


def _decoded(lr_path: Path, gt_path: Path, *, given: bool = False) -> tuple[np.ndarray, np.ndarray]:
    lr = read_picture(lr_path)
    if hdr.is_hdr(gt_path):
        gain = hdr.read_gain(_gain_file(lr_path, gt_path))
        ldr = to_float(lr.rgb).permute(1, 2, 0).numpy()  # (h, w, 3) in [0, 1]
        return hdr.log_mapped(hdr.linearised(ldr, *gain)), hdr.log_mapped(hdr.read_hdr(gt_path))
    gt = read_picture(gt_path)
    if lr.grey != gt.grey and given:
        one, other = (lr_path, gt_path) if lr.grey else (gt_path, lr_path)
        raise ValueError(f"{one} is grey and {other} is not: save both alike")
    return lr.rgb, gt.rgb


def _gain_file(lr_path: Path, gt_path: Path) -> Path:
    for path in (lr_path.with_suffix(".txt"), gt_path.with_suffix(".txt")):
        if path.is_file():
            return path
    raise ValueError(f"{lr_path} has no {lr_path.stem}.txt beside it: write its dgain and gamma there")


def _marks(lr_path: Path, gt_path: Path) -> list:
    """What changes when a pair is replaced: the sizes of both files, and of an HDR pair the text with its gain."""
    marks: list = [stamp(lr_path)[0], stamp(gt_path)[0]]
    if hdr.is_hdr(gt_path):
        with suppress(ValueError, OSError):  # PairTask.make will say so
            marks.append(_gain_file(lr_path, gt_path).read_text())
    return marks


def _matched(folder: Path) -> tuple[dict[str, str], list[str]]:
    """gt -> input of every pair, relative to the folder, sorted; and the hidden or linked folders not looked into.

    ValueError naming whatever has no partner or cannot be read.
    """
    if not (folder / "train" / "input").is_dir() or not (folder / "train" / "gt").is_dir():
        raise FileNotFoundError(f"{folder} has no train/input and train/gt: put LR and HR pictures of one name there")
    pairs: dict[str, str] = {}
    complaints: list[str] = []
    left_alone: list[str] = []
    for part in (p for p in _PARTS if (folder / p).is_dir()):
        sides = {}
        for side, suffixes in (("input", SUFFIXES), ("gt", SUFFIXES + hdr.SUFFIXES)):
            root = folder / part / side
            listing = find_pictures(root, suffixes) if root.is_dir() else Listing()
            left_alone += [printable(sentence) for sentence in listing.left_alone]
            complaints += [printable(f"{p.relative_to(folder)} {why}") for p, why in listing.troubles.items()]
            stems = [p.relative_to(root).with_suffix("").as_posix() for p in listing.files]
            names = [p.relative_to(folder).as_posix() for p in listing.files]
            sides[side] = dict(zip(stems, names, strict=True))
            complaints += filter(None, map(unusable_name, names))
            complaints += [
                f"{part}/{side}/{stem} is there {n} times: keep one" for stem, n in Counter(stems).items() if n > 1
            ]
        for side, other in (("input", "gt"), ("gt", "input")):
            alone = [sides[side][stem] for stem in sorted(sides[side].keys() - sides[other].keys())]
            complaints += [f"{name} has no partner in {part}/{other}: add it or remove this one" for name in alone]
        pairs |= {sides["gt"][stem]: sides["input"][stem] for stem in sides["gt"].keys() & sides["input"].keys()}
    if not pairs and not complaints:
        raise FileNotFoundError(f"{folder} holds no pairs of pictures ({', '.join(SUFFIXES + hdr.SUFFIXES)})")
    _refuse(complaints)
    return dict(sorted(pairs.items())), left_alone


def _checked_sizes(folder: Path, found: Mapping[str, str], scale: int) -> dict[str, tuple[int, int]]:
    """(H, W) of every gt, by the headers; an HDR file's by its LR picture. ValueError naming all that do not fit.

    A file without readable header is left to PairTask.make, which says what is wrong with it.
    """
    sizes, complaints = {}, []
    for name, lr_name in found.items():
        try:
            lr = picture_size(folder / lr_name)
            upscaled = (lr[0] * scale, lr[1] * scale)
            gt = upscaled if hdr.is_hdr(folder / name) else picture_size(folder / name)
        except (ValueError, OSError):
            continue
        if gt != upscaled:
            complaints.append(_wrong_size(name, gt, lr, scale))
        sizes[name] = gt
    _refuse(complaints)
    return sizes


def _wrong_size(name: str, gt: tuple[int, int], lr: tuple[int, int], scale: int) -> str:
    ratio = gt[0] // lr[0]
    fits = ratio >= 1 and gt == (lr[0] * ratio, lr[1] * ratio)
    remedy = f"set the scale to {ratio}" if fits else "crop or remove the pair"
    return f"{name} is {gt[1]}x{gt[0]}, not {scale} times its input's {lr[1]}x{lr[0]}: {remedy}"


def _refuse(complaints: list[str]) -> None:
    if complaints:
        more = f"\n... and {len(complaints) - 20} more" if len(complaints) > 20 else ""
        raise ValueError(f"{len(complaints)} pairs do not fit:\n" + "\n".join(complaints[:20]) + more)


def _copies_held_out(folder: Path, names: list[str]) -> dict[str, str]:
    """gt -> why it is left out: it shows what a picture of another part shows. Test pictures stay, then validation."""
    left_out = {}
    for group in copies_among(folder, names):
        kept = min(group, key=lambda n: ("test", "validation", "train").index(_part(n)))
        for name in group:
            if _part(name) != _part(kept):
                left_out[name] = f"{name} is a copy of {kept}: left out, so that no picture is in two parts"
    return left_out


def _split(folder: Path, names: list[str], validation: float, seed: int) -> dict[str, str]:
    """By folder; parts that have no folder are drawn from train/."""
    parts = {n: _part(n) for n in names}
    missing = {part: 0.0 if part in parts.values() else validation for part in ("validation", "test")}
    training = [n for n in names if parts[n] == "train"]
    return parts | split_pictures(training, **missing, copies=copies_among(folder, training), seed=seed)


def _part(name: str) -> str:
    return name.split("/", 1)[0]


def _key(folder: Path, name: str, lr_name: str, scale: int) -> str:
    """Checksum of the scale and of the sizes and times of a pair's files."""
    files = [folder / name, folder / lr_name]
    files += [f.with_suffix(".txt") for f in files if f.with_suffix(".txt").is_file()]
    return digest([f"{scale} {METHOD}", *(f"{f} {stamp(f)}" for f in files)])[:16]
