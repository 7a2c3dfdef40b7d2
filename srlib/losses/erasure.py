"""What stage 3 learns from: the frozen network's own whole picture, and the terms of TotalLoss on top."""

from typing import Any

from torch import Tensor, nn

from srlib.losses.total import TotalLoss

TEACHERS = ("whole", "ground_truth")


class ErasureLoss(nn.Module):
    """The squared error to the whole picture in units of what tiling makes near seams, and other terms on top.

    weight: of that error, which is about the share of the picture near seams before training, for a weak network as
    for a strong one, at any context; 0 leaves it out. terms: TotalLoss of the others, None for none.
    teacher: what the other terms compare with, "whole", the network's own whole picture, or "ground_truth".
    Raises ValueError for another teacher, and when there is nothing to learn from.
    """

    def __init__(self, weight: float = 1.0, terms: TotalLoss | None = None, teacher: str = "whole"):
        super().__init__()
        if teacher not in TEACHERS:
            raise ValueError(f"teacher {teacher!r} is none of {', '.join(TEACHERS)}")
        if weight < 0 or not (weight or terms):
            raise ValueError(
                f"tiling_error is {weight} and all other weights are 0: there is nothing to learn from. Set "
                "tiling_error to 1, or pixel"
            )
        self.weight, self.terms, self.teacher = weight, terms, teacher
        self.networks: tuple[Any, ...] = terms.networks if terms else ()
        self.config = {"tiling_error": weight, "teacher": teacher, **(terms.config if terms else {})}

    def forward(
        self, prediction: Tensor, target: tuple[Tensor, Tensor], original: Tensor
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """prediction: (B, C, H, W); target: the whole pictures, of the same size, and their units (B, 1, 1, 1), 0 where
        tiling makes no error to learn; original: the ground truth. Returns (total, terms) as TotalLoss does.
        """
        whole, unit = target
        total, terms = prediction.new_zeros(()), {}
        if self.weight:
            inverse = unit.reciprocal().where(unit > 0, 0.0)
            error = ((prediction - whole) * inverse).square().mean()
            total = self.weight * error
            terms["tiling_error"] = {"raw": error.detach(), "weighted": total.detach()}
        if self.terms is not None:
            more, others = self.terms(prediction, original if self.teacher == "ground_truth" else whole, original)
            total, terms = total + more, {**terms, **others}
        return total, terms
