"""Export to other programs, ONNX and torch.export, for pictures of any size.

The whole network is written, without tiling: what calls it cuts the tiles. An eraser that is told where seams are has
none to erase here, and is left out; srlib.networks.export_tiles writes it, with HAT for tiles of one size.
"""

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from srlib.files import atomic, check_suffix, check_writable
from srlib.networks.checkpoints import load
from srlib.networks.diffir import DiffIR
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.restormer import Restormer
from srlib.networks.wrappers import unwrapped

Exportable = HAT | Restormer | DiffIR | TiledSR
Sizes = Sequence[str | None]  # of an input or output: the names of its free dimensions, None for the others


def exported(model: Exportable, *, batches: bool = False, side: int | None = None) -> ExportedProgram:
    """torch.export of the model in eval mode: (1, C, H, W) in [0, 1] -> (1, C, H*upscale, W*upscale).

    model: a HAT, a Restormer with attention between channels, a DiffIR's second stage, or a TiledSR of one.
    H and W are free, from a window and one pixel on. batches: the number of pictures is free as well; PyTorch
    itself then wants two or more at a time, ONNX does not. side: H and W are fixed, to this many LR pixels.
    The model's use_tiling is switched off for the export, and what torch.compile, parallel training or averaging put
    around it or its network is left out. Of a network with two answers it is that which its `answer` names. Export on
    the device that it will run on. Raises ValueError for another kind of model.
    """
    model = cast(Exportable, unwrapped(model))
    given = model.hat_model if isinstance(model, TiledSR) else None
    network = _exportable(unwrapped(model if given is None else given))
    training, tiling = model.training, getattr(model, "use_tiling", None)
    if tiling:
        model.use_tiling = False
    window, channels = network.window, network.config["in_chans"]
    height, width = (side, side) if side else (4 * window + 1, 5 * window + 3)
    example = torch.zeros(1 + batches, channels, height, width, device=next(network.parameters()).device)
    free = {} if side else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    free |= {0: Dim.DYNAMIC} if batches else {}
    try:
        if isinstance(model, TiledSR):
            model.hat_model = cast(HAT, network)
        return free_program(model.eval(), (example,), (free,))
    finally:
        model.train(training)
        if tiling:
            model.use_tiling = True
        if isinstance(model, TiledSR):
            model.hat_model = cast(HAT, given)


def _exportable(network: nn.Module) -> HAT | Restormer | DiffIR:
    """The network; ValueError, with the reason, where there is no program of it."""
    if not isinstance(network, HAT | Restormer | DiffIR):
        name = getattr(network, "name", type(network).__name__)
        raise ValueError(f"a {name} cannot be exported, only HAT, Restormer and DiffIR")
    if isinstance(network, DiffIR) and network.stage == 1:
        raise ValueError("DiffIR's first stage reads the ground truth and can restore nothing new: export the second")
    if isinstance(network, Restormer) and network.config["attention"] == "phase":
        raise ValueError("attention of phases cannot be exported: its Fourier transform is no program for all sizes")
    return network


def free_program(module: nn.Module, examples: tuple[Tensor, ...], free: tuple[dict, ...]) -> ExportedProgram:
    """torch.export of a module in eval mode. free: of every input its free dimensions, {number: torch.export.Dim}."""
    if not hasattr(symbolic_shapes, "backed_size_oblivious"):
        raise ImportError(f"export needs a newer PyTorch than {torch.__version__}: 2.11 and 2.15 can")
    # sizes stay unknown: otherwise one window more or less than the example would be another program
    with symbolic_shapes.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
        return torch.export.export(module, examples, dynamic_shapes=free)


