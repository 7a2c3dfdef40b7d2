"""Multi-scale PatchGAN discriminator with spectral normalisation."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class MultiScaleDiscriminator(nn.Module):
    """One PatchGAN a scale (Wang et al., pix2pixHD, 2018); each sees the picture at half the size of the last.

    forward: (B, in_chans, H, W) in [0, 1], H and W at least 16 * 2**(scales - 1) -> `scales` maps (B, 1, h, w)
    of logits, above zero where the picture looks real. Every convolution has spectral norm 1 (Miyato et al.,
    2018), so that no gradient penalty is needed.
    """

    def __init__(self, in_chans: int = 3, channels: int = 64, scales: int = 3):
        super().__init__()
        self.nets = nn.ModuleList(_patch_gan(in_chans, channels) for _ in range(scales))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, in_chans, H, W) in [0, 1] -> a map of logits (B, 1, h, w) a scale. ValueError when it is too small."""
        smallest = min(x.shape[-2:]) >> (len(self.nets) - 1)
        if smallest < 16:
            raise ValueError(
                f"a {x.shape[-1]}x{x.shape[-2]} picture is too small for {len(self.nets)} scales: "
                f"give at least {16 << (len(self.nets) - 1)} pixels a side, or fewer scales"
            )
        answers = []
        for i, net in enumerate(self.nets):
            if i:
                x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
            answers.append(net(x))
        return answers


def _patch_gan(in_chans: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_chans, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width, stride in ((2, 2), (4, 1)):
        layers += [spectral_norm(nn.Conv2d(channels * width // 2, channels * width, 4, stride, 1)), nn.LeakyReLU(0.2)]
    layers[0] = spectral_norm(layers[0])
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels * 4, 1, 4, 1, 1)))
