"""Every adapter: exact tiling of a foreign network, at its true depth, is its own answer to the whole picture."""

from importlib import import_module
from typing import Any

import pytest
import torch
from second_device import second_device
from tilings import tiled
from torch import nn

from srlib.adapters import adapter_for
from srlib.networks.eraser import TiledSR
from srlib.networks.walk import whole
from srlib.tiling.memory import peak_of
from srlib.tiling.tiled import Execution

SWIN = {"img_size": 32, "embed_dim": 12, "depths": [6] * 4, "num_heads": [2] * 4, "window_size": 8, "mlp_ratio": 2}
DRCT = {"embed_dim": 12, "depths": [6] * 6, "num_heads": [2] * 6, "window_size": 8, "gc": 4, "upscale": 2}
DAT = {"img_size": 64, "embed_dim": 32, "num_heads": [2], "split_size": [8, 32], "expansion_factor": 2}
FEW = {"num_filters": 4, "num_blocks": 3}
# name: architecture, arguments, chunk
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "Compact": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_feat": 8, "num_conv": 32}, 24),
    "Compact, ReLU": ("Compact.__arch.SRVGG.SRVGGNetCompact", {"num_feat": 8, "act_type": "relu", "upscale": 1}, 16),
    "ESRGAN": ("ESRGAN.__arch.RRDB.RRDBNet", {"num_filters": 4}, 32),
    "ESRGAN x4, short": ("ESRGAN.__arch.RRDB.RRDBNet", FEW, 20),
    "ESRGAN x2, folded": ("ESRGAN.__arch.RRDB.RRDBNet", FEW | {"in_nc": 12, "shuffle_factor": 2}, 20),
    "ESRGAN x1, folded": ("ESRGAN.__arch.RRDB.RRDBNet", FEW | {"in_nc": 48, "shuffle_factor": 4}, 20),
    "ESRGAN+ x3": ("ESRGAN.__arch.RRDB.RRDBNet", FEW | {"scale": 3, "plus": True}, 20),
    "ESRGAN x8, shuffled": (
        "ESRGAN.__arch.RRDB.RRDBNet",
        FEW | {"scale": 8, "upsampler": "pixel_shuffle", "norm": "batch"},
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
    "MoSR, sampled": ("MoSR.__arch.mosr_arch.MoSR", {"dim": 8, "n_block": 4, "upsampler": "dys", "upscale": 2}, 24),
    "RealPLKSR, sampled": ("PLKSR.__arch.RealPLKSR.RealPLKSR", {"dim": 8, "n_blocks": 3, "dysample": True}, 24),
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
        if "position" in parameter_name or "scope" in parameter_name:
            parameter.normal_(std=0.5)
        if "offset" in parameter_name:
            parameter.normal_(std=5.0)
    return module.eval()


@pytest.mark.parametrize("size", [(45, 73), (71, 67)], ids=str)
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
    width = expected.max() - expected.min()
    assert picture.shape == expected.shape == (1, x.shape[1], size[0] * model.scale, size[1] * model.scale)
    assert len(report.plan) >= 2 and steps[-1][0] == steps[-1][1] == len(steps)
    assert expected.std() > 1e-2 * width and (picture - expected).abs().max() <= 2e-5 * width
    if not name.startswith("DRCT"):
        assert torch.equal(expected, module(x.clone()))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_nothing_is_left_out(name):
    """In double precision what rounding hides shows: a step that looks one pixel too short, a window off its grid."""
    chunk = CASES[name][2]
    model = adapter_for(network(name).double())
    x = torch.rand(1, model.config["in_chans"], 21, chunk + 3, dtype=torch.float64)
    expected = model(x)
    options = {"scale": model.scale, "tile": chunk, "halo": 0, "window": model.window}
    picture, report = tiled(model, x, statistics="exact", **options)
    width = expected.max() - expected.min()
    assert len(report.plan) >= 2 and (picture - expected).abs().max() <= 1e-11 * width
    tiles, _ = tiled(model, x, **options)
    assert (tiles - expected).abs().max() >= 1e-3 * width  # where tiles by themselves are far off


@pytest.mark.parametrize("name", ["DAT, light", "SCUNet", "ESRGAN x2, folded", "NAFNet", "DRCT", "Swin2SR", "SwinIR"])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5)], ids=str)
@torch.no_grad()
def test_pictures_smaller_than_a_window(name, size):
    model = adapter_for(network(name))
    x = torch.rand(2, 3, *size)
    expected = model(x)
    assert expected.shape[2:] == (size[0] * model.scale, size[1] * model.scale)
    for tile in (model.window, 2 * model.window):
        options = {"scale": model.scale, "tile": tile, "halo": 0, "window": model.window}
        picture, _ = tiled(model, x, statistics="exact", **options)
        assert picture.shape == expected.shape
        assert (picture - expected).abs().max() <= 2e-5 * (expected.max() - expected.min())


