"""How much memory a network takes, measured on one small run, and how much there is."""

import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within `with`, `peak` is the most bytes that tensors made there held at one time, on all devices.

    What a kernel takes for itself while it runs is not seen; neither is what was there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in given and key not in self._known:
                self._known.add(key)
                self.live += size
                weakref.finalize(storage, self._gone, key, size)
        self.peak = max(self.peak, self.live)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@torch.no_grad()
def bytes_per_pixel(model: Callable[[Tensor], Tensor], tile: Tensor) -> float:
    """Peak memory of model(tile), tile (B, C, h, w), per pixel of B*h*w; its input and output are counted."""
    with LiveBytes() as memory:
        model(tile + 0)
    return memory.peak / (tile.shape[0] * tile.shape[2] * tile.shape[3])


def free_bytes(device: torch.device) -> int:
    """Memory that could be had on the device now; on the CPU what the system, or the container, has left."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = psutil.virtual_memory().available
    return min(free, *(_left_in(folder, *files) for folder, *files in _CONTAINERS))


# Of control groups, versions 2 and 1: the limit, what counts against it, and which of that is files' that would be let
# go of, were there need: a data set that was read is no memory in use.
_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _left_in(folder: Path, limit: str, used: str, cached: str) -> int:
    """Bytes that a container may still take; more than there is where it has no limit."""
    kept: dict[str, str] = {}
    with suppress(OSError, ValueError):
        kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    try:
        taken = int((folder / used).read_text()) - int(kept.get(cached, 0))
        return max(int((folder / limit).read_text()) - taken, 0)
    except (OSError, ValueError):  # not there, or "max"
        return 2**63


def peak_of(run: Callable[[], object], device: torch.device) -> tuple[object, int]:
    """(what run() returns, the most memory in bytes that it held beyond what was there before)."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return run(), torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as memory:
        result = run()
    return result, memory.peak
