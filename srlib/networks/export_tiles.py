"""Export for hardware that wants one fixed size: HAT for tiles as one ONNX file, the eraser as another.

examples/tiles_onnx.py cuts, runs, stitches and erases with nothing but these two files, NumPy and onnxruntime.
"""

from contextlib import suppress
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from srlib.files import check_suffix, check_writable
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.networks.export import (
    can_compare,
    check_onnx,
    copied,
    exported,
    free_program,
    largest_difference,
    write_onnx,
)
from srlib.networks.fingerprint import fingerprint
from srlib.networks.hat import HAT
from srlib.networks.wrappers import unwrapped
from srlib.tiling.plan import plan_tiles


def export_tiles(model: TiledSR, path: Path | str, *, tile: int, halo: int | None = None) -> list[Path]:
    """Write HAT for tiles of `tile` LR pixels with `halo` of context (None: the model's tile_pad), and its eraser.

    The tile network: "lr" (1, C, side, side) in [0, 1] -> "sr" (1, C, side*scale, side*scale), where side is
    tile + 2 * halo. The eraser, as eraser_path names it: "stitched" (1, C, H*scale, W*scale), "lr" (1, C, H, W) and
    "seams" (1, 4, H, W), srlib.tiling.seam_map's with context=halo -> "sr" like stitched; H and W are free, its unit
    for this halo is in it. Not written where it erases nothing; see why_no_eraser: one that an earlier export left
    there is then removed, or it would be taken for this network's. Both carry scale, tile, halo, window, radius and a
    checksum of the weights as metadata. fp32, atomic. Returns what was written.

    Raises ValueError when tile or halo is not a multiple of the window, ImportError, with the remedy, without the
    packages of the extra `export`.
    """
    check_onnx()
    model = copied(model)
    halo = model.tile_pad if halo is None else halo
    plan_tiles(tile, tile, tile=tile, halo=halo, window=model.window)  # refuses what is off the window grid
    facts = {"range": "0 to 1", "scale": model.scale, "tile": tile, "halo": halo}
    facts |= {"window": model.window, "radius": model.radius, "weights": fingerprint(model)}
    hat = unwrapped(model.hat_model)
    if not isinstance(hat, HAT):
        raise ValueError(
            f"tiles of a {getattr(hat, 'name', type(hat).__name__)} are not exported, only HAT's: leave --tile out for "
            "a network of any size"
        )
    fixed = (None,) * 4
    written = [write_onnx(exported(hat, side=tile + 2 * halo), path, {"lr": fixed, "sr": fixed}, facts)]
    if why_no_eraser(model, halo) is None:
        free, scaled = ("height", "width"), (f"{model.scale}*height", f"{model.scale}*width")
        names = {"stitched": scaled, "lr": free, "seams": free, "sr": scaled}
        sizes = {name: (None, None, *own) for name, own in names.items()}
        program = _exported_eraser(EraserAt(model, halo))
        written.append(write_onnx(program, eraser_path(path), sizes, facts))
    else:
        _remove_eraser(eraser_path(path))
    return written


def _remove_eraser(path: Path) -> None:
    """Remove an eraser of an earlier export; any other file of that name stays."""
    import onnx

    with suppress(Exception):  # not there, or no ONNX file
        if {"tile", "halo", "radius"} <= {p.key for p in onnx.load(path).metadata_props}:
            path.unlink()


def eraser_path(path: Path | str) -> Path:
    """The eraser's file beside the tile network's: model.onnx -> model_eraser.onnx."""
    path = Path(path)
    return path.with_name(f"{path.stem}_eraser{path.suffix}")


def why_no_eraser(model: TiledSR, halo: int) -> str | None:
    """In a sentence, why tiles with `halo` LR pixels of context are exported without an eraser; None where with it."""
    if not model.radius:
        return "the eraser is of the older kind, blind to where seams are: only the tile network is written"
    if not model.unit(halo):
        return f"the eraser does nothing for tiles with a halo of {halo}: only the tile network is written"
    return None


class EraserAt(nn.Module):
    """The eraser of `model` for tiles with `halo` LR pixels of context: (stitched, lr, seams) -> erased."""

    def __init__(self, model: TiledSR, halo: int):
        super().__init__()
        self.model, self.unit = model, model.unit(halo)

    def forward(self, stitched: Tensor, lr: Tensor, seams: Tensor) -> Tensor:
        """(1, C, H*scale, W*scale), (1, C, H, W), (1, 4, H, W) -> (1, C, H*scale, W*scale)."""
        return self.model.erase(stitched, lr, seams, self.unit)


def _exported_eraser(eraser: EraserAt) -> ExportedProgram:
    inputs = example_inputs(eraser.model, 17, 21, tile=eraser.model.window, halo=0)
    height, width, scale = Dim("height"), Dim("width"), eraser.model.scale
    lr = {2: height, 3: width}
    stitched = {2: scale * height, 3: scale * width} if scale > 1 else lr
    return free_program(eraser, tuple(inputs.values()), (stitched, lr, lr))


def example_inputs(model: TiledSR, height: int, width: int, *, tile: int, halo: int) -> dict[str, Tensor]:
    """Random pictures and a true map of seams, as the exported eraser takes them."""
    random, channels, scale = torch.Generator().manual_seed(0), model.out_conv.weight.shape[0], model.scale
    channels //= scale**2
    seams = model.seen(plan_tiles(height, width, tile=tile, halo=halo, window=model.window))
    assert seams is not None  # of radius 0, which has no exported eraser
    stitched = torch.rand(1, channels, height * scale, width * scale, generator=random)
    return {"stitched": stitched, "lr": torch.rand(1, channels, height, width, generator=random), "seams": seams}


def export_tile_files(
    model: Path | str,
    output: Path,
    *,
    tile: int,
    halo: int | None = None,
    img_range: float | None = None,
    conv_scale: float | None = None,
) -> float:
    """export_tiles of the checkpoint `model`, compared with PyTorch; prints what it finds. img_range, conv_scale: as
    `load` takes them.

    Returns the largest difference: 0 where onnxruntime is not installed, infinity for a NaN.
    """
    check_suffix(output, ".onnx")
    check_writable(output.parent)
    network = load(model, img_range=img_range, conv_scale=conv_scale)
    halo = network.tile_pad if halo is None else halo
    written = export_tiles(network, output, tile=tile, halo=halo)
    for path in written:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    if why := why_no_eraser(network, halo):
        print(why)
    if not can_compare():
        return 0.0
    side, hat = tile + 2 * halo, cast(HAT, unwrapped(network.hat_model))
    lr = torch.rand(1, hat.config["in_chans"], side, side, generator=torch.Generator().manual_seed(0))
    worst = largest_difference(output, hat, {"lr": lr})
    print(f"tile network, {side}x{side}: largest difference from PyTorch {worst:.1e}")
    if why:
        return worst
    eraser = EraserAt(network, halo)
    for height, width in ((side + tile, side + tile + 3), (side + tile + 5, tile)):  # with seams along both axes, one
        inputs = example_inputs(network, height, width, tile=tile, halo=halo)
        difference = largest_difference(written[1], eraser, inputs)
        with torch.no_grad():
            changes = (eraser(**inputs) - inputs["stitched"]).abs().max().item()
        print(f"eraser, {width}x{height}: largest difference {difference:.1e}, it changes up to {changes:.1e}")
        worst = max(worst, difference)
    return worst
