"""What DiffIR's second stage learns from: the first stage's prior of input and ground truth, and the picture itself."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from srlib.losses.total import TotalLoss
from srlib.networks.diffir import DiffIR


class WithTruth(Dataset):
    """The items of `patches` for DiffIR: stage 1's model gets input and ground truth, stage 2's loss gets them."""

    def __init__(self, patches: Any, stage: int):
        self.patches, self.stage = patches, stage
        self.key = getattr(patches, "key", "")

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: Any) -> dict:
        item = self.patches[key]
        both = (item["lr"], item["hr"])
        return {**item, "lr": both} if self.stage == 1 else {**item, "target": both}

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))


class PriorLoss(nn.Module):
    """L1 between guessed and true prior, and, where pictures are learned too, TotalLoss of them.

    teacher: a trained stage 1, which says what the true prior is and does not learn. picture: None where the model
    answers with the prior alone. weight: of the prior.
    """

    def __init__(self, teacher: DiffIR, picture: TotalLoss | None = None, weight: float = 1.0):
        super().__init__()
        if teacher.stage != 1:
            raise ValueError("the teacher of a prior is DiffIR's first stage")
        self.picture, self.weight = picture, weight
        teacher = teacher.requires_grad_(False).eval()
        # not registered: the teacher belongs neither to this loss's optimizer nor to its state
        self.networks: tuple[Any, ...] = (teacher, *(picture.networks if picture else ()))
        self.config = {"prior": weight, **(picture.config if picture else {})}

    def _apply(self, fn: Any, recurse: bool = True) -> "PriorLoss":
        """What to(), cuda() and double() call: the teacher goes along."""
        self.networks[0]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(
        self, prediction: Any, target: tuple[Tensor, Tensor], original: Tensor | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """prediction: (B, P), or the pair of picture and prior; target: input and ground truth, (B, C, H, W). Returns
        (total, terms) as TotalLoss does.
        """
        x, truth = target
        picture, prior = prediction if self.picture else (None, prediction)
        with torch.no_grad():
            wanted = self.networks[0].prior(x, truth=truth)
        error = (prior.float() - wanted.float()).abs().mean()
        total = self.weight * error
        terms = {"prior": {"raw": error.detach(), "weighted": total.detach()}}
        if self.picture:
            more, others = self.picture(picture, truth, original)
            total, terms = total + more, {**terms, **others}
        return total, terms
