"""Pictures are shown pixel by pixel; helpers find what they say."""

import numpy as np
import torch

from srlib.show import picture_figures


def test_pictures_keep_their_pixels():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    array = picture_figures.to_array(picture)
    assert array[..., 0].tolist() == [[0, 255], [128, 64]] and array.shape == (2, 2, 3)
    assert torch.equal(picture_figures.upscale_nearest(picture, 2)[0, :2, :2], torch.zeros(2, 2))
    figure = picture_figures.picture_grid({"a": torch.rand(3, 8, 9), "b": torch.rand(1, 4, 4)}, columns=4)
    assert [a.get_title() for a in figure.axes] == ["a", "b"]
    assert figure.axes[0].images[0].get_array().shape == (8, 9, 3)


def test_crops_are_the_square_and_only_its_seams():
    picture = torch.rand(3, 64, 64)
    figure = picture_figures.crops({"a": picture}, 10, 20, 16, ([12, 40], [30]), title="t")
    axis = figure.axes[0]
    assert np.array_equal(axis.images[0].get_array(), picture_figures.to_array(picture[:, 10:26, 20:36]))
    assert axis.get_yticks().tolist() == [1.5] and axis.get_xticks().tolist() == [9.5]


def test_busiest_square_holds_the_detail():
    picture = torch.full((3, 100, 120), 0.5)
    picture[:, 60:80, 90:110] = torch.rand(3, 20, 20)
    top, left, size = picture_figures.busiest(picture, 32)
    assert size == 32 and top <= 60 and top + 32 >= 80 and left <= 90 and left + 32 >= 110
