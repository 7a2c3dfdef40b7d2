"""One picture in one axes: whole, of any shape, and differences that nothing cancels."""

import matplotlib.pyplot as plt
import pytest
import torch

from srlib.show.panels import levels_between, panel_size, show_picture


def test_a_difference_is_of_the_channel_that_differs_most():
    a = torch.zeros(3, 1, 2)
    b = torch.tensor([[[0.0, 10.0]], [[5.0, -10.0]], [[-7.0, 0.0]]]) / 255
    assert levels_between(a, b).tolist() == [pytest.approx([7.0, -10.0])]  # the mean of the second pixel is 0


def test_a_narrow_picture_is_whole_and_its_axes_are_not_narrow():
    figure, axis = plt.subplots()
    for height, width in ((100, 4), (4, 100), (30, 40)):
        shown = show_picture(axis, torch.zeros(height, width).numpy(), ([2], [2]))
        (right, left), (bottom, top) = (sorted(limits)[::-1] for limits in (axis.get_xlim(), axis.get_ylim()))
        assert left <= -0.5 and right >= width - 0.5 and top <= -0.5 and bottom >= height - 0.5
        assert shown.get_array().shape == (height, width) and axis.get_yticks().tolist() == [1.5]
        size = panel_size((height, width), 3.0)
        assert size[1] / size[0] == pytest.approx((bottom - top) / (right - left)) and max(size) == 3.0
