"""Learnable weights of several losses: softmax, and three forms that keep it from moving all weight to the smallest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srlib.losses.processes import over_processes

FORMS = ("plain", "normalised", "entropy", "uncertainty")


class LearnableWeights(nn.Module):
    """Learned weights of n losses: softmax over n parameters, so that they sum to 1.

    form: "plain" - the weighted sum. Its gradient moves all weight to the smallest loss, useful or not.
    "normalised" - each loss is divided by its running mean first, so that none is smallest by its scale.
    "entropy" - plain, minus `beta` times the weights' entropy, which holds them apart from 0 and 1.
    "uncertainty" - sum of exp(-s) L + s (Kendall et al., CVPR 2018); `shares` are exp(-s), rescaled to sum 1.
    each: of how many losses each of the n is a weighted sum; "uncertainty" counts its s as often.
    momentum: of the running mean, which is taken over all processes and passes non-finite losses over.
    """

    running: Tensor  # (n,)
    seen: Tensor

    def __init__(self, n: int, form: str = "plain", *, each: int = 1, beta: float = 0.1, momentum: float = 0.01):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"learnable weights {form!r}: choose one of {', '.join(FORMS)}")
        self.form, self.each, self.beta, self.momentum = form, each, beta, momentum
        self.raw = nn.Parameter(torch.zeros(n))
        self.register_buffer("running", torch.zeros(n))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def shares(self) -> Tensor:
        """(n,) the current weights, summing to 1, without gradient."""
        return F.softmax(-self.raw if self.form == "uncertainty" else self.raw, 0).detach()

    def factors(self) -> Tensor:
        """(n,) what each loss is multiplied by: its weight, or that over the running mean, or exp(-s)."""
        if self.form == "uncertainty":
            return (-self.raw).exp()
        weights = F.softmax(self.raw, 0)
        return weights / self.running.clamp_min(1e-12) if self.form == "normalised" else weights

    def penalty(self) -> Tensor:
        """What the weights themselves add to the sum, a scalar: 0 for "plain" and "normalised"."""
        if self.form == "uncertainty":
            return self.each * self.raw.sum()
        if self.form == "entropy":
            return self.beta * (F.softmax(self.raw, 0) * F.log_softmax(self.raw, 0)).sum()
        return self.raw.new_zeros(())

    def forward(self, losses: Tensor) -> Tensor:
        """losses: (n,) -> scalar."""
        if self.form == "normalised" and self.training:
            self._follow(losses.detach())
        return (self.factors() * losses).sum() + self.penalty()

    @torch.no_grad()
    def _follow(self, losses: Tensor) -> None:
        losses = over_processes(losses.to(self.running))
        finite = losses.isfinite().all()  # one NaN would stay in the mean for ever
        self.seen += finite
        rate = (1 / self.seen).clamp_min(self.momentum)  # the plain mean at first, so that no batch sets the scale
        self.running.copy_(torch.where(finite, self.running.lerp(losses, rate), self.running))
