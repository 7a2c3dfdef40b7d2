"""Pictures are shown pixel by pixel; helpers find what they say."""

import numpy as np
import torch

from srlib.evaluation.metrics import psnr_y
from srlib.show import picture_figures


def test_pictures_keep_their_pixels():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    array = picture_figures.to_array(picture)
    assert array[..., 0].tolist() == [[0, 255], [128, 64]] and array.shape == (2, 2, 3)
    assert torch.equal(picture_figures.upscale_nearest(picture, 2)[0, :2, :2], torch.zeros(2, 2))
    figure = picture_figures.picture_grid({"a": torch.rand(3, 8, 9), "b": torch.rand(1, 4, 4)}, columns=4)
    assert [a.get_title() for a in figure.axes] == ["a", "b"]
    assert figure.axes[0].images[0].get_array().shape == (8, 9, 3)


def test_crops_are_the_square_and_say_where_it_is_and_how_good():
    hr, other = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
    figure = picture_figures.crops({"LR": other, "HR": hr, "a": other, "b": hr}, 10, 20, 16, title="t")
    where, lr, first, second, third = figure.axes
    assert np.array_equal(second.images[0].get_array(), picture_figures.to_array(other[:, 10:26, 20:36]))
    assert np.array_equal(where.images[0].get_array(), picture_figures.to_array(hr))
    assert {(box.get_xy(), box.get_width()) for box in where.patches} == {((19.5, 9.5), 16)}
    decibels = psnr_y(other[None, :, 10:26, 20:36], hr[None, :, 10:26, 20:36], 0).item()
    assert second.get_xlabel() == f"this crop: {decibels:.2f} dB PSNR-Y" and third.get_xlabel() == "equal to HR"
    assert lr.get_xlabel() == first.get_xlabel() == ""


def test_crops_of_a_seam_show_whole_tiled_and_their_difference():
    hr, whole = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
    tiled = (whole + 4 / 255).clamp(0, 1)
    figure = picture_figures.seam_crops({"HR": hr}, {"a": (tiled, whole)}, 10, 20, 16, ([12, 40], [30]), title="t")
    shown = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(shown) == ["HR", "a whole", "a tiled", "where it is", "|tiled - whole| x 8"]
    ticks = [(axis.get_yticks().tolist(), axis.get_xticks().tolist()) for axis in shown.values()]
    assert ticks == [([], []), ([], []), ([1.5], [9.5]), ([], []), ([1.5], [9.5])]
    difference = shown["|tiled - whole| x 8"].images[0]
    assert difference.get_clim() == (0, 255 / 8) and difference.colorbar is not None
    expected = (tiled - whole)[:, 10:26, 20:36].mean(0).numpy() * 255
    assert np.allclose(difference.get_array(), expected, atol=1e-3)


def test_busiest_square_holds_the_detail():
    picture = torch.full((3, 100, 120), 0.5)
    picture[:, 60:80, 90:110] = torch.rand(3, 20, 20)
    top, left, size = picture_figures.busiest(picture, 32)
    assert size == 32 and top <= 60 and top + 32 >= 80 and left <= 90 and left + 32 >= 110
