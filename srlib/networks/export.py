"""Export to other programs, ONNX and torch.export, for pictures of any size.

The whole network is written, without tiling: what calls it cuts the tiles.
"""

import copy
import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from srlib.files import atomic
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.hat import HAT
from srlib.networks.wrappers import unwrapped


def exported(model: HAT | TiledSR, *, batches: bool = False) -> ExportedProgram:
    """torch.export of the model in eval mode: (1, C, H, W) in [0, 1] -> (1, C, H*upscale, W*upscale).

    H and W are free, from a window and one pixel on. batches: the number of pictures is free as well; PyTorch
    itself then wants two or more at a time, ONNX does not. The model's use_tiling is switched off for the export,
    and what torch.compile, parallel training or averaging put around it or its HAT is left out.
    Export on the device that it will run on. Raises ValueError for another kind of model.
    """
    model = cast(HAT | TiledSR, unwrapped(model))
    given = model.hat_model if isinstance(model, TiledSR) else None
    hat = unwrapped(model if given is None else given)
    if not isinstance(hat, HAT):
        raise ValueError(f"a {type(model).__name__} cannot be exported, only a HAT or a TiledSR")
    if not hasattr(symbolic_shapes, "backed_size_oblivious"):
        raise ImportError(f"export needs a newer PyTorch than {torch.__version__}: 2.11 and 2.15 can")
    training, tiling = model.training, getattr(model, "use_tiling", None)
    if tiling:
        model.use_tiling = False
    window, channels = hat.window, hat.config["in_chans"]
    example = torch.zeros(1 + batches, channels, 4 * window + 1, 5 * window + 3, device=hat.mean.device)
    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC} | ({0: Dim.DYNAMIC} if batches else {})
    try:
        if isinstance(model, TiledSR):
            model.hat_model = hat
        # sizes stay unknown: otherwise one window more or less than the example would be another program
        with symbolic_shapes.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
            return torch.export.export(model.eval(), (example,), dynamic_shapes=(free,))
    finally:
        model.train(training)
        if tiling:
            model.use_tiling = True
        if isinstance(model, TiledSR):
            model.hat_model = cast(HAT, given)


def export_onnx(model: HAT | TiledSR, path: Path | str) -> Path:
    """Write the model as one ONNX file: "lr" (batch, C, height, width) -> "sr", fp32, all but C free. Atomic.

    Pictures must be larger than a window, the smallest side is in the file's metadata. Raises ImportError, with the
    remedy, without the packages of the extra `export`.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter asks for it late
    except ImportError as error:
        raise ImportError(f"{error.name} is needed to write ONNX: pip install -e .[export]") from error
    model = copy.deepcopy(cast(HAT | TiledSR, unwrapped(model))).float().cpu()
    program = torch.onnx.export(exported(model, batches=True), dynamo=True, verbose=False)
    assert program is not None  # as it is with dynamo
    proto = program.model_proto
    scale = model.scale
    _rename(proto.graph.input[0], proto, "lr", ("batch", None, "height", "width"))
    _rename(proto.graph.output[0], proto, "sr", ("batch", None, f"{scale}*height", f"{scale}*width"))
    onnx.helper.set_model_props(proto, {"scale": str(scale), "range": "0 to 1", "smallest side": str(model.window + 1)})
    with atomic(path) as temporary:
        onnx.save(proto, temporary)
    return Path(path)


def _rename(value: Any, proto: Any, name: str, sizes: tuple[str | None, ...]) -> None:
    """Name a graph's input or output, everywhere it is used, and its free dimensions."""
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if n == value.name else n for n in names]
    value.name = name
    for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
        if size:
            dim.dim_param = size


def largest_difference(path: Path | str, model: nn.Module, shape: tuple[int, ...]) -> float:
    """Between the model and its ONNX file, in onnxruntime, for a random picture of that shape."""
    import onnxruntime

    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (sr,) = session.run(["sr"], {"lr": x.numpy()})
    with torch.no_grad():
        return (torch.from_numpy(sr) - model(x)).abs().max().item()


def export_file(
    model: Path | str, output: Path, *, img_range: float | None = None, conv_scale: float | None = None
) -> float:
    """Write the checkpoint `model` as ONNX and run both on two small pictures; prints what it finds. img_range,
    conv_scale: as `load` takes them.

    Returns the largest difference: 0 where onnxruntime is not installed, infinity for a NaN.
    """
    network = load(model, img_range=img_range, conv_scale=conv_scale, use_tiling=False)
    export_onnx(network, output)
    channels, window = network.hat_model.config["in_chans"], network.window
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
    if importlib.util.find_spec("onnxruntime") is None:
        print("not compared with PyTorch: onnxruntime is not installed")
        return 0.0
    worst = 0.0
    for height, width in ((2 * window, 3 * window), (2 * window + 5, window + 1)):
        difference = largest_difference(output, network, (1, channels, height, width))
        print(f"{width}x{height}: largest difference from PyTorch {difference:.1e}")
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
