"""JPEGs with a gain map are read as their numbers say, written so that they read back, and refused when damaged."""

import io

import numpy as np
import pytest
from PIL import Image

from srlib.data.exposures import panoramas
from srlib.data.gain_maps import has_gain_map, read_gain_map, write_gain_map
from srlib.data.hdr import WHITE, read_hdr
from srlib.data.tone import to_linear, to_srgb

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" hdrgm:Version="1.0" %s>%s</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)


def jpeg(array, xmp=""):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=100, subsampling=0, **({"xmp": xmp.encode()} if xmp else {}))
    return buffer.getvalue()


def ultra_hdr(path, base, gain, facts, inside="", behind=()):
    """A file as phones write it; behind: (semantic, bytes, padding) of what comes after the gain map."""
    second = jpeg(gain, XMP % (facts, inside))
    items = [("Primary", None, 0), ("GainMap", second, 0), *behind]
    listed = "".join(
        f'<Container:Item Item:Semantic="{name}" Item:Mime="image/jpeg"'
        + (f' Item:Length="{len(part)}" Item:Padding="{padding}"' if part is not None else "")
        + "/>"
        for name, part, padding in items
    )
    first = jpeg(base, XMP % ("", f"<Container:Directory>{listed}</Container:Directory>"))
    path.write_bytes(first + second + b"".join(part + b"\0" * padding for _, part, padding in behind))
    return path


@pytest.fixture
def base():
    return np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 16, 0).repeat(3, 2)


NUMBERS = 'hdrgm:GainMapMin="-1" hdrgm:GainMapMax="3" hdrgm:Gamma="2" hdrgm:OffsetSDR="0.02" hdrgm:OffsetHDR="0.01"'


@pytest.mark.parametrize("level", [0, 64, 255])
def test_read_as_its_numbers_say(level, base, tmp_path):
    path = ultra_hdr(tmp_path / "a.jpg", base, np.full((16, 32), level, np.uint8), NUMBERS)
    light, shown = read_gain_map(path)
    assert has_gain_map(path) and np.array_equal(shown, base)
    share = (level / 255) ** 0.5
    expected = np.maximum((to_linear(base / 255) + 0.02) * 2 ** (4 * share - 1) - 0.01, 0)
    assert light == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert read_hdr(path) == pytest.approx(light * WHITE)


def test_a_version_that_is_an_element(base, tmp_path):
    path = ultra_hdr(tmp_path / "a.jpg", base, np.full((16, 32), 64, np.uint8), NUMBERS)
    expected = read_gain_map(path)
    inside = "<hdrgm:Version>1.0</hdrgm:Version>"
    path = ultra_hdr(tmp_path / "b.jpg", base, np.full((16, 32), 64, np.uint8), NUMBERS, inside)
    path.write_bytes(path.read_bytes().replace(b' hdrgm:Version="1.0"', b" " * 20))
    assert np.array_equal(read_gain_map(path)[0], expected[0])


def test_a_map_per_channel_and_a_smaller_one(base, tmp_path):
    lists = "".join(
        f"<hdrgm:{name}><rdf:Seq>{''.join(f'<rdf:li>{v}</rdf:li>' for v in values)}</rdf:Seq></hdrgm:{name}>"
        for name, values in (("GainMapMin", (0, 0, 0)), ("GainMapMax", (1, 2, 3)))
    )
    gain = np.full((8, 16, 3), 255, np.uint8)
    light, _ = read_gain_map(ultra_hdr(tmp_path / "a.jpg", base, gain, "", lists))
    assert light[..., 2].max() == pytest.approx((1 + 1 / 64) * 8 - 1 / 64, rel=0.02)
    assert light[..., 0].max() == pytest.approx((1 + 1 / 64) * 2 - 1 / 64, rel=0.02)
    assert light.shape == (16, 32, 3)


