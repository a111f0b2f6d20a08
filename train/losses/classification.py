"""Losses of supervised training: one class, soft targets (Mixup), several classes; samples without a label are left out.

A sample without a label has label −1 (a row of zeros among soft targets, −1 at the class among several). It has loss 0 and
counts 0, so it adds nothing to mean and gradient: `global_mean` divides by what counts on *all* ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train.losses.base import Counted

UNLABELLED = -1


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> Counted:
    """Return each sample's cross entropy; labelled samples count 1.

    With label smoothing ε the target is (1 − ε)·onehot + ε/C (Szegedy et al. 2016, section 7; torch's `label_smoothing`,
    timm's `LabelSmoothingCrossEntropy`).

    Args:
        logits: (n, C).
        labels: class numbers, (n,) int64; −1 for a sample without a label.
        smoothing: ε in [0, 1); 0.1 is usual for ImageNet.
    """
    values = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="none")
    return Counted(values, (labels != UNLABELLED).to(values.dtype))


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> Counted:
    """Return each sample's cross entropy with soft targets, `−Σ target·log softmax(logits) / Σ target`; it counts Σ target.

    Where each row sums to 1 the mean is that over samples (timm's `SoftTargetCrossEntropy`; Zhang et al. 2018, Mixup).
    A row of zeros, a sample without a label, does not count; a labelled sample mixed with one counts by its share. Targets
    may also be weighted: two mixed samples then count by their shares and weights.

    Args:
        logits: (n, C).
        targets: probabilities, or those times a weight, (n, C).
    """
    counts = targets.sum(dim=-1)
    totals = -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1)
    return Counted(totals / torch.where(counts > 0, counts, 1), counts)


def multi_label_loss(logits: torch.Tensor, targets: torch.Tensor) -> Counted:
    """Return each sample's binary cross entropy with logits, the mean over its known classes; it counts as many as are known.

    The mean, over samples and classes, is torch's `binary_cross_entropy_with_logits` and, for dense targets, timm's
    `BinaryCrossEntropy`. An entry of −1 is unknown.

    Args:
        logits: (n, C).
        targets: 1 for a class that applies, 0 for one that does not, −1 for unknown; (n, C), of any type.
    """
    known = targets != UNLABELLED
    wanted = torch.where(known, targets, 0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    counts = known.sum(dim=-1).to(logits.dtype)
    return Counted((each * known).sum(dim=-1) / counts.clamp(min=1), counts)


def count_unlabelled(labels: torch.Tensor) -> torch.Tensor:
    """Return how many samples have no label, as a scalar tensor: those whose label, or whose labels all, are −1.

    Args:
        labels: (n,) class numbers, or (n, C) as for `multi_label_loss`.
    """
    missing = labels == UNLABELLED
    return (missing if missing.ndim == 1 else missing.all(dim=-1)).sum()
