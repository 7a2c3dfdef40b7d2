"""The map says where the nearest seams are; strips hold all that is near one, once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srlib.tiling.seam_map import near, seam_map, strips, turned

LINES = st.lists(st.integers(1, 59), max_size=5, unique=True)


@given(LINES, LINES, st.integers(1, 12), st.integers(0, 30), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_each_pixel_has_its_distance_to_the_nearest_seam(rows, columns, radius, start, length):
    places = (range(start, start + length), range(3, 20))
    made = seam_map((rows, columns), *places, radius=radius, context=radius)[0]
    assert made.shape == (4, length, 17)
    for axis, seams in enumerate((rows, columns)):
        for i, place in enumerate(places[axis]):
            away = sorted((abs(place + 0.5 - c), place + 0.5 - c) for c in seams)
            here = away[0] if away and away[0][0] < radius else (0.0, 0.0)
            line = made[:, i, 0] if axis == 0 else made[:, 0, i]
            assert abs(line[axis].item()) == pytest.approx(here[0] / radius, abs=1e-6)
            if len(away) < 2 or away[0][0] != away[1][0]:  # in the middle between two, either is the nearest
                assert line[axis].item() == pytest.approx(here[1] / radius, abs=1e-6)
            assert line[2 + axis].item() == (0.5 if here[0] else 0.0)  # as much context as the radius


@given(LINES, LINES, st.integers(1, 12), st.integers(0, 20), st.integers(0, 40), st.integers(1, 20))
@settings(deadline=None, max_examples=100)
def test_strips_hold_what_is_near_a_seam_once(rows, columns, radius, gap, start, length):
    places = (range(start, start + length), range(0, 60))
    count = torch.zeros(length, 60)
    for (top, bottom), (left, right) in strips((rows, columns), *places, radius=radius, gap=gap):
        assert start <= top < bottom <= start + length and 0 <= left < right <= 60
        count[top - start : bottom - start, left:right] += 1
    wanted = near(seam_map((rows, columns), *places, radius=radius))[0, 0]
    assert count.max() <= 1 and (count[wanted] == 1).all()
    if not rows and not columns:
        assert count.max() == 0


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_map_is_the_map_of_turned_seams(turn):
    rows, columns, size = [5, 13], [9], 20
    turned_rows = [size - c for c in rows] if turn & 1 else rows
    turned_columns = [size - c for c in columns] if turn & 2 else columns
    seams = (turned_columns, turned_rows) if turn & 4 else (turned_rows, turned_columns)
    places = (range(size), range(size))
    made = turned(seam_map((rows, columns), *places, radius=3)[0], turn)
    assert torch.equal(made, seam_map(seams, *places, radius=3)[0])
