"""Pre-generation and loading compared with plain scripts, and runs that are killed and resumed.

    python benchmarks/data.py                    everything, on the embedded pictures
    python benchmarks/data.py speed loading      some of: exact speed processes loading kills dask
    python benchmarks/data.py --pictures FOLDER  on pictures of yours
    python benchmarks/data.py --formats FOLDER   what becomes of each file of a folder

Every ratio compares two things that were measured in turns in the same run. Files are written to --work.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image

from srlib.data.datasets import find_pack
from srlib.data.description import write_description
from srlib.data.packs import PackSettings
from srlib.data.parallel import cluster, one_thread
from srlib.data.patches import OnlinePairs, PackedPairs
from srlib.data.pictures import read_picture, write_png
from srlib.data.pregenerate import Recipe, pregenerate
from srlib.data.resize import crop_to_multiple, downscale, downscale_integers
from srlib.data.sources import embedded_pictures, pictures_in

SCALES = (2, 3, 4)


def cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def reference(array: np.ndarray, scale: int) -> np.ndarray:
    """MATLAB's imresize by 1/scale of (H, W, C), pixel by pixel, in float64."""
    for axis in (0, 1):
        array = np.moveaxis(array, axis, 0)
        n, out = len(array), []
        for centre in (np.arange(n // scale) + 0.5) * scale - 0.5:
            taps = np.arange(np.floor(centre - 2 * scale), np.ceil(centre + 2 * scale) + 1).astype(int)
            weights = cubic((taps - centre) / scale)
            index = taps % (2 * n)
            index = np.where(index < n, index, 2 * n - 1 - index)
            out.append(np.tensordot(weights / weights.sum(), array[index], 1))
        array = np.moveaxis(np.stack(out), 0, axis)
    return array.clip(0, 255)


def exact(hr: Path) -> None:
    print("\nexact: bicubic against a float64 reference, largest difference in levels of 255\n")
    picture = read_picture(hr / pictures_in(hr).names[0]).rgb
    rows = []
    for scale in SCALES:
        array = crop_to_multiple(picture, scale)
        expected = reference(array.astype(np.float64), scale)
        height, width = expected.shape[:2]
        planes = torch.from_numpy(array).permute(2, 0, 1)
        found = {
            "ours, before rounding": downscale(planes.float() / 255, scale).permute(1, 2, 0).numpy() * 255.0,
            "ours, 8 bits": downscale_integers(array, scale),
            "torch uint8": torch.nn.functional.interpolate(
                planes[None], size=(height, width), mode="bicubic", antialias=True
            )[0]
            .permute(1, 2, 0)
            .numpy(),
            "Pillow": np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC)),
            "OpenCV": cv2.resize(array, (width, height), interpolation=cv2.INTER_CUBIC),
        }
        rows += [(f"x{scale}", who, np.abs(values - expected).max()) for who, values in found.items()]
    table = pd.DataFrame(rows, columns=["scale", "resize", "difference"])
    print(table.pivot(index="resize", columns="scale", values="difference").round(6).to_string())