def test_found_before_other_pictures_behind_it(base, tmp_path):
    gain = np.full((16, 32), 255, np.uint8)
    plain = ultra_hdr(tmp_path / "a.jpg", base, gain, NUMBERS)
    behind = [("Depth", jpeg(base), 8), ("Original", b"some bytes", 0)]
    more = ultra_hdr(tmp_path / "b.jpg", base, gain, NUMBERS, behind=behind)
    assert np.array_equal(read_gain_map(plain)[0], read_gain_map(more)[0])


def test_written_and_read_back(base, tmp_path):
    rng = np.random.default_rng(0)
    light = to_linear(base / 255) * np.exp2(rng.uniform(0, 4, (2, 4, 1)).repeat(8, 0).repeat(8, 1)).astype(np.float32)
    write_gain_map(tmp_path / "a.jpg", light, base)
    again, shown = read_gain_map(tmp_path / "a.jpg")
    stops = np.log2((again + 1 / 64) / (light + 1 / 64))
    span = np.log2((light + 1 / 64) / (to_linear(base / 255) + 1 / 64))
    assert np.abs(stops).max() <= 3 * (span.max() - span.min() + 0.5) / 255
    assert np.abs(shown.astype(int) - base).max() <= 6
    with Image.open(tmp_path / "a.jpg") as image:  # other programs find the second picture by this index
        first, second = image._getmp()[0xB002]
    content = (tmp_path / "a.jpg").read_bytes()
    start = content.index(b"MPF\0") + 4 + second["DataOffset"]
    assert start == first["Size"] and content[start : start + 2] == b"\xff\xd8"
    assert start + second["Size"] == len(content)


def test_no_light_at_all_and_equal_light(base, tmp_path):
    for light in (np.zeros(base.shape, np.float32), to_linear(base / 255)):
        write_gain_map(tmp_path / "a.jpg", light, base)
        assert read_gain_map(tmp_path / "a.jpg")[0] == pytest.approx(light, abs=0.03)


def test_the_curve_and_its_inverse():
    x = np.linspace(0, 1, 1001, dtype=np.float32)
    assert to_srgb(to_linear(x)) == pytest.approx(x, abs=1e-6)
    assert to_linear(np.array([0.0, 0.04045, 0.5, 1.0])) == pytest.approx([0, 0.0031308, 0.21404, 1], abs=1e-5)


def test_what_is_no_gain_map_or_a_damaged_one_is_refused(base, tmp_path):
    gain = np.full((16, 32), 255, np.uint8)
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(jpeg(base))
    good = ultra_hdr(tmp_path / "good.jpg", base, gain, NUMBERS).read_bytes()
    short = tmp_path / "short.jpg"
    short.write_bytes(good[:-20])
    bare = ultra_hdr(tmp_path / "bare.jpg", base, gain, "")
    turned = ultra_hdr(tmp_path / "turned.jpg", base, gain, NUMBERS + ' hdrgm:BaseRenditionIsHDR="True"')
    absurd = ultra_hdr(tmp_path / "absurd.jpg", base, gain, NUMBERS.replace('Gamma="2"', 'Gamma="0"'))
    for path, says in (
        (plain, "plain.jpg has no gain map: it is an ordinary JPEG"),
        (short, "short.jpg: its gain map is cut short"),
        (bare, "bare.jpg: its gain map comes without the numbers"),
        (turned, "turned.jpg: its main picture is the HDR one"),
        (absurd, "absurd.jpg: the numbers of its gain map make no sense"),
    ):
        with pytest.raises(ValueError, match=says):
            read_hdr(path)
    assert not has_gain_map(plain) and not has_gain_map(short)
    for light in (np.full(base.shape, np.nan, np.float32), -np.ones(base.shape, np.float32)):
        with pytest.raises(ValueError, match="light holds"):
            write_gain_map(tmp_path / "x.jpg", light, base)
    assert not (tmp_path / "x.jpg").exists()


def test_the_panoramas_read_right():
    """Figures that another program printed for these files."""
    peaks = {"potsdamer_platz_1k": 10.7, "rooitou_park_1k": 51240}
    for name, peak in peaks.items():
        light, _ = read_gain_map(panoramas() / f"{name}.jpg")
        assert light.shape == (512, 1024, 3) and light.max() == pytest.approx(peak, rel=5e-3)