@pytest.mark.parametrize("name", ["DAT, light", "SwinIR", "RealPLKSR"])
@torch.no_grad()
def test_whole_maps_go_through_the_same_steps(name, tmp_path):
    model = adapter_for(network(name))
    x = torch.rand(2, 3, 43, 34)
    expected = model(x)
    walked = model.walk(x, whole).permute(0, 3, 1, 2)[..., : expected.shape[2], : expected.shape[3]]
    assert (walked - expected).abs().max() <= 2e-5 * (expected.max() - expected.min())
    options = {"tile": 32, "statistics": "exact", "how": Execution(features=str(tmp_path))}
    picture, report = TiledSR(model).eval().tiled(x, **options)
    assert (picture - expected).abs().max() <= 2e-5 * (expected.max() - expected.min())
    assert "exact, in 4 chunks of 32" in str(report) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["DAT, light", "SwinIR", "RCAN", "SPAN"])
@pytest.mark.parametrize("features", ["device", "host"])
@torch.no_grad()
def test_maps_may_lie_elsewhere_than_the_weights(name, features):
    model = adapter_for(network(name))
    x = torch.rand(1, 3, 20, 40)
    expected = model(x)
    with second_device() as device:
        model.to(device)
        options = {"tile": CASES[name][2], "halo": 0, "window": model.window, "features": features}
        picture, _ = tiled(model, x, scale=model.scale, statistics="exact", **options)
        assert (picture.cpu() - expected).abs().max() <= 2e-5 * (expected.max() - expected.min())
        model.cpu()


@torch.no_grad()
def test_half_precision_is_as_near_as_the_networks_own():
    for name in ("DAT, light", "RealPLKSR", "SCUNet"):
        model = adapter_for(network(name))
        x = torch.rand(1, 3, 32, 40)
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            whole_error = (model(x).float() - expected).abs().mean()
        options = {"tile": CASES[name][2], "halo": 0, "window": model.window, "dtype": torch.bfloat16}
        picture, _ = tiled(model, x, scale=model.scale, statistics="exact", **options)
        assert (picture - expected).abs().mean() < 2 * whole_error


@torch.no_grad()
def test_group_norms_over_windows_of_the_size_of_training():
    """What exact is not: each window's own statistics (TLC); as large as the picture they are the picture's."""
    model = adapter_for(network("RealPLKSR"))
    x = torch.rand(1, 3, 64, 48) * torch.linspace(0, 1, 48)
    options = {"scale": 4, "tile": 16, "halo": 0, "statistics": "window"}
    expected = model(x)
    assert (tiled(model, x, span=64, **options)[0] - expected).abs().max() <= 2e-5 * (expected.max() - expected.min())
    assert (tiled(model, x, span=24, **options)[0] - expected).abs().max() > 1e-2


@torch.no_grad()
def test_it_takes_a_fraction_of_the_memory():
    model = adapter_for(network("ESRGAN x4, short"))
    x = torch.rand(1, 3, 96, 96)
    whole_peak = peak_of(lambda: model(x), x.device)[1]
    options = {"scale": 4, "tile": 24, "halo": 0, "statistics": "exact"}
    assert peak_of(lambda: tiled(model, x, **options), x.device)[1] < 0.4 * whole_peak


def test_none_where_there_is_no_adapter_or_none_for_the_kind():
    from spandrel.architectures.OmniSR import OmniSR
    from spandrel.architectures.Swin2SR import Swin2SR
    from spandrel.architectures.SwinIR import SwinIR

    small = {"depths": [2], "num_heads": [2], "embed_dim": 8, "window_size": 8, "img_size": 16}
    others = [nn.Conv2d(3, 3, 3), OmniSR(up_scale=2, window_size=8, num_feat=8)]
    others += [SwinIR(**small, ape=True), SwinIR(**small, start_unshuffle=2)]
    others += [SwinIR(**small | {"img_size": 4}), Swin2SR(**small, upsampler="pixelshuffle_hf")]
    assert [adapter_for(module.eval()) for module in others] == [None] * 6


def test_both_key_layouts_of_esrgan_are_read():
    from spandrel import MAIN_REGISTRY

    module = network("ESRGAN x2, folded")
    old = module.state_dict()
    names = {
        "model.0.": "conv_first.",
        "model.1.sub.3.": "conv_body.",
        "model.1.sub.": "body.",
        "model.3.": "conv_up1.",
    }
    names |= {"model.6.": "conv_up2.", "model.8.": "conv_hr.", "model.10.": "conv_last.", ".RDB": ".rdb"}
    names |= {f"conv{i}.0.": f"conv{i}." for i in range(1, 6)}
    new = {}
    for name, weight in old.items():
        for before, after in names.items():
            name = name.replace(before, after)
        new[name] = weight
    x = torch.rand(1, 3, 20, 20)
    answers = []
    for state in (old, new):
        model = adapter_for(MAIN_REGISTRY.load(state).model)
        assert (model.scale, model.window, model.config["architecture"]) == (2, 2, "RRDBNet")
        answers.append(model(x))
    assert torch.equal(*answers) and torch.equal(answers[0], module(x))


def test_what_an_adapter_says_of_itself():
    model = adapter_for(network("Compact"))
    assert model.config["in_chans"] == 3 and model.config["arguments"]["num_conv"] == 32 and not model.training
    with pytest.raises(ValueError, match="this SRVGGNetCompact takes 3 channels, the picture has 1"):
        model.walk(torch.rand(1, 1, 8, 8), whole)
    x = torch.rand(1, 3, 24, 24)
    folded = adapter_for(network("RCAN x2, folded"))
    before = x.clone()
    folded(x)
    assert torch.equal(x, before)  # which the network itself would write over
