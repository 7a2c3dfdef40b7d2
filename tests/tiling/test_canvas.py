"""Bands through a local filter equal the filter of the whole picture; what is not finite is not written."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from srlib.tiling.canvas import checked, filtered


@given(
    st.integers(1, 60),
    st.integers(0, 6),
    st.lists(st.integers(1, 20), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 30),
)
@settings(deadline=None, max_examples=100)
def test_filtered_bands_equal_the_filtered_picture(height, reach, sizes, step, least):
    x = torch.rand(1, 2, height, 9, dtype=torch.float64)
    kernel = torch.rand(2, 1, 2 * reach + 1, 1, dtype=torch.float64)

    def blur(t):
        return F.conv2d(t, kernel, padding=(reach, 0), groups=2)

    def rows(held, first, top, bottom):
        assert first <= max(top - reach, 0) and first + held.shape[2] >= min(bottom + reach, height)
        assert top % step == 0 and (bottom % step == 0 or bottom == height)
        assert bottom - top >= least or bottom == height
        return blur(held)[:, :, top - first : bottom - first]

    bands = []
    take = filtered(rows, reach, height, lambda band, top: bands.append((top, band)), step=step, least=least)
    for restart in (True, False):  # what came before a restart is forgotten
        top = 0
        while top < height:
            size = min(sizes[top % len(sizes)], height - top)
            take(x[:, :, top : top + size] if not restart else torch.zeros(1, 2, size, 9).double(), top)
            top += size
            if restart:
                break
        if restart:
            bands.clear()
    assert torch.allclose(torch.cat([band for _, band in bands], 2), blur(x))
    assert [top for top, _ in bands] == [sum(b.shape[2] for _, b in bands[:i]) for i in range(len(bands))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_handed_on_to_nobody(dtype, value):
    got = []
    take = checked(lambda band, top: got.append(top), dtype)
    take(torch.zeros(1, 3, 4, 5), 0)
    band = torch.zeros(1, 3, 4, 5)
    band[0, 1, 2, 3] = band[0, 2, 2, 3] = value
    name, remedy = {
        torch.float16: ("fp16", "use bf16 or fp32"),
        torch.bfloat16: ("bf16", "weights themselves are broken"),
        torch.float32: ("fp32", "weights themselves are broken"),
    }[dtype]
    with pytest.raises(
        FloatingPointError, match=f"in 5 % of the pixels of rows 4 to 7, at precision {name}: .*{remedy}"
    ):
        take(band, 4)
    assert got == [0]
