"""The checksum of weights: equal for equal weights only, of any type."""

import pytest
import torch
from torch import nn

from srlib.networks.fingerprint import fingerprint


def network(kind: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(kind)  # whose counter is an integer without a shape


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_change_of_any_weight_or_buffer_is_noticed(kind):
    before = fingerprint(network(kind))
    assert fingerprint(network(kind)) == fingerprint(network(kind).to(memory_format=torch.channels_last)) == before
    for name in network(kind).state_dict():
        other = network(kind)
        other.state_dict()[name].view(-1)[-1] += 1
        assert fingerprint(other) != before, name


def test_names_and_types_are_part_of_it():
    assert len({fingerprint(network(kind)) for kind in (torch.float32, torch.float16, torch.bfloat16)}) == 3
    assert fingerprint(network()) != fingerprint(nn.ModuleDict({"a": network()}))
