"""A detector that says where a picture has which artifact: what it is, its loss and its quality.

No picture is labelled by hand: artifacts are put into clean patches (artifacts.py), so where they are is known. Seams
are real ones: the project's own stage-1 model, run in tiles without context. It is trained as any network here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from srlib.losses.artifacts import ARTIFACTS, CELL, CLASSES, ArtifactPatches, SeamExample, as_image, place
from srlib.networks.eraser import TiledSR
from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import tiled_apply


@torch.no_grad()
def seam_examples(
    model: TiledSR, pictures: Sequence[Tensor], *, tile: int, rng: np.random.Generator, batch: int = 16
) -> list[SeamExample]:
    """Each LR picture (3, h, w) through model.hat_model in tiles of `tile` without context, and whole.

    The tile grid is drawn for each picture, on the window grid, so that its places cannot be learned.
    """
    hat = model.hat_model.eval()
    window, device = hat.window, next(hat.parameters()).device
    examples = []
    for lr in pictures:
        row, column = (int(o) * window for o in rng.integers(0, tile // window, 2))
        x = lr[None].to(device)
        plan = plan_tiles(*x.shape[-2:], tile=tile, halo=0, window=window, offset=(row, column))
        tiled, report = tiled_apply(hat, x, plan, scale=hat.scale, batch=batch)
        assert tiled is not None  # no `out` was given
        whole = hat(x)
        examples.append(SeamExample(tiled[0].clamp(0, 1).cpu(), whole[0].clamp(0, 1).cpu(), report.seams))
    return examples


class ArtifactDetector(nn.Module):
    """Says for every cell of 8x8 pixels which artifacts it has: the heatmap is the answer itself.

    forward: (B, 3, H, W) in [0, 1], any size -> logits (B, K, ceil(H/8), ceil(W/8)), K = len(classes).
    Faint steps, and places without any, are what counts: so the first layer also gets what a small blur removes,
    amplified, and the logarithm of the grey picture's steps. Long thin filters on the grid follow seams, which
    are weak at each place but straight and long; a wide one looks at the cells around, for a grid or a blur that
    shows only at edges.
    """

    def __init__(self, channels: int = 32, classes: Sequence[str] = CLASSES):
        super().__init__()
        self.classes = tuple(classes)
        self.config = {"channels": channels, "classes": list(classes)}
        c = channels
        self.stem = nn.Sequential(nn.Conv2d(8, c // 2, 3, padding=1), nn.GELU(), _down(c // 2, c))
        self.middle = nn.Sequential(_down(c, c), nn.Conv2d(c, c, 3, padding=1), nn.GELU())
        self.grid, self.context = _down(c, 2 * c), _Context(2 * c)
        self.along = nn.ModuleList(
            nn.Conv2d(2 * c, 2 * c, size, padding=(size[0] // 2, size[1] // 2), groups=2 * c)
            for size in ((1, 9), (9, 1), (3, 3))
        )
        self.head = nn.Sequential(nn.GELU(), nn.Conv2d(8 * c, 2 * c, 1), nn.GELU(), nn.Conv2d(2 * c, len(classes), 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # a third less time on a processor

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> logits (B, K, ceil(H/8), ceil(W/8))."""
        grid = self.context(self.features(x)[-1])
        return self.head(torch.cat([grid, *(conv(grid) for conv in self.along)], 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 1/2, 1/4 and 1/8 of the picture's size, after activation."""
        x = F.pad(x, (0, -x.shape[-1] % CELL, 0, -x.shape[-2] % CELL), mode="replicate")
        x = torch.cat([x - 0.5, (x - _smooth(x)) * 12, _log_steps(x)], 1)
        fine = self.stem(x.contiguous(memory_format=torch.channels_last))
        middle = self.middle(fine)
        return [fine, middle, self.grid(middle)]

    @torch.no_grad()
    def heatmap(self, x: Tensor) -> Tensor:
        """(B, K, H, W) probabilities, every cell's repeated over its pixels."""
        heat = self(x).sigmoid().repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)
        return heat[..., : x.shape[-2], : x.shape[-1]]


class _Context(nn.Module):
    """Adds to every cell what the 7x7 cells around say: (B, C, h, w) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.around(x))


def _smooth(x: Tensor) -> Tensor:
    """Means of 3x3 pixels; four sums take a tenth of avg_pool2d's time."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 9


def _log_steps(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 2, H, W): log of the grey picture's steps to the right and down, -1.2 to 1.6.

    It tells no step from one of a level, and that from larger ones, which is what shows missing levels.
    """
    grey = F.pad(x.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    here = grey[..., :-1, :-1]
    steps = torch.cat([grey[..., :-1, 1:] - here, grey[..., 1:, :-1] - here], 1)
    return (steps.abs() + 1 / 255).log() / 2 + 1.6


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Half the size; normalised pixel by pixel, so that how faint a step is can still be told in a plain picture."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), _PixelNorm(outputs), nn.GELU())


class _PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w): the same at any size, with no statistics to go stale."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DetectorLoss(nn.Module):
    """Binary cross entropy, mean over the cells and classes that are asked about; a cell on a seam counts thrice.

    forward: prediction (B, K, h, w) logits, target (B, 2, K, h, w) as ArtifactPatches gives it -> the loss, and
    {"artifacts": {"raw": ..., "weighted": ...}} for the log. original, the picture, is not needed.
    """

    positive: Tensor  # (K, 1, 1)

    def __init__(self, classes: Sequence[str] = CLASSES):
        super().__init__()
        weights = torch.tensor([3.0 if name == "seam" else 1.0 for name in classes])
        self.register_buffer("positive", weights[:, None, None], persistent=False)  # seams are rare

    def forward(self, prediction: Tensor, target: Tensor, original: Tensor | None = None) -> tuple[Tensor, dict]:
        """See the class."""
        present, asked = target.unbind(1)
        loss = F.binary_cross_entropy_with_logits(
            prediction, present, weight=asked, pos_weight=self.positive, reduction="sum"
        )
        total = loss / asked.sum().clamp_min(1)
        return total, {"artifacts": {"raw": total.detach(), "weighted": total.detach()}}


@torch.no_grad()
def evaluate_detector(
    detector: ArtifactDetector,
    clean: Sequence[Tensor],
    seams: Sequence[SeamExample],
    *,
    batches: int = 150,
    batch: int = 8,
    patch: int = 96,
    seed: int = 0,
) -> dict:
    """How good the detector is on pictures it was not trained on, neither downscaled nor varied.

    Returns average_precision {class: AP over the cells that are asked about}, chance {class: share of positive
    cells among them, what guessing gets}, asked {class: share of all cells that are asked about; _labels says
    which are not}, confusion (rows: what was put in, columns: mean probability of each class, asked about there or
    not: ringing and blocks take detail away, so the answer to "blur?" is often yes), and the mean seam heat on seam
    lines and elsewhere (seam_heat_on, seam_heat_off) in the seam examples, with their seam_ratio.
    """
    from torchmetrics.functional.classification import binary_average_precision  # seconds to import, for few

    device = next(detector.parameters()).device

    def answers(count: int, only: str | None = None) -> list[Tensor]:
        """Logits, target and asked of `count` patches, each (count, K, p/8, p/8)."""
        patches = ArtifactPatches(clean, seams, patch, vary=False, only=only)
        found = []
        for start in range(0, count, batch):
            items = default_collate([patches[n, seed] for n in range(start, min(start + batch, count))])
            found.append((detector(items["lr"].to(device)).cpu(), *items["hr"].unbind(1)))
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    logits, target, asked = (a.transpose(0, 1).flatten(1) for a in answers(batches * batch))  # (K, cells)
    precision, chance, share = {}, {}, {}
    for k, name in enumerate(detector.classes):
        valid = asked[k] > 0
        precision[name] = binary_average_precision(logits[k, valid].sigmoid(), target[k, valid].int()).item()
        chance[name] = target[k, valid].mean().item()
        share[name] = asked[k].mean().item()
    confusion = {}
    for name in ["clean", *(c for c in detector.classes if c != "seam" or seams)]:
        logits, target, _ = answers(2 * batch, name)
        where = target.amax(1, keepdim=True) if name != "clean" else torch.ones_like(target[:, :1])
        confusion[name] = ((logits.sigmoid() * where).sum((0, 2, 3)) / where.sum().clamp_min(1)).tolist()
    on, off = [], []
    for example in seams:
        heat = detector.heatmap(example.tiled[None].to(device))[0, detector.classes.index("seam")].cpu()
        near = torch.zeros(heat.shape, dtype=torch.bool)
        for c in example.seams[0]:
            near[c - 1 : c + 1] = True
        for c in example.seams[1]:
            near[:, c - 1 : c + 1] = True
        on.append(heat[near])
        # a line's heat fills its cell: pixels of the line's own cell are neither on the line nor elsewhere
        wide = F.max_pool2d(near[None].float(), 2 * CELL + 1, 1, CELL)[0] > 0
        off.append(heat[~wide])
    heat_on, heat_off = (torch.cat(v).mean().item() if v else float("nan") for v in (on, off))
    return {
        "average_precision": precision,
        "chance": chance,
        "asked": share,
        "confusion": pd.DataFrame(confusion, index=list(detector.classes)).T.rename_axis("put in"),
        "seam_heat_on": heat_on,
        "seam_heat_off": heat_off,
        "seam_ratio": heat_on / max(heat_off, 1e-9),
    }


def show_classes(
    clean: Tensor, seams: Sequence[SeamExample], rng: np.random.Generator, crop: int = 96
) -> dict[str, Tensor]:
    """One crop of the picture, clean and with each artifact at strength 0.7, and a crop across a seam."""
    picture = as_image(clean)
    patch = picture[place(picture, crop, rng)[2]]
    shown = {"clean": patch} | {name: apply(patch, 0.7, rng) for name, apply in ARTIFACTS.items()}
    if seams:
        tiled = as_image(seams[0].tiled)
        shown["seam"] = tiled[place(tiled, crop, rng, seams[0].seams)[2]]
    return {name: torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1))) for name, p in shown.items()}
