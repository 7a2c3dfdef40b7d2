import numpy as np

from srlib.data.drawings import draw


def test_drawings_are_reproducible_different_and_have_dark_lines_on_flat_colour():
    first, second = draw(0, 300, 400), draw(1, 300, 400)
    assert first.shape == (300, 400, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw(0, 300, 400)) and not np.array_equal(first, second)
    for picture in (first, second):
        luma = picture.mean(2)
        steps = np.abs(np.diff(luma, axis=1))
        assert (steps < 2).mean() > 0.4  # flat
        assert (steps > 30).mean() > 0.02  # lines
