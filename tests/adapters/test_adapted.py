"""Every adapter: exact tiling of a foreign network, at its true depth, is its own answer to the whole picture."""

from importlib import import_module
from typing import Any

import pytest
import torch
from tilings import tiled
from torch import nn

from srlib.adapters import adapter_for
from srlib.networks.walk import whole

SWIN = {"img_size": 32, "embed_dim": 12, "depths": [6] * 4, "num_heads": [2] * 4, "window_size": 8, "mlp_ratio": 2}
DRCT = {"embed_dim": 12, "depths": [6] * 6, "num_heads": [2] * 6, "window_size": 8, "gc": 4, "upscale": 2}
DAT = {"img_size": 64, "embed_dim": 32, "num_heads": [2], "split_size": [8, 32], "expansion_factor": 2}
# name: architecture, arguments, chunk, two odd sizes
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "Compact": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_feat": 8, "num_conv": 32}, 16),
    "Compact, ReLU": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_feat": 8, "act_type": "relu", "upscale": 1}, 16),
    "ESRGAN x4": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 8}, 20),
    "ESRGAN x2, folded": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 8, "in_nc": 12, "shuffle_factor": 2}, 20),
    "ESRGAN x1, folded": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 8, "in_nc": 48, "shuffle_factor": 4}, 20),
    "ESRGAN+ x3": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 8, "num_blocks": 6, "scale": 3, "plus": True}, 20),
    "ESRGAN x8, shuffled": (
        "ESRGAN.__arch.RRDB.RRDBNet",
        {"num_filters": 8, "num_blocks": 2, "scale": 8, "upsampler": "pixel_shuffle", "norm": "batch"},
        20,
    ),
    "SPAN": ("SPAN.__arch.span.SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 12}, 16),
    "SPAN, as it is": ("SPAN.__arch.span.SPAN", {"num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "norm": False}, 16),
    "PLKSR": ("PLKSR.__arch.PLKSR.PLKSR", {"dim": 8}, 24),
    "PLKSR, tiny": ("PLKSR.__arch.PLKSR.PLKSR", {"dim": 8, "n_blocks": 12, "kernel_size": 13, "ccm_type": "DCCM"}, 24),
    "PLKSR, sparse": ("PLKSR.__arch.PLKSR.PLKSR", {"dim": 8, "n_blocks": 3, "lk_type": "SparsePLK"}, 24),
    "PLKSR, rectangles": ("PLKSR.__arch.PLKSR.PLKSR", {"dim": 8, "n_blocks": 3, "lk_type": "RectSparsePLK"}, 24),
    "RealPLKSR": ("PLKSR.__arch.RealPLKSR.RealPLKSR", {"dim": 8}, 24),
    "RealPLKSR, layer norm": ("PLKSR.__arch.RealPLKSR.RealPLKSR", {"dim": 8, "layer_norm": True}, 24),
    "RCAN": ("RCAN.__arch.rcan_arch.RCAN", {"n_feats": 8, "reduction": 4}, 24),
    "RCAN x2, folded": ("RCAN.__arch.rcan_arch.RCAN", {"n_feats": 8, "n_resgroups": 2, "scale": 2, "reduction": 4}
                        | {"unshuffle_mod": True, "norm": False}, 24),
    "NAFNet": ("NAFNet.__arch.NAFNet_arch.NAFNet", {"width": 8, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1] * 4},
               16),
    "MoSR": ("MoSR.__arch.mosr_arch.MoSR", {"dim": 8}, 24),
    "MoSR, mean of eight": ("MoSR.__arch.mosr_arch.MoSR", {"dim": 8, "n_block": 4, "upsampler": "gps"}, 24),
    "SwinIR": ("SwinIR.__arch.SwinIR.SwinIR", SWIN | {"upscale": 2, "upsampler": "pixelshuffledirect"}, 24),
    "SwinIR, real": (
        "SwinIR.__arch.SwinIR.SwinIR",
        SWIN | {"depths": [2] * 2, "num_heads": [2] * 2, "upscale": 4, "upsampler": "nearest+conv"}
        | {"resi_connection": "3conv"},
        24,
    ),
    "SwinIR, classical x3": (
        "SwinIR.__arch.SwinIR.SwinIR",
        SWIN | {"depths": [2] * 2, "num_heads": [2] * 2, "upscale": 3, "upsampler": "pixelshuffle", "img_range": 255.0},
        24,
    ),
    "SwinIR, grey denoising": (
        "SwinIR.__arch.SwinIR.SwinIR",
        SWIN | {"in_chans": 1, "depths": [2] * 2, "num_heads": [2] * 2},
        24,
    ),
    "Swin2SR": ("Swin2SR.__arch.Swin2SR.Swin2SR", SWIN | {"upscale": 2, "upsampler": "pixelshuffledirect"}, 24),
    "SCUNet": ("SCUNet.__arch.SCUNet.SCUNet", {"config": [4] * 7}, 64),
    "DRCT": ("DRCT.__arch.drct_arch.DRCT", DRCT | {"upsampler": "pixelshuffle"}, 24),
    "DAT, light": ("DAT.__arch.DAT.DAT", DAT | {"depth": [18], "upsampler": "pixelshuffledirect"}, 32),
    "DAT": (
        "DAT.__arch.DAT.DAT",
        DAT | {"depth": [6] * 2, "num_heads": [2] * 2, "upscale": 3, "split_size": [8, 16], "resi_connection": "3conv"},
        32,
    ),
}  # fmt: skip


def network(name: str) -> nn.Module:
    """With random weights, of norms too, so that the answer depends on all of them."""
    path, arguments, _ = CASES[name]
    home, _, kind = path.rpartition(".")
    module = getattr(import_module(f"spandrel.architectures.{home}"), kind)(**arguments)
    return lively(module)


@torch.no_grad()
def lively(module: nn.Module) -> nn.Module:
    """As `network` wants it."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
        if "Norm" in type(part).__name__ and getattr(part, "weight", None) is not None:
            part.weight.normal_(1, 0.2)
    for parameter_name, parameter in module.named_parameters():
        if parameter.ndim == 1 and parameter_name.endswith("bias"):
            parameter += torch.randn_like(parameter) * 0.1
        if parameter_name.endswith(("beta", "gamma")):
            parameter.normal_(std=0.3)
        if "position" in parameter_name:
            parameter.normal_(std=0.5)
    return module.eval()


@pytest.mark.parametrize("size", [(45, 83), (101, 67)], ids=str)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_exact_is_the_networks_own_answer(name, size):
    module, chunk = network(name), CASES[name][2]
    model = adapter_for(module)
    x = torch.rand(1, model.config["in_chans"], *size)
    expected = model(x)
    steps = []
    options = {"scale": model.scale, "tile": chunk, "halo": 0, "window": model.window, "statistics": "exact"}
    picture, report = tiled(model, x, **options, progress=lambda *done: steps.append(done))
    reach = expected.max() - expected.min()
    error = (picture - expected).abs().max() / reach
    print(f"{name} {size}: error {error:.1e} of a range of {reach:.3g}, std {expected.std():.3g}, {len(report.plan)} chunks")
    assert picture.shape == expected.shape == (1, x.shape[1], size[0] * model.scale, size[1] * model.scale)
    assert len(report.plan) >= 2 and steps[-1][0] == steps[-1][1] == len(steps)
    assert expected.isfinite().all() and expected.std() > 1e-2 * reach and error <= 2e-5
    if not name.startswith("DRCT"):
        assert torch.equal(expected, module(x.clone()))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_nothing_is_left_out(name):
    """In double precision what rounding hides would show: a step that looks one pixel too short, a window off its grid."""
    model = adapter_for(network(name).double())
    x = torch.rand(2, model.config["in_chans"], 39, 70, dtype=torch.float64)
    expected = model(x)
    options = {"tile": CASES[name][2], "halo": 0, "window": model.window}
    picture, report = tiled(model, x, scale=model.scale, statistics="exact", **options)
    reach = expected.max() - expected.min()
    assert len(report.plan) >= 2 and (picture - expected).abs().max() <= 1e-11 * reach
    tiles, _ = tiled(model, x, scale=model.scale, **options)
    print(name, (picture - expected).abs().max() / reach, (tiles - expected).abs().max() / reach)
    assert (tiles - expected).abs().max() >= 1e-4 * reach  # which tiles do not reach
