"""What a file given as a model is, by its content and not by its name: weights that are read, or what else."""

import json
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

_SAFE = "give the .safetensors or .pth it was exported from"
_AGAIN = "download or copy it again"
_UNPACK = "unpack it and give the .safetensors or .pth in it"
_MODEL = "give a model, .safetensors or .pth"
_MODELS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

# What begins with these bytes, at an offset, is something else.
_SIGNATURES: list[tuple[int, bytes, str, str]] = [
    (0, b"GGUF", "a GGUF model", _SAFE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as a Keras model", _SAFE),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", _MODEL),
    (4, b"TFL3", "a TensorFlow Lite model", _SAFE),
    (0, b"ptrt", "a TensorRT engine", _SAFE),
    (0, b"ftrt", "a TensorRT engine", _SAFE),
    (4, b"ORTM", "an ONNX Runtime model", _SAFE),
    (0, b"7767517\n", "an NCNN model's description (.param)", _SAFE),
    (0, b"7767517\r\n", "an NCNN model's description (.param)", _SAFE),
    (0, b"\xdd\x85\x76\x00", "an NCNN model's description (.param.bin)", _SAFE),
    (0, b"\x47\x6b\x30\x01", "an NCNN model's weights (.bin)", _SAFE),
    (0, b"\x4b\x38\x0d\x00", "an NCNN model's weights (.bin)", _SAFE),
    (0, b"\x89PNG\r\n\x1a\n", "a picture (PNG)", _MODEL),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", _MODEL),
    (0, b"GIF8", "a picture (GIF)", _MODEL),
    (8, b"WEBP", "a picture (WebP)", _MODEL),
    (0, b"II*\x00", "a picture (TIFF)", _MODEL),
    (0, b"MM\x00*", "a picture (TIFF)", _MODEL),
    (0, b"II+\x00", "a picture (TIFF)", _MODEL),
    (0, b"MM\x00+", "a picture (TIFF)", _MODEL),
    (0, b"8BPS", "a picture (Photoshop)", _MODEL),
    (0, b"v/1\x01", "a picture (OpenEXR)", _MODEL),
    (0, b"\xff\x0a", "a picture (JPEG XL)", _MODEL),
    (4, b"JXL ", "a picture (JPEG XL)", _MODEL),
    (4, b"ftypavif", "a picture (AVIF)", _MODEL),
    (4, b"ftyphei", "a picture (HEIF)", _MODEL),
    (4, b"ftyp", "a video", _MODEL),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _MODEL),
    (0, b"%PDF", "a PDF document", _MODEL),
    (0, b"\x1f\x8b", "an archive (gzip)", _UNPACK),
    (0, b"BZh", "an archive (bzip2)", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an archive (xz)", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z)", _UNPACK),
    (0, b"Rar!\x1a\x07", "an archive (RAR)", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "an archive (Zstandard)", _UNPACK),
    (257, b"ustar", "an archive (tar)", _UNPACK),
    (0, b"\x7fELF", "a program", _MODEL),
    (0, b"MZ", "a program or a Windows library", _MODEL),
]
_ONNX_WIRES = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}  # fields of a ModelProto
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle in files of torch before 1.6


