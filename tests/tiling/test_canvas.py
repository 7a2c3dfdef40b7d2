"""Bands through a local filter equal the filter of the whole picture."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from srlib.tiling.canvas import filtered


@given(st.integers(1, 60), st.integers(0, 6), st.lists(st.integers(1, 20), min_size=1, max_size=8))
@settings(deadline=None, max_examples=100)
def test_filtered_bands_equal_the_filtered_picture(height, reach, sizes):
    x = torch.rand(1, 2, height, 9, dtype=torch.float64)
    kernel = torch.rand(2, 1, 2 * reach + 1, 1, dtype=torch.float64)

    def blur(t):
        return F.conv2d(t, kernel, padding=(reach, 0), groups=2)

    bands = []
    take = filtered(blur, reach, height, lambda band, top: bands.append((top, band)))
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
