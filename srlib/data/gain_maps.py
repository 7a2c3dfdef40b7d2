"""JPEGs with a gain map ("Ultra HDR", as phones write them): an SDR picture, and how much brighter HDR is where.

The file is a JPEG with a second one behind it, the gain map; both have XMP that says what is what (Android's Ultra HDR
image format 1.0, which follows Adobe's gain map specification). Light here is relative: 1 is the SDR picture's white.
"""

import io
import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from srlib.data.tone import to_linear
from srlib.files import atomic

_GAIN = "{http://ns.adobe.com/hdr-gain-map/1.0/}"
_ITEM = "{http://ns.google.com/photos/1.0/container/item/}"
_OFFSET = 1 / 64  # of the files written here, before the logarithm, so that black has one


def has_gain_map(path: Path | str) -> bool:
    """Whether a file is a JPEG with a gain map behind it."""
    with open(path, "rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
    try:
        return _map_behind(Path(path).read_bytes(), path) is not None
    except ValueError:
        return False


def read_gain_map(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """(light, base): (H, W, 3) float32, linear and relative to SDR white, and the SDR picture, uint8 sRGB.

    A smaller map is enlarged bilinearly. Raises ValueError naming the file when it has no gain map, one that says
    how to go from HDR to SDR, or one that is damaged.
    """
    content = Path(path).read_bytes()
    second = _map_behind(content, path)
    if second is None:
        raise ValueError(f"{path} has no gain map: it is an ordinary JPEG, which holds no HDR")
    try:
        with Image.open(io.BytesIO(content)) as image:
            base = np.asarray(image.convert("RGB"))
        with Image.open(io.BytesIO(second)) as image:
            facts = _facts(image.info.get("xmp", b""))
            gain: np.ndarray = np.asarray(image.convert("L" if image.mode == "L" else "RGB"), np.float32) / 255
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}): copy it again or remove it") from error
    if facts is None:
        raise ValueError(f"{path}: its gain map comes without the numbers that say what it means (hdrgm in XMP)")
    if str(facts.pop("BaseRenditionIsHDR")).lower() == "true":
        raise ValueError(f"{path}: its main picture is the HDR one, which is not read; export it with an SDR base")
    numbers = {name: np.array(values, np.float32) for name, values in facts.items()}
    if not all(np.isfinite(v).all() for v in numbers.values()) or (numbers["Gamma"] <= 0).any():
        raise ValueError(f"{path}: the numbers of its gain map make no sense: {facts}")
    gain = gain[..., None] if gain.ndim == 2 else gain
    if gain.shape[:2] != base.shape[:2]:
        resized = cv2.resize(gain, base.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        gain = resized[..., None] if resized.ndim == 2 else resized
    share = gain ** (1 / numbers["Gamma"])
    stops = share * numbers["GainMapMax"] + (1 - share) * numbers["GainMapMin"]  # (H, W, 1 or 3)
    light = (to_linear(base / 255) + numbers["OffsetSDR"]) * np.exp2(stops) - numbers["OffsetHDR"]
    return np.maximum(light, 0).astype(np.float32), base


def write_gain_map(path: Path | str, light: np.ndarray, base: np.ndarray, quality: int = 95) -> None:
    """Write a JPEG that old programs show as `base` and new ones, on a bright screen, as `light`. Atomic.

    light: (H, W, 3), linear, >= 0, relative to SDR white; base: (H, W, 3) uint8 sRGB. quality: of the base. The map
    has 8 bits a channel for the stops from the base to light, is kept at JPEG's best and corrects the base's own loss.
    """
    if light.shape != base.shape or light.ndim != 3 or light.shape[2] != 3 or base.dtype != np.uint8:
        raise ValueError(f"light {light.shape} and base {base.shape} of {base.dtype}: give (H, W, 3) twice, uint8 base")
    if not np.isfinite(light).all() or light.min() < 0:
        raise ValueError("light holds negative values, infinite ones or no numbers")
    encoded = _jpeg(base, quality)  # what a reader will multiply
    with Image.open(io.BytesIO(encoded)) as image:
        shown = to_linear(np.asarray(image.convert("RGB")) / 255)
    stops = np.log2((light + _OFFSET) / (shown + _OFFSET))
    low, high = float(stops.min()), float(stops.max())
    high = max(high, low + 1e-3)
    gain = np.round((stops - low) / (high - low) * 255).astype(np.uint8)
    second = _jpeg(gain, 100, _MAP_XMP.format(low=low, high=high, top=max(high, 0.0), offset=_OFFSET))
    first = _jpeg(base, quality, _BASE_XMP.format(length=len(second)))
    with atomic(path) as temporary:
        temporary.write_bytes(_with_index(first, len(second)) + second)


def _map_behind(content: bytes, path: Path | str) -> bytes | None:
    """The JPEG of the gain map, None where the file has none. By XMP's list of what lies behind the main picture."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            root = _parsed(image.info.get("xmp", b""))
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None
    items = [] if root is None else [e for e in root.iter() if e.get(f"{_ITEM}Semantic")]
    behind = 0  # bytes from the item's beginning to the file's end
    for item in reversed(items):
        length = item.get(f"{_ITEM}Length") or "0"
        if item.get(f"{_ITEM}Semantic") == "Primary" or not length.isdigit():
            continue
        behind += int(length) + int(item.get(f"{_ITEM}Padding") or 0)
        if item.get(f"{_ITEM}Semantic") == "GainMap":
            second = content[len(content) - behind :][: int(length)]
            if behind > len(content) or second[:2] != b"\xff\xd8":
                raise ValueError(f"{path}: its gain map is cut short or lies elsewhere: copy the file again")
            return second
    return None


def _parsed(xmp: bytes) -> ElementTree.Element | None:
    found = re.search(rb"<(\w+:)?xmpmeta.*</(\w+:)?xmpmeta>", xmp, re.DOTALL)
    if not found or b"<!ENTITY" in xmp:
        return None
    try:
        return ElementTree.fromstring(found[0])
    except ElementTree.ParseError:
        return None


def _facts(xmp: bytes) -> dict | None:
    """The numbers of a gain map, each a list of one or three; None without them."""
    root = _parsed(xmp)
    described = (
        []
        if root is None
        else [e for e in root.iter() if e.get(f"{_GAIN}Version") or e.find(f"{_GAIN}Version") is not None]
    )
    if not described:
        return None
    facts: dict = {}
    defaults = {"GainMapMin": "0", "GainMapMax": None, "Gamma": "1", "OffsetSDR": "0.015625", "OffsetHDR": "0.015625"}
    for name, default in defaults.items():
        element = described[0].find(f"{_GAIN}{name}")  # three channels come as a list of elements
        texts = [described[0].get(f"{_GAIN}{name}", default)]
        if element is not None:
            texts = [e.text for e in element.iter() if e.text and e.text.strip()]
        try:
            facts[name] = [float(text or "") for text in texts]
        except (TypeError, ValueError):
            return None
        if len(facts[name]) not in (1, 3):
            return None
    facts["BaseRenditionIsHDR"] = described[0].get(f"{_GAIN}BaseRenditionIsHDR", "False")
    return facts


def _jpeg(picture: np.ndarray, quality: int, xmp: str = "") -> bytes:
    buffer = io.BytesIO()
    extra = {"xmp": xmp.encode()} if xmp else {}
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0, **extra)
    return buffer.getvalue()


def _with_index(first: bytes, second: int) -> bytes:
    """The first JPEG with an index of both, by which viewers find the second (CIPA DC-007, "MPF")."""
    place = 2
    while first[place + 1] in (0xE0, 0xE1):  # behind JFIF's and XMP's segments
        place += 2 + int.from_bytes(first[place + 2 : place + 4], "big")
    entries = 50  # from the index's own header to its list of pictures
    segment = 4 + 4 + entries + 32
    total = len(first) + segment
    index = struct.pack("<2sHLH", b"II", 42, 8, 3)
    index += struct.pack("<HHL4s", 0xB000, 7, 4, b"0100")
    index += struct.pack("<HHLL", 0xB001, 4, 1, 2)
    index += struct.pack("<HHLLL", 0xB002, 7, 32, entries, 0)
    index += struct.pack("<LLLHH", 0x030000, total, 0, 0, 0)  # offsets count from the index's header
    index += struct.pack("<LLLHH", 0, second, total - (place + 8), 0, 0)
    header = b"\xff\xe2" + (segment - 2).to_bytes(2, "big") + b"MPF\0"
    return first[:place] + header + index + first[place:]


_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
)
_BASE_XMP = (
    _XMP + ' xmlns:Container="http://ns.google.com/photos/1.0/container/"'
    ' xmlns:Item="http://ns.google.com/photos/1.0/container/item/"><Container:Directory><rdf:Seq>'
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" '
    'Item:Length="{length}"/></rdf:li></rdf:Seq></Container:Directory></rdf:Description></rdf:RDF></x:xmpmeta>'
)
_MAP_XMP = (
    _XMP + ' hdrgm:GainMapMin="{low!r}" hdrgm:GainMapMax="{high!r}" hdrgm:Gamma="1" hdrgm:OffsetSDR="{offset!r}" '
    'hdrgm:OffsetHDR="{offset!r}" hdrgm:HDRCapacityMin="0" hdrgm:HDRCapacityMax="{top!r}" '
    'hdrgm:BaseRenditionIsHDR="False"/></rdf:RDF></x:xmpmeta>'
)