def weights_format(path: Path | str) -> str:
    """The format, "safetensors" or "torch" (by torch.save: .pth, .pt, .ckpt, .bin), whatever the file's name ends in.

    Raises FileNotFoundError, or ValueError that says what the file is instead, and what to give.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _MODELS and p.is_file())
        inside = f"the models in it are {_listed(names)}"
        if not names:
            others = sorted(p.name for p in path.iterdir())
            inside = f"no model is in it, but {_listed(others)}" if others else "it is empty"
        raise ValueError(f"{path} is a folder, not a model: {inside}")
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: train one first, or check the path")
    if not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, not a file: {_MODEL}")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 16)
        if not head:
            raise ValueError(f"{path} is empty: {_AGAIN}")
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
            _check_safetensors(path, file, size)
            return "safetensors"
        if head.startswith(LEGACY):
            return "torch"
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return _zip(path, head)
        what, remedy = _other(path, head, file, size)
    raise ValueError(f"{path} is {what}, which is not read: {remedy}")


def _listed(names: list[str]) -> str:
    return ", ".join([*names[:5], *["..."][: len(names) > 5]])


def _check_safetensors(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse one that is shorter than it says itself, or whose header is not one."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    whole = 8 + length
    if whole <= size:
        try:
            header = json.loads(file.read(length))
            whole += max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(f"{path} is a damaged safetensors file, its header cannot be read: {_AGAIN}") from None
    if whole > size:
        raise ValueError(f"{path} is cut short: it has {size} bytes and says itself that it has {whole}: {_AGAIN}")


def _zip(path: Path, head: bytes) -> str:
    """The format of a zip archive by torch.save; another is refused."""
    names = None
    try:
        if zipfile.is_zipfile(path):  # its table of contents stands at its end
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path}, a .pth or an archive, is damaged: {_AGAIN}") from error
    if names is None:
        what = "a .pth" if b"data.pkl" in head or b".format_version" in head or b"/byteorder" in head else "an archive"
        raise ValueError(f"{path}, {what}, is cut short or damaged, its end is missing: {_AGAIN}")
    last = {name.rsplit("/", 1)[-1] for name in names}
    what, remedy = "an archive (zip)", _UNPACK
    models = [name for name in names if Path(name).suffix.lower() in _MODELS]
    if "constants.pkl" in last or any("/code/" in f"/{name}" for name in names):
        what, remedy = "a TorchScript model", "give the .safetensors or .pth of weights that it was made from"
    elif "archive_format" in last or "serialized_exported_program.json" in last:
        what, remedy = "a program by torch.export", _SAFE
    elif "data.pkl" in last:
        return "torch"
    elif names and all(name.endswith(".npy") for name in names):
        what, remedy = "NumPy arrays (.npz)", _MODEL
    elif "model.weights.h5" in last:
        what, remedy = "a Keras model", _SAFE
    elif "[Content_Types].xml" in last:
        what, remedy = "a document", _MODEL
    elif models:
        remedy = f"unpack it and give {models[0]}"
    raise ValueError(f"{path} is {what}, which is not read: {remedy}")


def _other(path: Path, head: bytes, file: BinaryIO, size: int) -> tuple[str, str]:
    """What else the file is, and what to do."""
    if (text := _text(head)) is not None:
        return _kind_of_text(text)
    for offset, signature, what, remedy in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return what, remedy
    if not head.strip(b"\0"):
        return "filled with zeros, as where a download broke off", _AGAIN
    if head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == size:
        return "a picture (BMP)", _MODEL
    if _is_onnx(file, size):
        return "an ONNX model", _SAFE
    if head[:1] == b"\x80" and head[1] in range(2, 6):
        return (
            "a Python pickle that torch.save did not write",
            "save its weights by torch.save(model.state_dict(), ...)",
        )
    if path.suffix.lower() == ".bin" and path.with_suffix(".param").is_file():
        return "an NCNN model's weights (.bin)", _SAFE
    begins = " ".join(f"{byte:02x}" for byte in head[:8])
    return f"of a kind unknown here (its first bytes are {begins})", f"{_MODEL}; is the download complete?"


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Whether the file is fields of ONNX's ModelProto, one after another to its end, the graph among them."""
    file.seek(0)
    seen = set()
    while file.tell() < size:
        key = _varint(file)
        field, wire = (key or 0) >> 3, (key or 0) & 7
        length = _varint(file)
        if key is None or length is None or _ONNX_WIRES.get(field) != wire:
            return False
        seen.add(field)
        if wire == 2:
            file.seek(length, 1)  # beyond the end where the file is cut short
    return 7 in seen and bool(seen & {1, 8})


def _varint(file: BinaryIO) -> int | None:
    """The protobuf number that follows; None when it is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None


def _text(head: bytes) -> str | None:
    """The file's beginning as text; None when it is none."""
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = head.decode("utf-16") if wide else head[:4096].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if wide or error.start < len(head[:4096]) - 3:  # else the last letter is cut in two
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text.strip()


def _kind_of_text(text: str) -> tuple[str, str]:
    low = text[:1024].lower()
    if text.startswith("version https://git-lfs"):
        return "a git-LFS pointer, not the file itself", "run git lfs pull where it comes from, or download the file"
    if "annex/objects/" in low.split("\n")[0]:
        return "a git-annex pointer, not the file itself", "run git annex get where it comes from"
    if low.startswith(("<!doctype html", "<html", "<head", "<body")) or (low.startswith("<") and "<html" in low):
        return "a web page (HTML)", "the download was answered by a page: download the file by its direct link"
    if low.startswith("<"):
        if "<net " in low:
            return "an OpenVINO model's description (XML)", _SAFE
        return "a picture (SVG)" if "<svg" in low else "an XML text", _MODEL
    if text.startswith("7767517"):
        return "an NCNN model's description (.param)", _SAFE
    if text[:1] in ("{", "["):
        return "a JSON text", _MODEL
    if re.match(r"(#.*\n|---\n|\s)*[\w-]+:(\s|$)", text):
        return "a YAML text", _MODEL
    return f"a text, beginning with {text[:40]!r}", _MODEL
