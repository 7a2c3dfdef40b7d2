"""High dynamic range: linear light from and to files; its LDR picture; its log mapping."""

import math
from pathlib import Path

import cv2
import numpy as np
import tifffile

from srlib.data.gain_maps import read_gain_map
from srlib.files import atomic

SUFFIXES = (".hdr", ".exr", ".npy")  # those of nothing else; .tif is HDR when it holds floats, .jpg with a gain map
TIFF, JPEG = (".tif", ".tiff"), (".jpg", ".jpeg", ".jpe", ".jfif")
PEAK = 1000.0  # cd/m2, of LDR white and of a log-mapped 1
WHITE = 100.0  # cd/m2 of SDR white, in which gain maps count: 1000 cd/m2 are ten times paper white


def is_hdr(path: Path | str) -> bool:
    """Whether a file is HDR by its suffix, or a TIFF of floats. A JPEG with a gain map is an SDR picture, too: ask
    has_gain_map where HDR is wanted of it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TIFF:
        return suffix in SUFFIXES
    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.dtype is not None and file.pages.first.dtype.kind == "f"
    except (OSError, ValueError, IndexError, tifffile.TiffFileError):
        return False


def read_hdr(path: Path | str) -> np.ndarray:
    """Read linear light: (H, W, 3) float32, RGB order, finite and >= 0, in the file's units (cd/m2, nominally 0-PEAK).

    .hdr is Radiance RGBE (its EXPOSURE line, if any, is not applied); .exr has R, G and B or Y alone, of several
    parts the first, and is the data window; .npy is (H, W) or (H, W, 1, 3 or 4) of floats or integers; .tif is of
    floats; .jpg has a gain map, whose SDR white is WHITE. Grey is repeated, alpha dropped. Values below 0 by no more
    than a millionth of the largest, as resampling leaves them, become 0. Raises ValueError naming the file when it is
    truncated, of another format or shape, or holds negative or non-finite values; ImportError for .exr without the
    OpenEXR package.
    """
    suffix = Path(path).suffix.lower()
    readers = {".hdr": _read_radiance, ".exr": _read_exr, ".npy": _read_npy}
    readers |= dict.fromkeys(TIFF, _read_tiff) | dict.fromkeys(JPEG, _read_jpeg)
    if suffix not in readers:
        raise ValueError(f"{path}: {suffix or 'no suffix'} is none of {', '.join(readers)}; convert it to .exr")
    read = readers[suffix]
    try:
        array = read(path)
    except (OSError, ImportError, _Said):
        raise
    except Exception as error:  # broken bytes: cv2.error, RuntimeError, EOFError, MemoryError
        raise ValueError(f"{path} cannot be read ({error}); copy it again or remove it") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}; save it as (height, width, 3) of float32 in RGB order"
        )
    with np.errstate(over="ignore"):  # a float64 too large becomes inf and is refused as such
        light = array[..., :3].astype(np.float32, order="C")
    if broken := int((~np.isfinite(light)).sum()):
        raise ValueError(f"{path} holds {broken} values that are infinite or no number; repair it or remove it")
    negative, lowest = int((light < 0).sum()), float(light.min())
    if lowest < -1e-6 * float(light.max()):
        raise ValueError(
            f"{path} holds {negative} negative values, the lowest {lowest:g}; light is never negative: "
            "set them to 0 in the file, or remove it"
        )
    if negative:
        np.maximum(light, 0, out=light)
    return np.repeat(light, 3, 2) if light.shape[2] == 1 else light


class _Said(ValueError):
    """Says already which file it is about, and what to do."""


def _read_tiff(path: Path | str) -> np.ndarray:
    array = tifffile.imread(path, key=0)
    if array.dtype.kind != "f":
        raise _Said(f"{path} holds {array.dtype}, which is no HDR: give a TIFF of floats, linear light in cd/m2")
    return array


def _read_jpeg(path: Path | str) -> np.ndarray:
    try:
        return read_gain_map(path)[0] * np.float32(WHITE)
    except ValueError as error:
        raise _Said(str(error)) from error


def _read_radiance(path: Path | str) -> np.ndarray:
    content = Path(path).read_bytes()
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content[:2] == b"#?" else None
    if array is None:
        raise ValueError("not a whole Radiance RGBE picture")
    return array[..., ::-1]


def _read_exr(path: Path | str) -> np.ndarray:
    try:
        import OpenEXR  # an option: OpenCV comes without it
    except ImportError:
        raise ImportError(f"{path} needs the OpenEXR package: pip install 'OpenEXR>=3.3'") from None
    with open(path, "rb") as file:  # checked here, as the library would also print its error
        if file.read(4) != b"\x76\x2f\x31\x01":
            raise ValueError("not an OpenEXR picture")
    # separate, as channels of mixed types (half and float) can't come interleaved
    with OpenEXR.File(str(path), separate_channels=True) as file:
        if not file.parts:  # as it is when pixels are missing or cannot be decoded
            raise ValueError("its pixels are cut short or damaged")
        planes = {name: channel.pixels for name, channel in file.channels().items()}
    names = ("Y",) if "Y" in planes and not {"R", "G", "B", "RY", "BY"} & set(planes) else ("R", "G", "B")
    if not set(names) <= set(planes):
        raise ValueError(f"channels {', '.join(planes)}, where R, G and B, or Y alone, are read; save it so")
    return np.stack([planes[name] for name in names], 2)


def _read_npy(path: Path | str) -> np.ndarray:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of several arrays, which numpy.savez writes, where numpy.save's one is read")
    return array


def write_hdr(path: Path | str, light: np.ndarray) -> None:
    """Write linear light (H, W, 3) float32, finite and >= 0, as .hdr (Radiance, 8 bits and a common exponent), .exr
    (floats; needs the OpenEXR package) or .npy, by the suffix. Atomic. Gain-map JPEGs: gain_maps.write_gain_map.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: {suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}")
    if light.ndim != 3 or light.shape[2] != 3 or not np.isfinite(light).all() or light.min() < 0:
        raise ValueError(f"{path}: light must be (H, W, 3), finite and not negative")
    light = np.ascontiguousarray(light, np.float32)
    with atomic(path) as temporary:
        if suffix == ".npy":
            with open(temporary, "wb") as file:
                np.save(file, light)
        elif suffix == ".hdr":
            written, content = cv2.imencode(".hdr", light[..., ::-1])
            if not written:
                raise OSError(f"{path} cannot be encoded")
            temporary.write_bytes(content.tobytes())
        else:
            try:
                import OpenEXR
            except ImportError:
                raise ImportError(f"{path} needs the OpenEXR package: pip install 'OpenEXR>=3.3'") from None
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            with OpenEXR.File(header, {"RGB": light}) as file:
                file.write(str(temporary))