def plain_script(hr: Path, out: Path, names: list[str], methods: list[str], upscaled: bool) -> None:
    """What one writes in ten minutes: Pillow's own resize, PNG at level 6, one picture after the other."""
    filters = {m: getattr(Image.Resampling, m.upper()) for m in methods}
    for name in names:
        with Image.open(hr / name) as file:
            image = file.convert("RGB")
        for scale in SCALES:
            width, height = (side - side % scale for side in image.size)
            cropped = image.crop((0, 0, width, height))
            for method in methods:
                target = out / f"{scale}" / method / Path(name).with_suffix(".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                lr = cropped.resize((width // scale, height // scale), filters[method])
                lr.save(target, compress_level=6)
                if upscaled:
                    lr.resize((width, height), Image.Resampling.BICUBIC).save(
                        target.with_suffix(".up.png"), compress_level=6
                    )


def as_png(hr: Path, folder: Path, repeat: int = 1) -> Path:
    """The 8-bit pictures as PNG written by Pillow, so that both sides decode the same files."""
    for name in pictures_in(hr).names:
        picture = read_picture(hr / name)
        for number in range(repeat if picture.rgb.dtype == np.uint8 else 0):
            target = folder / f"{number}" / Path(name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.rgb).save(target)
    return folder


def timed(call, *arguments, **named) -> float:
    start = time.perf_counter()
    call(*arguments, **named)
    return time.perf_counter() - start


def speed(hr: Path, work: Path, rounds: int) -> None:
    source = as_png(hr, work / "png")
    names = pictures_in(source).names
    pixels = sum(np.prod(read_picture(source / n).rgb.shape[:2]) for n in names) / 1e6
    print(f"\nspeed: scales 2 3 4 of {len(names)} pictures, {pixels:.1f} megapixels, one process, {rounds} rounds\n")
    rows = []
    for methods in (["bicubic"], ["bilinear", "bicubic", "lanczos"]):
        for upscaled in (False, True):
            seconds, bytes_ = {"plain": [], "ours": []}, {}
            for _ in range(rounds):
                shutil.rmtree(work / "out", ignore_errors=True)
                with one_thread():
                    seconds["plain"].append(timed(plain_script, source, work / "out", names, methods, upscaled))
                bytes_["plain"] = sum(p.stat().st_size for p in (work / "out").rglob("*.png"))
                shutil.rmtree(work / "out")
                recipe = Recipe(SCALES, methods, upscaled=upscaled)
                seconds["ours"].append(timed(pregenerate, source, work / "out", recipe, progress=False))
                bytes_["ours"] = sum(p.stat().st_size for p in (work / "out").rglob("*.png"))
            plain, ours = (np.median(seconds[who]) * 1000 / len(names) for who in ("plain", "ours"))
            rows.append((", ".join(methods), upscaled, plain, ours, plain / ours, bytes_["ours"] / bytes_["plain"]))
    columns = [
        "methods",
        "upscaled too",
        "plain script, ms a picture",
        "ours, ms a picture",
        "plain / ours",
        "our bytes",
    ]
    print(pd.DataFrame(rows, columns=columns).round(2).to_string(index=False))


def processes(hr: Path, work: Path, rounds: int) -> None:
    source = as_png(hr, work / "many", repeat=32)
    print(f"\nprocesses: scales 2 3 4, bicubic, LR only, {len(pictures_in(source).names)} pictures, {rounds} rounds\n")
    recipe = Recipe(SCALES, ["bicubic"])
    pregenerate(source, work / "out", recipe, jobs=2, progress=False)  # starts the workers, as in a long run
    seconds = {1: [], 2: []}
    for _ in range(rounds):
        for jobs in seconds:
            shutil.rmtree(work / "out", ignore_errors=True)
            seconds[jobs].append(timed(pregenerate, source, work / "out", recipe, jobs=jobs, progress=False))
    one, two = (float(np.median(seconds[jobs])) for jobs in (1, 2))
    print(f"one process {one:.2f} s, two {two:.2f} s: {one / two:.2f} x")
    shutil.rmtree(source)


class PlainPairs:
    """Online degradation as one writes it in ten minutes: Pillow decodes, crops, downscales."""

    def __init__(self, folder: Path, patch: int):
        self.paths, self.patch = [folder / n for n in pictures_in(folder).names], patch

    def __len__(self) -> int:
        return len(self.paths)

    def levels(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        rng = random.Random(key[1])
        with Image.open(self.paths[key[0]]) as file:
            image = file.convert("RGB")
        x, y = (rng.randrange(side - self.patch + 1) for side in image.size)
        hr = image.crop((x, y, x + self.patch, y + self.patch))
        return np.asarray(hr.resize((self.patch // 2, self.patch // 2), Image.Resampling.BICUBIC)), np.asarray(hr)


def loading(hr: Path, work: Path, patch: int, seconds: float) -> None:
    print(f"\nloading: one worker, HR patches of {patch} and their LR patches at x2, uint8\n")
    source, out = as_png(hr, work / "png"), work / "loading"
    split = dict.fromkeys(pictures_in(source).names, "train")
    options = {"split": split, "packs": [PackSettings(patch=patch)], "jobs": 2, "progress": False}
    pregenerate(source, out, Recipe(methods=["bicubic"]), **options)
    write_description(out, hr_root=source, split=split, scales=[2], methods=["bicubic"])
    packed = PackedPairs(find_pack(out, 2, patch))
    online, plain = OnlinePairs(out, scale=2, lr_patch=patch // 2), PlainPairs(source, patch)
    rng = np.random.default_rng(0)

    def rate(get, length: int) -> float:
        """Patches a second, in random order."""
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for number in rng.integers(length, size=20).tolist():
                get((number, count))
                count += 1
        return count / (time.perf_counter() - start)

    rate(packed.levels, len(packed))  # so that the file's pages are in memory, as after the first epoch
    large = np.zeros(2**28, np.uint8)
    copy = large.copy()
    with one_thread():
        limit = len(large) / min(timed(np.copyto, copy, large) for _ in range(5)) / 1e9
        rates = {
            "online, plain: Pillow": rate(plain.levels, len(plain)),
            "online, ours": rate(online.levels, len(online)),
            "packed, float32 tensors": rate(packed.__getitem__, len(packed)),
            "packed, uint8": rate(packed.levels, len(packed)),
        }
    size = patch**2 * 3 * (1 + 1 / 4) / 1e9  # GB of a pair
    slowest = rates["online, plain: Pillow"]
    rows = [(who, r, r * size, r / slowest) for who, r in rates.items()]
    columns = ["loader", "patches a second", "GB/s of uint8", "x plain online"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="{:.3g}".format))
    print(f"\nthis machine copies memory at {limit:.1f} GB/s (one thread, 256 MiB)")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the statistics, which hold times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "processing_stats.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def many_pictures(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        write_png(folder / f"{number % 7}" / f"{number:04d}.png", rng.integers(0, 256, (240, 200, 3), dtype=np.uint8))
    return folder


def kills(work: Path, count: int) -> None:
    source, out = many_pictures(work / "kills", 600), work / "killed"
    call = [sys.executable, "-c", _PACKING, str(source)]
    start = time.perf_counter()
    subprocess.run([*call, str(work / "whole")], check=True)
    whole = time.perf_counter() - start
    print(f"\nkills: a run of {whole:.1f} s over 600 pictures, two processes, with packs, is killed {count} times\n")
    rng, twice, left = random.Random(0), 0, []
    for _ in range(count):
        before = {p: p.stat().st_mtime_ns for p in recorded(out)}
        run = subprocess.Popen([*call, str(out)], start_new_session=True)
        while len(recorded(out)) <= len(before) and run.poll() is None:
            time.sleep(0.02)  # until something is made: most of so short a run is starting Python
        time.sleep(rng.random() * 0.5)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        twice += sum(p.stat().st_mtime_ns != then for p, then in before.items())
        left.append(len(recorded(out)))
    before = {p: p.stat().st_mtime_ns for p in recorded(out)}
    subprocess.run([*call, str(out)], check=True)
    twice += sum(p.stat().st_mtime_ns != then for p, then in before.items())
    same = tree(out) == tree(work / "whole")
    print(f"LR pictures recorded after each kill: {left}")
    print(f"final tree identical to the undisturbed one: {same}; recorded pictures written a second time: {twice}")


_PACKING = """
import sys
from srlib.data.pregenerate import Recipe, pregenerate
from srlib.data.packs import PackSettings
from srlib.data.sources import pictures_in
split = dict.fromkeys(pictures_in(sys.argv[1]).names, "train")
recipe = Recipe((2, 3), upscaled=True)
pregenerate(sys.argv[1], sys.argv[2], recipe, split=split, packs=[PackSettings(patch=48)], jobs=2, progress=False)
"""


def recorded(out: Path) -> list[Path]:
    """LR pictures of the journal's whole lines, or of the manifest when the run had time to end."""
    journal, manifest = out / "manifest.journal", out / "manifest.csv"
    if journal.is_dir():
        lines = []
        for path in sorted(journal.iterdir()):
            with suppress(FileNotFoundError):  # a run that begins gathers the files of the one before
                lines += path.read_bytes().split(b"\n")[:-1]
        return [out / row["lr"] for line in lines for row in json.loads(line)["rows"]]
    return [out / lr for lr in pd.read_csv(manifest)["lr"]] if manifest.is_file() else []


def dask(work: Path) -> None:
    print("\ndask: a LocalCluster of two workers against one process\n")
    source = many_pictures(work / "dask", 60)
    split = dict.fromkeys(pictures_in(source).names, "train")
    recipe, options = Recipe((2, 3)), {"split": split, "packs": [PackSettings(patch=48)], "progress": False}
    pregenerate(source, work / "alone", recipe, **options)
    with cluster("local", 2):
        pregenerate(source, work / "cluster", recipe, **options)
    print(f"tree identical: {tree(work / 'cluster') == tree(work / 'alone')}")


def formats(folder: Path, work: Path) -> None:
    result = pregenerate(folder, work / "formats", Recipe(methods=["bicubic"]), progress=False)
    reasons = {f["path"]: f["reason"] for f in result.stats["failures"]}
    made = result.manifest.set_index("source")
    for name in pictures_in(folder).names:
        if name in reasons:
            print(f"{name}: refused: {reasons[name]}")
        else:
            row, picture = made.loc[name], read_picture(folder / name)
            kind = f"{picture.rgb.dtype}, {'grey' if picture.grey else 'colour'}"
            kind += ", alpha kept aside" if picture.alpha is not None else ""
            print(f"{name}: {kind}, HR {row.hr_width}x{row.hr_height}, LR {row.lr_width}x{row.lr_height}")


def main() -> None:
    parts = ["exact", "speed", "processes", "loading", "kills", "dask"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=parts, help=" ".join(parts))
    parser.add_argument("--pictures", type=Path, help="folder of HR pictures; default: the embedded ones")
    parser.add_argument("--formats", type=Path, help="only say what becomes of each file of this folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each loader is watched")
    parser.add_argument("--work", type=Path, help="folder for what is written; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        if given.formats:
            return formats(given.formats, work)
        hr = given.pictures or work / "hr"
        if not given.pictures:
            embedded_pictures(hr)
        calls = {
            "exact": lambda: exact(hr),
            "speed": lambda: speed(hr, work, given.rounds),
            "processes": lambda: processes(hr, work, given.rounds),
            "loading": lambda: loading(hr, work, given.patch, given.seconds),
            "kills": lambda: kills(work, given.kills),
            "dask": lambda: dask(work),
        }
        if unknown := set(given.parts) - set(calls):
            parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(calls)}")
        for part in given.parts:
            calls[part]()


if __name__ == "__main__":
    main()
