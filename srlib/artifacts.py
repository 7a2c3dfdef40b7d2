"""Synthetic artifacts, and a detector that learns from them where a picture has which.

No picture is labelled by hand: artifacts are put into clean patches, so where they are is known. Seams are real
ones: the project's own stage-1 model, run in tiles without context.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import j1
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_average_precision
from tqdm import tqdm

from srlib.tiling import tiled_apply

CLASSES = ("blocks", "ringing", "blur", "banding", "seam")
CELL = 8  # output pixels: the side of a square of the answer's grid
_VISIBLE = 1.0 / 255  # mean change of a cell below which nobody, detector included, is asked about it


@dataclass(frozen=True)
class SeamExample:
    """A picture upscaled in tiles without context and whole, both (3, H, W) in [0, 1], and where the seams are."""

    tiled: Tensor
    whole: Tensor
    seams: tuple[list[int], list[int]]


def blocks(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG at quality 45 (strength 0) to 5 (strength 1), its 8x8 grid at a random place. (H, W, 3) in [0, 1]."""
    height, width = picture.shape[:2]
    top, left = rng.integers(0, 8, 2)
    padded = np.pad(_bytes(picture), ((top, 8), (left, 8), (0, 0)), mode="edge")
    quality = round(45 - 40 * strength)
    encoded = cv2.imencode(".jpg", padded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    return decoded[top : top + height, left : left + width].astype(np.float32) / 255


def ringing(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Ideal circular low-pass (a sinc in two dimensions), cut off at 0.7 pi (strength 0) to 0.25 pi (strength 1)."""
    cutoff = np.pi * (0.7 - 0.45 * strength)
    y, x = np.mgrid[-10:11, -10:11]
    r = np.hypot(x, y)
    r[10, 10] = 1
    kernel = cutoff * j1(cutoff * r) / (2 * np.pi * r)
    kernel[10, 10] = cutoff**2 / (4 * np.pi)
    return _filtered(picture, kernel / kernel.sum())


def blur(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian of sigma 1 to 3.5 pixels, or, as often, motion over 4 to 18 pixels in a random direction."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(picture, (0, 0), 1 + 2.5 * strength, borderType=cv2.BORDER_REFLECT)
    length = 4 + 14 * strength
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, 64)
    kernel = np.zeros((21, 21))
    np.add.at(
        kernel, (np.rint(10 + steps * np.sin(angle)).astype(int), np.rint(10 + steps * np.cos(angle)).astype(int)), 1
    )
    return _filtered(picture, kernel / kernel.sum())


def banding(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Each colour on 20 (strength 0) to 4 (strength 1) levels; half the time smoothed first: contours, not noise."""
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    levels = round(20 * (4 / 20) ** strength)
    return (np.rint(picture * (levels - 1)) / (levels - 1)).astype(np.float32)


ARTIFACTS: dict[str, Callable] = {"blur": blur, "ringing": ringing, "banding": banding, "blocks": blocks}


def _filtered(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT).clip(0, 1)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


@torch.no_grad()
def seam_examples(
    model: nn.Module, pictures: Sequence[Tensor], *, tile: int, rng: np.random.Generator, batch: int = 16
) -> list[SeamExample]:
    """Each LR picture (3, h, w) through model.hat_model in tiles of `tile` without context, and whole.

    The tile grid is drawn for each picture, on the window grid, so that its places cannot be learned.
    """
    hat = model.hat_model.eval()
    window, device = hat.window_size, next(hat.parameters()).device
    examples = []
    for lr in pictures:
        offset = tuple(int(o) * window for o in rng.integers(0, tile // window, 2))
        x = lr[None].to(device)
        arguments = {"scale": hat.upscale, "tile": tile, "halo": 0, "window": window, "offset": offset, "batch": batch}
        tiled, report = tiled_apply(hat, x, **arguments)
        whole = hat(x)
        examples.append(SeamExample(tiled[0].clamp(0, 1).cpu(), whole[0].clamp(0, 1).cpu(), report.seams))
    return examples


def make_batch(
    clean: Sequence[Tensor],
    seams: Sequence[SeamExample],
    *,
    batch: int,
    patch: int,
    rng: np.random.Generator,
    only: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, 3, p, p) with artifacts, targets (B, K, p/8, p/8) and which cells count, likewise, all float.

    A third stays clean; of the rest some are cut from tiled pictures (seam) and most get one or two artifacts,
    over the whole patch or a rectangle of it. Cells that an artifact covers without changing them visibly do
    not count, nor do seam cells where the seam does not show. only: this class alone, or "clean", everywhere.
    """
    if patch % CELL:
        raise ValueError(f"patch {patch} must be a multiple of the detector's cell, {CELL} pixels")
    made = [_make_patch(clean, seams, patch, rng, only) for _ in range(batch)]
    return tuple(torch.from_numpy(np.stack(parts)) for parts in zip(*made, strict=True))


def _make_patch(clean, seams, patch, rng, only):
    target = np.zeros((len(CLASSES), patch // CELL, patch // CELL), np.float32)
    counts = np.ones_like(target)
    draw = rng.random()
    seam = CLASSES.index("seam")
    if seams and (only == "seam" or only is None and draw < 0.3):
        example = seams[rng.integers(len(seams))]
        top, left = _place(example.tiled, patch, rng, example.seams)
        box = (slice(None), slice(top, top + patch), slice(left, left + patch))
        picture = _image(example.tiled[box])
        on = _cells_on(example.seams, top, left, patch)
        shows = _by_cell(np.abs(picture - _image(example.whole[box])).mean(2)) > _VISIBLE
        target[seam] = on & shows
        counts[seam] = ~on | shows
    elif seams and only is None and draw < 0.45:  # what the network makes is no artifact in itself
        whole = seams[rng.integers(len(seams))].whole
        top, left = _place(whole, patch, rng)
        picture = _image(whole[:, top : top + patch, left : left + patch])
    else:
        whole = clean[rng.integers(len(clean))]
        top, left = _place(whole, patch, rng)
        picture = _image(whole[:, top : top + patch, left : left + patch])
    if only in ARTIFACTS:
        chosen = [only]
    elif only is None and draw > 0.2 and rng.random() < 0.55:
        chosen = rng.choice(list(ARTIFACTS), rng.choice([1, 2], p=[0.7, 0.3]), replace=False)
    else:
        chosen = []
    for name, apply in ARTIFACTS.items():  # in this order: a blurred picture is compressed, not the reverse
        if name in chosen:
            after = apply(picture, rng.random(), rng)
            region = np.ones((patch, patch), bool) if only or rng.random() < 0.6 else _rectangle(patch, rng)
            after = np.where(region[..., None], after, picture)
            covered = _by_cell(region.astype(np.float32)) > 0.5
            shows = _by_cell(np.abs(after - picture).mean(2)) > _VISIBLE
            k = CLASSES.index(name)
            target[k] = covered & shows
            counts[k] = ~covered | shows
            picture = after
    return np.ascontiguousarray(picture.transpose(2, 0, 1)), target, counts


def _place(picture: Tensor, patch: int, rng: np.random.Generator, seams=None) -> tuple[int, int]:
    """Top left corner of a random patch; with seams given, of one that a seam crosses."""
    limits = np.array([s - patch for s in picture.shape[-2:]])
    if limits.min() < 0:
        raise ValueError(f"a {picture.shape[-1]}x{picture.shape[-2]} picture is smaller than the patch, {patch} pixels")
    corner = rng.integers(0, limits + 1)
    if seams is not None:
        axis = int(rng.integers(2)) if seams[0] and seams[1] else int(not seams[0])
        if seams[axis]:
            c = seams[axis][rng.integers(len(seams[axis]))]
            corner[axis] = np.clip(c - rng.integers(4, patch - 4), 0, limits[axis])
    return int(corner[0]), int(corner[1])


def _image(picture: Tensor) -> np.ndarray:
    """(3, H, W) tensor -> (H, W, 3) float32."""
    return picture.permute(1, 2, 0).numpy().astype(np.float32)


def _by_cell(values: np.ndarray) -> np.ndarray:
    """(p, p) -> (p/8, p/8) means."""
    n = values.shape[0] // CELL
    return values.reshape(n, CELL, n, CELL).mean((1, 3))


def _cells_on(seams, top: int, left: int, patch: int) -> np.ndarray:
    """(p/8, p/8): cells with a pixel that touches a seam."""
    on = np.zeros((patch // CELL, patch // CELL), bool)
    for axis, (lines, start) in enumerate(zip(seams, (top, left), strict=True)):
        for c in lines:
            for pixel in (c - 1 - start, c - start):
                if 0 <= pixel < patch:
                    on[(pixel // CELL, slice(None)) if axis == 0 else (slice(None), pixel // CELL)] = True
    return on


def _rectangle(patch: int, rng: np.random.Generator) -> np.ndarray:
    region = np.zeros((patch, patch), bool)
    height, width = rng.integers(patch // 3, patch, 2)
    top, left = rng.integers(0, patch - height + 1), rng.integers(0, patch - width + 1)
    region[top : top + height, left : left + width] = True
    return region


class ArtifactDetector(nn.Module):
    """Says for every cell of 8x8 pixels which artifacts it has: the heatmap is the answer itself.

    forward: (B, 3, H, W) in [0, 1], any size -> logits (B, K, ceil(H/8), ceil(W/8)), K = len(classes).
    Faint steps, and places without any, are what counts: so the first layer also gets what a small blur removes,
    amplified, and the logarithm of the grey picture's steps. Long thin filters on the grid follow seams, which
    are weak at each place but straight and long.
    """

    def __init__(self, channels: int = 32, classes: Sequence[str] = CLASSES):
        super().__init__()
        self.classes = tuple(classes)
        self.config = {"channels": channels, "classes": list(classes)}
        c = channels
        self.stem = nn.Sequential(nn.Conv2d(8, c // 2, 3, padding=1), nn.GELU(), _down(c // 2, c))
        self.middle = nn.Sequential(_down(c, c), nn.Conv2d(c, c, 3, padding=1), nn.GELU())
        self.grid = _down(c, 2 * c)
        self.along = nn.ModuleList(
            nn.Conv2d(2 * c, 2 * c, size, padding=(size[0] // 2, size[1] // 2), groups=2 * c)
            for size in ((1, 9), (9, 1), (3, 3))
        )
        self.head = nn.Sequential(nn.GELU(), nn.Conv2d(8 * c, 2 * c, 1), nn.GELU(), nn.Conv2d(2 * c, len(classes), 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.features(x)[-1]
        return self.head(torch.cat([grid, *(conv(grid) for conv in self.along)], 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 1/2, 1/4 and 1/8 of the picture's size, after activation."""
        x = F.pad(x, (0, -x.shape[-1] % CELL, 0, -x.shape[-2] % CELL), mode="replicate")
        smooth = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        fine = self.stem(torch.cat([x - 0.5, (x - smooth) * 12, _log_steps(x)], 1))
        middle = self.middle(fine)
        return [fine, middle, self.grid(middle)]

    @torch.no_grad()
    def heatmap(self, x: Tensor) -> Tensor:
        """(B, K, H, W) probabilities, every cell's repeated over its pixels."""
        heat = self(x).sigmoid().repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)
        return heat[..., : x.shape[-2], : x.shape[-1]]

    def picture_logits(self, x: Tensor) -> Tensor:
        """(B, K) for the whole picture: a smooth maximum (log mean exp) over the grid."""
        logits = self(x).flatten(2)
        return logits.logsumexp(2) - np.log(logits.shape[2])


def _log_steps(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 2, H, W): log of the grey picture's steps to the right and down, about -1 to 1.5."""
    grey = F.pad(x.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    here = grey[..., :-1, :-1]
    steps = torch.cat([grey[..., :-1, 1:] - here, grey[..., 1:, :-1] - here], 1)
    return (steps.abs() + 2 / 255).log() / 2 + 1.8


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Half the size; normalised per picture, so that there are no batch statistics to go stale."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(4, outputs), nn.GELU())


def train_detector(
    detector: ArtifactDetector,
    clean: Sequence[Tensor],
    seams: Sequence[SeamExample],
    *,
    iterations: int = 2500,
    batch: int = 8,
    patch: int = 96,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> pd.DataFrame:
    """Train on patches of the pictures `clean` and of the seam examples; returns the loss by step."""
    rng = np.random.default_rng(seed)
    device = next(detector.parameters()).device
    optimizer = torch.optim.AdamW(detector.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=iterations, pct_start=0.15)
    positive = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0], device=device)[: len(detector.classes), None, None]
    rows = []
    bar = tqdm(range(iterations), "detector", file=sys.stdout, mininterval=0.5 if sys.stdout.isatty() else 30)
    for step in bar:
        pictures, target, counts = (t.to(device) for t in make_batch(clean, seams, batch=batch, patch=patch, rng=rng))
        logits = detector.train()(pictures)
        loss = F.binary_cross_entropy_with_logits(logits, target, weight=counts, pos_weight=positive)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        rows.append({"step": step + 1, "loss": loss.item()})
        bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{schedule.get_last_lr()[0]:.1e}", refresh=False)
    detector.eval()
    return pd.DataFrame(rows)


@torch.no_grad()
def evaluate_detector(
    detector: ArtifactDetector,
    clean: Sequence[Tensor],
    seams: Sequence[SeamExample],
    *,
    batches: int = 24,
    batch: int = 8,
    patch: int = 96,
    seed: int = 0,
) -> dict:
    """How good the detector is on pictures it was not trained on.

    Returns average_precision {class: AP over cells}, chance {class: share of positive cells, what guessing
    gets}, confusion (rows: what was put in, columns: mean probability of each class), and the mean seam heat
    on seam lines and elsewhere (seam_heat_on, seam_heat_off) in the seam examples, with their seam_ratio.
    """
    rng = np.random.default_rng(seed)
    device = next(detector.parameters()).device
    answers = [[] for _ in range(3)]
    for _ in range(batches):
        pictures, target, counts = make_batch(clean, seams, batch=batch, patch=patch, rng=rng)
        for store, value in zip(answers, (detector(pictures.to(device)).cpu(), target, counts), strict=True):
            store.append(value.transpose(0, 1).flatten(1))  # (K, cells)
    logits, target, counts = (torch.cat(store, 1) for store in answers)
    precision, chance = {}, {}
    for k, name in enumerate(detector.classes):
        valid = counts[k] > 0
        precision[name] = binary_average_precision(logits[k, valid].sigmoid(), target[k, valid].int()).item()
        chance[name] = target[k, valid].mean().item()
    put_in = ["clean", *(c for c in detector.classes if c != "seam" or seams)]
    confusion = {}
    for name in put_in:
        pictures, target, _ = make_batch(clean, seams, batch=2 * batch, patch=patch, rng=rng, only=name)
        heat = detector(pictures.to(device)).sigmoid().cpu()
        where = target.amax(1, keepdim=True) if name != "clean" else torch.ones_like(target[:, :1])
        confusion[name] = ((heat * where).sum((0, 2, 3)) / where.sum().clamp_min(1)).tolist()
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
        "confusion": pd.DataFrame(confusion, index=list(detector.classes)).T.rename_axis("put in"),
        "seam_heat_on": heat_on,
        "seam_heat_off": heat_off,
        "seam_ratio": heat_on / max(heat_off, 1e-9),
    }


def show_classes(
    clean: Tensor, seams: Sequence[SeamExample], rng: np.random.Generator, crop: int = 96
) -> dict[str, Tensor]:
    """One crop of the picture, clean and with each artifact at strength 0.7, and a crop across a seam."""
    top, left = _place(clean, crop, rng)
    patch = clean[:, top : top + crop, left : left + crop]
    shown = {"clean": patch}
    for name, apply in ARTIFACTS.items():
        shown[name] = torch.from_numpy(apply(_image(patch), 0.7, rng)).permute(2, 0, 1)
    if seams:
        top, left = _place(seams[0].tiled, crop, rng, seams[0].seams)
        shown["seam"] = seams[0].tiled[:, top : top + crop, left : left + crop]
    return shown
