"""Small colour profiles, written by hand: what Pillow cannot make, with colours that are easy to foretell."""

import struct


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _profile(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = b"XYZ \0\0\0\0" + _fixed(0.9642, 1.0, 0.8249)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67)
    tags = {b"desc": text, b"wtpt": white, b"cprt": b"text\0\0\0\0none\0"} | tags
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = bytes(8) + struct.pack(">I", 0x02400000) + kind + space + pcs + date + b"acsp" + bytes(28)
    header += _fixed(0.9642, 1.0, 0.8249) + bytes(48)
    content = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(content)) + content[4:]


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def grey_profile(gamma: float = 1.0) -> bytes:
    """Grey with this gamma: of the linear one, 1.0, half the light is 128, which in sRGB is 188."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _gamma(gamma)})


def rgb_profile(gamma: float = 1.0) -> bytes:
    """sRGB's primaries with this gamma."""
    primaries = {
        b"rXYZ": (0.4361, 0.2225, 0.0139),
        b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }
    tags = {name: b"XYZ \0\0\0\0" + _fixed(*xyz) for name, xyz in primaries.items()}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags | {name: _gamma(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def cmyk_profile() -> bytes:
    """CMYK in which cyan is a dark blue, Lab (30, 20, -60), and not what the formula without a profile makes of it."""
    corners = []
    for number in range(16):  # each of C, M, Y, K none or full; K changes fastest
        c, m, y, k = (number >> 3 & 1, number >> 2 & 1, number >> 1 & 1, number & 1)
        light = 0 if k else max(0, 100 - 70 * c - 40 * m - 10 * y)
        a, b = (0, 0) if k else (20 * c + 60 * m, -60 * c + 70 * y)
        corners.append(bytes([round(light * 2.55), 128 + max(-128, min(127, a)), 128 + max(-128, min(127, b))]))
    straight = bytes(range(256))
    identity = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + straight * 4 + b"".join(corners) + straight * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})
