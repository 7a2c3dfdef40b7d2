"""A foreign network beside its walk: what tiling asks of a network, in one small module."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

Run = Callable[..., Any]  # as srlib.networks.walk.whole, which says what its arguments mean


class Adapted(nn.Module):
    """Upscales (B, channels, H, W) to (B, channels', H*scale, W*scale) as `model` does, whole or step by step.

    model: the foreign network. steps: its forward as a list of steps, steps(model, picture, run, out), which pads the
    picture in the model's own way and returns the last run's answer, which may be larger. channels: that it takes.
    window: chunks lie on multiples of it, in pixels of the picture. minimum, multiple: sizes that the model needs but
    does not itself pad to; the picture is then mirrored at its right and bottom, and where that ends its edge repeated.

    `config` says what it is: {"architecture": name, "in_chans": channels, "arguments": the model's own}.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Callable[[Any, Tensor, Run, Any], Tensor],
        *,
        scale: int,
        channels: int,
        window: int = 1,
        minimum: int = 1,
        multiple: int = 1,
    ):
        super().__init__()
        self.model, self.steps = model, steps
        self.scale, self.window, self.minimum, self.multiple = scale, window, minimum, multiple
        arguments = dict(getattr(model, "hyperparameters", {}))
        self.config = {"architecture": type(model).__name__, "in_chans": channels, "arguments": arguments}
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels', H*scale, W*scale): the model's own answer."""
        H, W = x.shape[2] * self.scale, x.shape[3] * self.scale
        return self.model(self._enough(x))[:, :, :H, :W]

    def walk(self, x: Tensor, run: Run, out: Any = None) -> Tensor:
        """The network, each step of it executed by `run`: see srlib.networks.walk.whole.

        Returns what the last run, with `out`, returns: (B, H', W', channels'), at least the picture upscaled.
        """
        channels = self.config["in_chans"]
        if x.shape[1] != channels:
            name = self.config["architecture"]
            raise ValueError(f"this {name} takes {channels} channels, the picture has {x.shape[1]}")
        return self.steps(self.model, self._enough(x), run, out)

    def _enough(self, x: Tensor) -> Tensor:
        """A copy of x, as some networks write over what they are given; padded where the model needs it."""
        sides = [max(self.minimum, side) for side in x.shape[2:]]
        below, right = (s + -s % self.multiple - side for s, side in zip(sides, x.shape[2:], strict=True))
        mirrored = min(below, x.shape[2] - 1), min(right, x.shape[3] - 1)
        if not below and not right:
            return x.clone()
        x = F.pad(x, (0, mirrored[1], 0, mirrored[0]), mode="reflect") if any(mirrored) else x
        return F.pad(x, (0, right - mirrored[1], 0, below - mirrored[0]), mode="replicate")


def padded(x: Tensor, multiple: int, mode: str = "reflect") -> Tensor:
    """(B, C, H, W) -> the picture padded at its right and bottom, then with channels last: (B, H', W', C)."""
    H, W = x.shape[-2:]
    if H % multiple or W % multiple:
        x = F.pad(x, (0, -W % multiple, 0, -H % multiple), mode=mode)
    return x.permute(0, 2, 3, 1)
