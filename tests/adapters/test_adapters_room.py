"""The room's door."""

from torch import nn

from srlib.adapters import adapter_for


def test_what_nobody_knows_has_no_adapter():
    assert adapter_for(nn.Identity()) is None
