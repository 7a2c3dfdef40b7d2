"""Live bytes are counted as tensors come and go."""

import pytest
import torch

from srlib.tiling import memory as memory_module
from srlib.tiling.memory import LiveBytes, bytes_per_pixel, free_bytes


def test_peak_is_the_most_alive_at_one_time_and_views_are_free():
    with LiveBytes() as memory:
        a = torch.zeros(1000)
        b = a.view(10, 100)[2:]
        c = a + 1
        assert memory.live == 8000
        del a
        assert memory.live == 8000  # b still holds it
        del b, c
        assert memory.live == 0
        torch.zeros(500)
    assert memory.peak == 8000


def test_in_place_operations_make_nothing():
    with LiveBytes() as memory:
        a = torch.zeros(1000)
        a.add_(1).mul_(2)
        torch.add(a, 1, out=a)
    assert memory.peak == 4000


def test_cost_of_a_pixel():
    def model(t):  # (1, 1, h, w): its input, and twice as many out
        return torch.cat([t, t], 1)

    assert bytes_per_pixel(model, torch.rand(1, 1, 8, 8)) == pytest.approx(12)
    assert free_bytes(torch.device("cpu")) > 2**20


@pytest.mark.parametrize("version", [2, 1])
def test_what_a_container_has_left(tmp_path, monkeypatch, version):
    kinds = [(tmp_path, *files) for _, *files in memory_module._CONTAINERS]
    monkeypatch.setattr(memory_module, "_CONTAINERS", kinds)
    unlimited = free_bytes(torch.device("cpu"))
    _, limit, used, cached = kinds[0 if version == 2 else 1]
    for name, text in ((limit, "1000"), (used, "900"), ("memory.stat", f"anon 300\n{cached} 600\n")):
        (tmp_path / name).write_text(text)
    assert free_bytes(torch.device("cpu")) == 700  # 600 of the 900 are files' that were read
    (tmp_path / used).write_text("1700")
    assert free_bytes(torch.device("cpu")) == 0
    (tmp_path / used).write_text("900")
    (tmp_path / "memory.stat").unlink()
    assert free_bytes(torch.device("cpu")) == 100
    (tmp_path / limit).write_text("max")
    assert free_bytes(torch.device("cpu")) > unlimited / 2
