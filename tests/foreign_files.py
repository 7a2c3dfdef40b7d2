"""Files of other projects' networks, small, with random weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from spandrel import MAIN_REGISTRY
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.OmniSR import OmniSR
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SwinIR import SwinIR
from torch import nn

from srlib.networks.walk import pad_to_multiple, whole

SWINIR = {"img_size": 32, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2}
RRDB = {"num_filters": 8, "num_blocks": 2}
MAKE: dict[str, Callable[..., nn.Module]] = {
    "Compact": lambda **o: Compact(num_feat=8, num_conv=3, **{"upscale": 2, **o}),
    "ESRGAN": lambda **o: ESRGAN(**{"in_nc": 3, "out_nc": 3, **RRDB, "scale": 4, **o}),
    "ESRGAN x2": lambda **o: ESRGAN(in_nc=12, out_nc=3, **RRDB, scale=4, shuffle_factor=2, **o),
    "SPAN": lambda **o: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2, **o),
    "SwinIR": lambda **o: SwinIR(**SWINIR, upscale=2, upsampler="pixelshuffledirect", **o),
    "OmniSR": lambda **o: OmniSR(num_feat=8, block_num=1, res_num=1, up_scale=2, window_size=8, **o),
}


def foreign_file(folder: Path, kind: str, seed: int = 0, **options: object) -> Path:
    """A .pth of the architecture's weights, as its own project saves them."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind.replace(' ', '_')}.pth"
    torch.save({"params_ema": MAKE[kind](**options).state_dict()}, path)
    return path


def described(path: Path):
    """What spandrel itself makes of the file."""
    return MAIN_REGISTRY.load(torch.load(path, weights_only=True))


class Doubling(nn.Module):
    """Stands for an adapter: x2, its blocks of 4 pixels repeated, on a grid of 4."""

    scale, window, config = 2, 4, {"in_chans": 3}

    def forward(self, x):
        return self.walk(x, whole).permute(0, 3, 1, 2)[..., : 2 * x.shape[2], : 2 * x.shape[3]]

    def walk(self, x, run, out=None):
        x = pad_to_multiple(x, 4).permute(0, 2, 3, 1)
        return run(lambda m: m.repeat_interleave(2, 1).repeat_interleave(2, 2), x, out=out)