def export_onnx(model: Exportable, path: Path | str) -> Path:
    """Write the model as one ONNX file: "lr" (batch, C, height, width) -> "sr", fp32, all but C free. Atomic.

    Pictures must be larger than a window, the smallest side is in the file's metadata. Raises ImportError, with the
    remedy, without the packages of the extra `export`.
    """
    check_onnx()
    model = copied(model)
    scale = model.scale
    network = model.hat_model if isinstance(model, TiledSR) else model
    spans = "log-mapped light, 0 to 1 and more" if network.config.get("light") else "0 to 1"
    program, facts = exported(model, batches=True), {"range": spans, "smallest side": model.window + 1}
    times = f"{scale}*" if scale > 1 else ""
    sizes = {"lr": ("batch", None, "height", "width"), "sr": ("batch", None, f"{times}height", f"{times}width")}
    return write_onnx(program, path, sizes, {"scale": scale, **facts})


def check_onnx() -> None:
    """Raise ImportError, with the remedy, without the packages of the extra `export`."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401 - torch's exporter asks for it late
    except ImportError as error:
        raise ImportError(f"{error.name} is needed to write ONNX: pip install -e .[export]") from error


def copied(model: Exportable) -> Any:
    """The model as it is exported: a copy, out of its wrappers, in fp32 on the CPU."""
    return copy.deepcopy(unwrapped(model)).float().cpu().eval()


def write_onnx(
    program: ExportedProgram, path: Path | str, sizes: Mapping[str, Sizes], facts: Mapping[str, object]
) -> Path:
    """Write a program with one output as ONNX, in one file. Atomic.

    sizes: name -> the dimensions, of the inputs in their order, then of the output. facts: the file's metadata.
    """
    import onnx

    onnx_program = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx_program is not None  # as it is with dynamo
    proto = onnx_program.model_proto
    values = (*proto.graph.input, *proto.graph.output)
    for value, (name, own) in zip(values, sizes.items(), strict=True):
        _rename(value, proto, name, own)
    onnx.helper.set_model_props(proto, {name: str(fact) for name, fact in facts.items()})
    with atomic(path) as temporary:
        onnx.save(proto, temporary)
    return Path(path)


def _rename(value: Any, proto: Any, name: str, sizes: Sizes) -> None:
    """Name a graph's input or output, everywhere it is used, and its free dimensions."""
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if n == value.name else n for n in names]
    value.name = name
    for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
        if size:
            dim.dim_param = size


def largest_difference(path: Path | str, model: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> float:
    """Between the model's answer to these inputs, in their order, and its ONNX file's, in onnxruntime; infinity where
    one has a NaN.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (sr,) = session.run(["sr"], {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        difference = (torch.from_numpy(sr) - model(*inputs.values())).abs().max().item()
    return difference if difference == difference else float("inf")


def can_compare() -> bool:
    """Whether onnxruntime is there; says so where it is not."""
    there = importlib.util.find_spec("onnxruntime") is not None
    if not there:
        print("not compared with PyTorch: onnxruntime is not installed")
    return there


def export_file(
    model: Path | str,
    output: Path,
    *,
    img_range: float | None = None,
    conv_scale: float | None = None,
    answer: str | None = None,
) -> float:
    """Write the checkpoint `model` as ONNX and run both on two small pictures; prints what it finds. img_range,
    conv_scale, answer: as `load` takes them.

    Returns the largest difference: 0 where onnxruntime is not installed, infinity for a NaN.
    """
    check_suffix(output, ".onnx")
    check_writable(output.parent)
    network = load(model, img_range=img_range, conv_scale=conv_scale, answer=answer, light=True, use_tiling=False)
    export_onnx(network, output)
    channels, window = network.hat_model.config["in_chans"], network.window
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
    if network.radius and network.gains:
        print("the eraser is not in it, a whole picture has no seams; --tile writes both")
    if not can_compare():
        return 0.0
    worst, random = 0.0, torch.Generator().manual_seed(0)
    for height, width in ((2 * window, 3 * window), (2 * window + 5, window + 1)):
        lr = torch.rand(1, channels, height, width, generator=random)
        difference = largest_difference(output, network, {"lr": lr})
        print(f"{width}x{height}: largest difference from PyTorch {difference:.1e}")
        worst = max(worst, difference)
    return worst
