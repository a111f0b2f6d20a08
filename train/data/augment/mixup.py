"""Mixup and CutMix of a batch as a pure function of (seed, step), whatever the number of processes.

Sample i of the global batch is mixed with its neighbour i XOR 1. A rank's part of a batch is contiguous and even, so pairs
never cross ranks, and the pair's random numbers depend on its place in the global batch alone. Batches are shuffled, so a
neighbour is a random partner. Sources: Zhang et al. 2018 (Mixup), Yun et al. 2019 (CutMix), timm's `Mixup` in its mode
"pair", whose formulas these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.core.config import option
from shards.core.errors import UsageError
from train.data.order import words

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

MIX = 64  # purpose of the random words; order's purposes count up from 0
_PER_PAIR = 5  # mixed or not, CutMix or Mixup, λ, and the centre of CutMix's box (y, x)


@dataclass(frozen=True)
class Mix:
    """What mixing does. With both alphas at 0 it does nothing."""

    mixup: float = option(0.0, "Mixup's alpha: λ ~ Beta(alpha, alpha); 0: no Mixup")
    cutmix: float = option(0.0, "CutMix's alpha; 0: no CutMix")
    mix_p: float = option(1.0, "probability that a pair is mixed")
    cutmix_p: float = option(0.5, "where both are on: probability of CutMix for a mixed pair")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UsageError: naming the key.
        """
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: {getattr(self, name)}", "0 or above")
        for name in ("mix_p", "cutmix_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: {getattr(self, name)}", "a probability, 0 to 1")

    @property
    def active(self) -> bool:
        """Whether any pair is mixed at all."""
        return self.mix_p > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True)
class Pairs:
    """How k neighbouring pairs are mixed, on the host.

    lam: (k,) float32, each sample's own share of its target, 1 = unmixed; CutMix's share of the area is exact. boxes: (k, 4)
    int64, CutMix's box (top, bottom, left, right), empty where it is Mixup.
    """

    lam: NDArray[np.float32]
    boxes: NDArray[np.int64]


def draw(mix: Mix, seed: int, step: int, *, first: int, n: int, side: int) -> Pairs:
    """Return how a rank's n samples of a step are mixed.

    Args:
        mix: the configuration.
        seed: of the training.
        step: of the global batch.
        first: where the rank's samples begin in the global batch.
        n: how many they are.
        side: S of the (n, 3, S, S) images.

    Raises:
        UsageError: `first` or `n` is odd, so that a pair would lie on two ranks.
    """
    import numpy as np

    if first % 2 or n % 2:
        raise UsageError(
            f"Mixup of {n} samples from {first} on", "an even number of samples per process", "an even --batch-size per process"
        )
    raw = words(seed, MIX, (0, 0, step), _PER_PAIR * (first + n) // 2)[_PER_PAIR * first // 2 :]
    u = (raw >> np.uint64(11)).astype(np.float64).reshape(-1, _PER_PAIR) * 2.0**-53
    mixed = (u[:, 0] < mix.mix_p) & mix.active
    cut = (u[:, 1] < mix.cutmix_p) if mix.mixup > 0 and mix.cutmix > 0 else np.full(len(u), mix.cutmix > 0)
    lam = np.where(cut, beta(mix.cutmix, u[:, 2]), beta(mix.mixup, u[:, 2]))
    boxes = np.where((cut & mixed)[:, None], box(lam, u[:, 3], u[:, 4], side), 0)
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    lam = np.where(cut, 1 - area / side**2, lam)
    return Pairs(np.where(mixed, lam, 1).astype(np.float32), boxes)


def beta(alpha: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Beta(alpha, alpha) numbers of uniform ones, by the inverse of the distribution function; ones for alpha 0."""
    import numpy as np
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, u) if alpha > 0 else np.ones_like(u)


def box(lam: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Return CutMix's boxes, (k, 4): squares of area 1 − λ around uniform centres, cut off at the border (timm's rand_bbox)."""
    import numpy as np

    length = (side * np.sqrt(1 - lam)).astype(np.int64)
    edges = []
    for share in (y, x):
        centre = (share * side).astype(np.int64)
        edges += [np.clip(centre - length // 2, 0, side), np.clip(centre + (length + 1) // 2, 0, side)]
    return np.stack(edges, 1)


def mixed_images(images: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Return (n, 3, S, S) float images in which each is λ · itself + (1 − λ) · its neighbour, or has its neighbour's box.

    bfloat16 images are mixed in bfloat16, λ rounded to it.
    """
    import torch

    n, _, height, width = images.shape
    if not n:
        return images
    # A view by pairs, which channels-last memory allows too, as the batch stays the outermost dimension.
    together = images.unflatten(0, (n // 2, 2))
    share = torch.from_numpy(pairs.lam).to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1, 1)
    cut = pairs.boxes[:, 1] > pairs.boxes[:, 0]
    if cut.any():
        boxes = torch.from_numpy(pairs.boxes).to(images.device, non_blocking=True)
        inside = _inside(boxes[:, :2], height).view(-1, 1, 1, height, 1) & _inside(boxes[:, 2:], width).view(-1, 1, 1, 1, width)
        is_cut = torch.from_numpy(cut).to(images.device, non_blocking=True).view(-1, 1, 1, 1, 1)
        share = torch.where(is_cut, (~inside).to(images.dtype), share)
    return torch.lerp(together.flip(1), together, share).flatten(0, 1)


def _inside(edges: torch.Tensor, side: int) -> torch.Tensor:
    """Return (k, side), whether a coordinate is between its two edges."""
    import torch

    place = torch.arange(side, device=edges.device)
    return (place >= edges[:, :1]) & (place < edges[:, 1:])


def soft_targets(labels: torch.Tensor, classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Return smoothed targets, (n, classes) float32; zeros for a sample without a label.

    One class: (1 − smoothing)·onehot + smoothing/classes. Several: t·(1 − smoothing) + smoothing/2 (timm's mixup_target).

    Args:
        labels: (n,) int64 class numbers, −1 for a sample without a label; or (n, classes) of 0 and 1 (multi-label).
        classes: C.
        smoothing: in [0, 1).
    """
    import torch.nn.functional as F

    if labels.ndim == 2:
        return labels.float() * (1 - smoothing) + 0.5 * smoothing
    labelled = (labels >= 0).unsqueeze(-1)
    one_hot = F.one_hot(labels.clamp(min=0), classes).float()
    return labelled * (one_hot * (1 - smoothing) + smoothing / classes)


def mixed_targets(targets: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Return soft targets (n, classes) mixed as the images are: λ · own + (1 − λ) · the neighbour's."""
    import torch

    n, classes = targets.shape
    together = targets.view(n // 2, 2, classes)
    share = torch.from_numpy(pairs.lam).to(targets.device, targets.dtype, non_blocking=True).view(-1, 1, 1)
    return torch.lerp(together.flip(1), together, share).view(n, classes)
