"""LDR exposures of HDR pictures: pairs to learn LDR-to-HDR from, out of HDR files of any folder or panoramas at hand.

Each exposure is what ldr_of makes of the light, with a gain and a gamma drawn by the picture's name, in 8 bits. HDR
files hold relative light: in what unit it is cd/m2 is drawn, too, so that a drawn share of the pixels is clipped.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from srlib.data.copies import copies_among
from srlib.data.gain_maps import has_gain_map
from srlib.data.hdr import JPEG, PEAK, SUFFIXES, TIFF, is_hdr, ldr_of, read_hdr, write_hdr
from srlib.data.listing import find_pictures
from srlib.data.pictures import write_png
from srlib.data.sources import made_of, split_pictures
from srlib.files import atomic, stamp

# Of the ten panoramas. Those of which 8 bits are spread over the widest range are for training. potsdamer_platz is left
# out: a third of it is cut off in the file itself.
PANORAMAS = {"validation": ["forest_slope_1k"], "test": ["kiara_1_dawn_1k", "lebombo_1k"]}
_UNUSABLE = ("potsdamer_platz_1k",)
_CLIPPED = (0.05, 0.4)  # lowest and highest share of the pixels that an exposure clips
_DGAIN = (2.5, 10.0)  # LDR white is at 400 to 100 cd/m2
_GAMMA = (1.8, 2.6)


def _drawn_exposure(light: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """(light in cd/m2, dgain, gamma) of relative `light` (H, W, 3): a drawn share of the pixels is above LDR white."""
    share, gamma = rng.uniform(*_CLIPPED), round(rng.uniform(*_GAMMA), 6)
    dgain = round(float(np.exp(rng.uniform(*np.log(_DGAIN)))), 6)
    clipped = float(np.quantile(light.max(2), 1 - share)) or float(light.max())
    return (light * (PEAK / dgain / clipped)).astype(np.float32), dgain, gamma


def panoramas() -> Path:
    """The folder of ten panoramas (Poly Haven, CC0) inside the package viser, which is not imported.

    Raises ImportError where it is not installed.
    """
    found = find_spec("viser")
    places = list(found.submodule_search_locations or ()) if found else []
    folder = Path(places[0]) / "_assets" / "hdri" if places else None
    if folder is None or not folder.is_dir():
        raise ImportError("the embedded panoramas lie in the package viser: pip install --no-deps viser==1.1.1")
    return folder


def exposed_pairs(
    source: Path | str, folder: Path | str, *, exposures: int, size: int = 0, fraction: float = 0.15, seed: int = 0
) -> Mapping[str, str]:
    """Write pairs of LDR and HDR as `prepare_pairs` reads them: train, validation and test, each with input/ (PNG and
    the text with dgain and gamma) and gt/ (.npy), with `exposures` of each picture. Files that are there are kept,
    unless they were made of other pictures or in another way (sources.made_of).

    source: a folder of HDR pictures (.hdr, .exr, .npy, TIFF of floats, JPEG with a gain map) with its subfolders, or
    "embedded". size: pictures with a longer side are reduced to it, by averaging light; 0 keeps them. fraction: share
    of the pictures for validation, and for test. Returns {picture: why it was left out}.
    Raises ValueError when there is none.
    """
    embedded = str(source) == "embedded"
    root = panoramas() if embedded else Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder")
    names = [path.relative_to(root).as_posix() for path in _hdr_files(root)]
    names = [name for name in names if not (embedded and Path(name).stem in _UNUSABLE)]
    if not names:
        raise ValueError(
            f"{root} holds no HDR pictures ({', '.join(SUFFIXES)}, TIFFs of floats, JPEGs with a gain map)"
        )
    by_name: Mapping = PANORAMAS if embedded else {"validation": fraction, "test": fraction}
    split = split_pictures(names, **by_name, copies=copies_among(root, names), seed=seed)
    left_out: dict[str, str] = {}
    flat: dict[str, str] = {}
    for name in names:
        stem = Path(name).with_suffix("").as_posix().replace("/", "__")
        if (other := flat.setdefault(stem, name)) != name:
            left_out[name] = f"its exposures would be called as those of {other}: rename it"
    targets = {name: _targets(split[name], stem, exposures) for stem, name in flat.items()}
    what = {name: f"{name} {stamp(root / name)} {size} {seed}" for name in targets}
    made_of(Path(folder), {file: what[name] for name in targets for files in targets[name] for file in files})
    for name in targets:
        files = [[Path(folder) / file for file in each] for each in targets[name]]
        try:
            _expose(root / name, files, name, size, seed)
        except (ValueError, OSError, ImportError) as error:
            left_out[name] = str(error)
    return left_out


def _hdr_files(root: Path) -> Iterator[Path]:
    for path in find_pictures(root, SUFFIXES + TIFF + JPEG).files:
        if is_hdr(path) or (path.suffix.lower() in JPEG and has_gain_map(path)):
            yield path


def _targets(part: str, stem: str, exposures: int) -> list[list[str]]:
    """Of each exposure its LDR picture, its text and its light."""
    ends = (("input", ".png"), ("input", ".txt"), ("gt", ".npy"))
    return [[f"{part}/{side}/{stem}_{i}{end}" for side, end in ends] for i in range(exposures)]


def _expose(path: Path, targets: list[list[Path]], name: str, size: int, seed: int) -> None:
    if all(file.is_file() for files in targets for file in files):
        return
    light = read_hdr(path)
    if size and max(light.shape[:2]) > size:
        height, width = (max(round(side * size / max(light.shape[:2])), 1) for side in light.shape[:2])
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
    if not light.max() > 0:
        raise ValueError(f"{name} is black: there is nothing to expose")
    for number, (picture, text, truth) in enumerate(targets):
        scaled, dgain, gamma = _drawn_exposure(light, np.random.default_rng([seed, number, *name.encode()]))
        write_hdr(truth, scaled)
        with atomic(text) as temporary:
            temporary.write_text(f"dgain: {dgain}\ngamma: {gamma}\n")
        ldr = ldr_of(scaled, dgain, gamma)
        write_png(picture, np.round(ldr * 255).astype(np.uint8))
