"""The loss of a network that answers at two sizes, of which the ground truth has one."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from srlib.losses.total import DualLoss


class TwoSizes(nn.Module):
    """DualLoss for answers (B, C, H, W) and (B, C, 2*H, 2*W) and ground truth (B, C, H, W): the larger answer's target
    is the ground truth enlarged bilinearly, which adds no detail, so that it learns to be as good and twice as large.

    form, perceptual_network: as of DualLoss.
    """

    def __init__(self, form: str = "plain", *, perceptual_network: nn.Module | None = None):
        super().__init__()
        self.both = DualLoss(form, perceptual_network=perceptual_network)
        self.networks, self.config = self.both.networks, self.both.config

    def forward(
        self, prediction: Sequence[Tensor], target: Tensor, original: Tensor | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Returns (total, terms) as DualLoss does. original: as the training loop gives it, not looked at."""
        twice = F.interpolate(target, scale_factor=2, mode="bilinear", align_corners=False)
        return self.both(prediction, [target, twice])
