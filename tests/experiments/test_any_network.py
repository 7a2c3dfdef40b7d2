"""09_any_network, with a small network of spandrel's in the place of trained weights."""

import json

import pandas as pd
import pytest
import torch
from foreign_files import foreign_file
from projects import TINY, begin, execute

from srlib.experiments.any_network import NARROW, narrow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = begin(tmp_path_factory.mktemp("any"))
    execute(folder, "01_data", **{**TINY["01_data"], "run": "any"})
    foreign_file(folder, "Compact")
    return folder


def test_the_notebook_runs_end_to_end(project):
    done = execute(project, "09_any_network", **TINY["09_any_network"], run="any", model="Compact.pth")
    out = project / "outputs/any/networks"
    made = json.loads((out / "metrics.json").read_text())
    assert made["reach"] == {
        "Compact": {"pixels": 34, "grid": 1, "whole": False},
        "SPAN": {"pixels": 21, "grid": 1, "whole": False},
    }
    ways = made["ways"]
    assert ways["exact"]["TC, dB"] > 100 > ways["tiles, no context"]["TC, dB"]
    assert len(ways) == 8 and ways["whole picture"]["seconds"] > 0
    reach = pd.read_csv(out / "reach.csv")
    assert (reach["exact, difference / range"] < 2e-5).all()
    assert {path.stem for path in (out / "figures").glob("*.png")} == {"reach", "picture", "changes"}
    shown = "".join(o.text for c in done.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert "as other tools tile, TC" in shown and "exact: TC" in shown


@pytest.mark.parametrize("name", NARROW)
def test_each_architecture_is_built_and_answers(name):
    model = narrow(name)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = model(x)
    assert y.shape == (1, 3, 64 * model.scale, 64 * model.scale) and hasattr(model, "walk")


def test_an_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="architecture 'ESGRAN' is none of Compact"):
        narrow("ESGRAN")
