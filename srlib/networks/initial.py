"""Starting weights: an untrained HAT that already upscales, one of another scale's weights, and one that looks far."""

import torch
from torch import Tensor, nn

from srlib.networks.hat import HAT


@torch.no_grad()
def start_as_interpolation(hat: HAT) -> HAT:
    """Change a HAT's initial weights, in place, so that its untrained answer is the bilinear upscaling; at scale 1 the
    picture itself.

    The picture travels in channels of its own. A plus and a minus copy of each colour pass the LeakyReLU, whose
    difference is linear in the colour; the upsampler's kernels do the rest. Everything else stays random. On a
    small network some hundred steps are saved, and the loss never starts from noise. Raises ValueError for a HAT whose
    embed_dim or num_feat leaves no room for these channels.
    """
    colours = hat.conv_first.in_channels
    for name, least in (("embed_dim", colours), ("num_feat", 2 * colours)):
        if hat.config[name] < least:
            raise ValueError(f"{name} {hat.config[name]} must be at least {least} to start as an interpolation")
    before_upsample, relu = hat.conv_before_upsample
    assert isinstance(before_upsample, nn.Conv2d) and isinstance(relu, nn.LeakyReLU)
    slope = relu.negative_slope
    for conv, channels in [
        (hat.conv_first, colours),
        (hat.conv_after_body, colours),
        (before_upsample, 2 * colours),
        (hat.conv_last, colours),
    ]:
        _clear(conv, channels)
    for c in range(colours):
        hat.conv_first.weight[c, c, 1, 1] = 1
        before_upsample.weight[c, c, 1, 1] = 1
        before_upsample.weight[colours + c, c, 1, 1] = -1
        hat.conv_last.weight[c, c, 1, 1] = 1
    convs = [m for m in hat.upsample if isinstance(m, nn.Conv2d)]
    if not convs:  # nothing else joins the two copies again
        for c in range(colours):
            hat.conv_last.weight[c, c, 1, 1] = 1 / (1 + slope)
            hat.conv_last.weight[c, colours + c, 1, 1] = -1 / (1 + slope)
    for i, conv in enumerate(convs):
        r = round((conv.out_channels / conv.in_channels) ** 0.5)
        _clear(conv, colours * r * r)
        for c in range(colours):
            for sub in range(r * r):
                kernel = torch.outer(_linear_taps(sub // r, r), _linear_taps(sub % r, r)).to(conv.weight)
                if i == 0:
                    conv.weight[c * r * r + sub, c] = kernel / (1 + slope)
                    conv.weight[c * r * r + sub, colours + c] = -kernel / (1 + slope)
                else:
                    conv.weight[c * r * r + sub, c] = kernel
    return hat


def rescaled(hat: HAT, scale: int) -> HAT:
    """A HAT of another scale with this one's weights in all but its upsampler, which starts at random, as x4 networks
    are begun with those of x2 by custom.
    """
    other = HAT(**{**hat.config, "upscale": scale})
    kept = {name: weight for name, weight in hat.state_dict().items() if not name.startswith("upsample.")}
    missing, unknown = other.load_state_dict(kept, strict=False)
    assert not unknown and all(name.startswith("upsample.") for name in missing)
    return other


@torch.no_grad()
def start_far_reaching(hat: HAT, seed: int = 0) -> HAT:
    """Give a HAT random weights, in place, in which every part counts: for tests and benchmarks of tiling.

    An untrained HAT hardly looks beyond a pixel's neighbours, so any way of tiling it would look good.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in hat.named_parameters():
        if "bias_table" in name:
            parameter.normal_(0, 0.5, generator=generator)
        elif parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.normal_(0, 1.2 * fan_in**-0.5, generator=generator)
        elif "norm" not in name:
            parameter.normal_(0, 0.05, generator=generator)
    return hat


def _clear(conv: nn.Conv2d, channels: int) -> None:
    """Zero the first output channels of a convolution."""
    conv.weight[:channels] = 0
    if conv.bias is not None:
        conv.bias[:channels] = 0


def _linear_taps(phase: int, r: int) -> Tensor:
    """Weights of the left, same and right LR pixel for sub-pixel `phase` of an r-fold linear upscaling."""
    offset = (phase + 0.5) / r - 0.5
    return torch.tensor([max(-offset, 0.0), 1 - abs(offset), max(offset, 0.0)])