def read_gain(path: Path | str) -> tuple[float, float]:
    """(dgain, gamma) from a text file with the lines `dgain: <number>` and `gamma: <number>`; other lines are ignored.

    Raises ValueError naming file and line when one is missing, given twice, or not a finite number above 0, and for
    values that no exposure has.
    """
    found: dict[str, float] = {}
    lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        key, _, text = (part.strip() for part in line.partition(":"))
        if key not in ("dgain", "gamma"):
            continue
        if key in found:
            raise ValueError(f"{path}, line {number}: {key} is given a second time; keep one")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(f"{path}, line {number}: {key} is {text!r}; write a number above 0, as {key}: 2.2")
        found[key] = value
    for key in ("dgain", "gamma"):
        if key not in found:
            raise ValueError(f"{path} has no line for {key}; add one, as {key}: 2.2")
    check_gain(found["dgain"], found["gamma"], path)
    return found["dgain"], found["gamma"]


def check_gain(dgain: float, gamma: float, where: object) -> None:
    """Raise ValueError, naming `where` they are from, for values that no exposure has."""
    for name, value, least, most in (("dgain", dgain, 1e-6, 1e6), ("gamma", gamma, 0.1, 10)):
        if not least <= value <= most:
            raise ValueError(f"{where}: {name} {value:g} is not from {least:g} to {most:g}: check it")


def ldr_of(hdr: np.ndarray, dgain: float, gamma: float) -> np.ndarray:
    """The LDR picture of a pair: clip(hdr / PEAK * dgain, 0, 1)^(1 / gamma), float32 in [0, 1].

    hdr: (H, W, 3), linear, in cd/m2.
    """
    return (np.clip(hdr / PEAK * dgain, 0, 1) ** (1 / gamma)).astype(np.float32)


def linearised(ldr: np.ndarray, dgain: float, gamma: float) -> np.ndarray:
    """The inverse of ldr_of, where that did not clip: clip(ldr^gamma / dgain, 0, 1) * PEAK, float32 in [0, PEAK].

    ldr: (H, W, 3) in [0, 1].
    """
    return (np.clip(ldr**gamma / dgain, 0, 1) * PEAK).astype(np.float32)


def log_mapped(linear: np.ndarray) -> np.ndarray:
    """log(1 + x) / log(1 + PEAK), float32: [0, PEAK] to [0, 1]; brighter light lies above 1."""
    return (np.log1p(linear) / math.log1p(PEAK)).astype(np.float32)


def log_unmapped(mapped: np.ndarray) -> np.ndarray:
    """The inverse of log_mapped: [0, 1] to [0, PEAK], float32."""
    return np.expm1(mapped * math.log1p(PEAK)).astype(np.float32)
