"""Losses of supervised training: one class, soft targets (Mixup), several classes; samples without a label are left out.

A sample without a label has label −1 (a row of zeros among soft targets, −1 at the class among several). It adds nothing
to loss and gradient, and the mean is over labelled samples of *all* ranks. Ranks may hold different numbers of labelled
samples, so each one divides its sum by the mean number per rank: the mean over ranks of losses, and of gradients, is then
that of one process holding the global batch. A global batch without any label has loss 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import distributed

UNLABELLED = -1


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Return the mean cross-entropy over labelled samples.

    With label smoothing ε the target is (1 − ε)·onehot + ε/C (Szegedy et al. 2016, section 7; torch's `label_smoothing`,
    timm's `LabelSmoothingCrossEntropy`).

    Args:
        logits: (n, C).
        labels: class numbers, (n,) int64; −1 for a sample without a label.
        smoothing: ε in [0, 1); 0.1 is usual for ImageNet.
    """
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum")
    return _global_mean(total, (labels != UNLABELLED).sum())


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with soft targets, `−Σ target·log softmax(logits)`, over the sum of all targets.

    Where each row sums to 1 that is the mean over samples (timm's `SoftTargetCrossEntropy`; Zhang et al. 2018, Mixup).
    A row of zeros, a sample without a label, does not count; a labelled sample mixed with one counts by its share.

    Args:
        logits: (n, C).
        targets: probabilities, (n, C).
    """
    total = -(targets * F.log_softmax(logits, dim=-1)).sum()
    return _global_mean(total, targets.sum())


def multi_label_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy with logits, its mean over samples and classes.

    It is torch's `binary_cross_entropy_with_logits` and, for dense targets, timm's `BinaryCrossEntropy`. An entry of −1
    is unknown and left out of sum and mean.

    Args:
        logits: (n, C).
        targets: 1 for a class that applies, 0 for one that does not, −1 for unknown; (n, C), of any type.
    """
    known = targets != UNLABELLED
    wanted = torch.where(known, targets, 0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return _global_mean((each * known).sum(), known.sum())


def soft_targets(labels: torch.Tensor, classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Return class numbers as (n, C) float32 probabilities, smoothed as in `cross_entropy`; zeros where there is no label.

    Args:
        labels: class numbers, (n,) int64; −1 for a sample without a label.
        classes: C.
        smoothing: ε in [0, 1).
    """
    labelled = (labels != UNLABELLED).unsqueeze(-1)
    one_hot = F.one_hot(labels.clamp(min=0), classes).to(torch.float32)
    return labelled * ((1 - smoothing) * one_hot + smoothing / classes)


def count_unlabelled(labels: torch.Tensor) -> torch.Tensor:
    """Return how many samples have no label, as a scalar tensor: those whose label, or whose labels all, are −1.

    Args:
        labels: (n,) class numbers, or (n, C) as for `multi_label_loss`.
    """
    missing = labels == UNLABELLED
    return (missing if missing.ndim == 1 else missing.all(dim=-1)).sum()


def _global_mean(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return this rank's sum over the mean weight per rank; 0 where no rank has any."""
    per_rank = distributed.mean(weight.to(total.dtype))
    return total / torch.where(per_rank > 0, per_rank, 1)
