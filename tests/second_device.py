"""A second device: the first CUDA card, or where there is none tensors that hold their values on the CPU and say that
they are elsewhere.

Without a card, inside `second_device()` the device "meta" computes. As on a GPU, an operation on tensors of both
devices fails, unless the one on the CPU is a number (no dimensions) that is only read, an index, or copied; and such a
tensor has no numpy().
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
_ATEN = torch.ops.aten
_COPIES = {_ATEN.copy_.default, _ATEN._to_copy.default}
_READS = {_ATEN.index.Tensor}  # (self, indices)
_WRITES = {_ATEN.index_put_.default, _ATEN.index_put.default, _ATEN._index_put_impl_.default}  # (self, indices, values)
_JOINS = {_ATEN.cat.default, _ATEN.stack.default}


class Elsewhere(Tensor):
    """What claims to be on the second device; `value` is on the CPU."""

    is_meta = False  # its operations compute something
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor) -> "Elsewhere":
        claims = {"dtype": value.dtype, "device": ELSEWHERE, "requires_grad": value.requires_grad}
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, value.size(), **layout, **claims)
        made.value = value
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.value})"

    def tolist(self) -> list:
        return self.value.tolist()

    def numpy(self, *_: object, **__: object) -> None:
        raise TypeError("a tensor of another device has no numpy(): take .cpu() first")

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.value.__reduce_ex__(protocol)  # torch.save

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _run(operation: Callable, args: tuple, kwargs: dict) -> object:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    if there and operation not in _COPIES:
        _refuse_mixture(operation, args, tensors)
    args, kwargs = tree_map(lambda t: t.value if isinstance(t, Elsewhere) else t, (args, kwargs))
    claimed = bool(there)
    if kwargs.get("device") is not None:
        claimed = torch.device(kwargs["device"]) == ELSEWHERE
        kwargs["device"] = torch.device("cpu")
    result = operation(*args, **kwargs)
    known = {id(getattr(t, "value", t)): t for t in tensors}  # written in place: the same tensor comes back

    def wrapped(t: object) -> object:
        if type(t) is not Tensor:
            return t
        return known[id(t)] if id(t) in known else Elsewhere(t) if claimed else t

    return tree_map(wrapped, result)


def _refuse_mixture(operation: Callable, args: tuple, tensors: list[Tensor]) -> None:
    bound = tensors
    if operation in _READS | _WRITES:  # indices may lie on the CPU
        bound = [args[0], *(args[2:3] if operation in _WRITES else ())]
    strict = operation in _JOINS | _READS | _WRITES
    in_place = operation._schema.name.endswith("_") and isinstance(args[0], Tensor)
    here = [t for t in bound if not isinstance(t, Elsewhere) and (strict or t.dim())]
    if in_place and not isinstance(args[0], Elsewhere):
        here.append(args[0])
    if operation in _WRITES and isinstance(args[0], Elsewhere):
        here = [t for t in here if t.dim()]  # one number may be put anywhere
    if here:
        shapes = [tuple(t.shape) for t in here]
        raise RuntimeError(f"{operation}: {shapes} are on the CPU, others of {len(tensors)} tensors are not")


@contextmanager
def _cuda() -> Iterator[torch.device]:
    """In full fp32; the tests' accelerate stays on the CPU otherwise (conftest.py)."""
    known, convolutions = os.environ.pop("ACCELERATE_USE_CPU", None), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield torch.device("cuda:0")
    finally:
        if known:
            os.environ["ACCELERATE_USE_CPU"] = known
        torch.backends.cudnn.allow_tf32 = convolutions
        AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The second device, which accelerate takes for this machine's while the block lasts."""
    if torch.cuda.is_available():
        with _cuda() as device:
            yield device
        return
    tensor, autocast, generator = torch.tensor, torch.autocast, torch.Generator
    instead = {
        "tensor": lambda *args, device=None, **named: tensor(*args, **named).to(device or "cpu"),
        "autocast": lambda kind, *args, **named: nullcontext() if kind == "meta" else autocast(kind, *args, **named),
        "Generator": type("Generator", (), {"__new__": lambda _, device=None: generator()}),
    }

    def new_tensor(self: Tensor, data: object, dtype: torch.dtype | None = None, device: object = None) -> Tensor:
        return tensor(data, dtype=dtype or self.dtype).to(device or self.device)

    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState()
    PartialState._shared_state["device"] = ELSEWHERE
    try:
        with patch.multiple(torch, **instead), patch.object(Tensor, "new_tensor", new_tensor), _Mode():
            yield ELSEWHERE
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.__future__.set_swap_module_params_on_conversion(swapped)
