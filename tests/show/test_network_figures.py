import matplotlib.pyplot as plt
import pytest
import torch
from figures import faults

from srlib.show import network_figures
from srlib.tiling.reach import Reach


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_reaches_beside_what_tools_give():
    found = {
        "Compact": Reach(4, 34, 34, 1, False),
        "RCAN with a $ in it": Reach(4, 414, 414, 1, True, {"means": 200}),
        "not found": Reach(2, None, None, None, None, seen=700),
    }
    figure = network_figures.reaches(found, {"Real-ESRGAN": 10, "chaiNNer": 16, "SwinIR": 32})
    assert not faults(figure)
    (axis,) = figure.axes
    assert {text.get_text() for text in axis.texts} == {"34", "414 and the whole picture", "more than 700"}
    assert [bar.get_width() for bar in axis.patches] == [34, 414, 700]
    assert axis.get_xlabel() == "reach, LR pixels to each side"


@pytest.mark.parametrize("number", [1, 3, 7])
def test_changes_are_in_levels_and_grey_where_there_is_none(number):
    whole = torch.rand(3, 60, 80)
    ways = {f"way {i}": whole + i * 2 / 255 for i in range(number)}
    figure = network_figures.changes(ways, whole)
    assert not faults(figure) and len(figure.axes) == number + 1
    titles = [axis.get_title() for axis in figure.axes[:-1]]
    assert titles[0] == "way 0\nbelow 0.1 levels" and titles[1:] == [
        f"way {i}\nat most {2 * i}.0 levels" for i in range(1, number)
    ]
    assert figure.axes[-1].get_ylabel() == "difference from the whole picture, levels"
