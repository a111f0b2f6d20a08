"""SimCLR's loss: each view finds the other view of its image among all views of the global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import distributed


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Return the NT-Xent loss of each of this rank's n images against both views of the global batch, (n,).

    Chen et al. 2020, equation 1: for view a of image i the cross-entropy, over the 2N − 1 other views v, of
    `cos(a_i, v)/temperature` with the right answer b_i; an image's loss is the mean over its two views. The mean
    over images is SLIP's `SIMCLRLoss` and lightly's `NTXentLoss(gather_distributed=True)`. Both views are gathered with
    their gradients, so that the mean over ranks of losses and gradients is that of one process holding the global batch.

    Args:
        first: projections of the first view, (n, d), not normalised.
        second: projections of the second view, (n, d), row i of the same image.
        temperature: 0.1 in SLIP and for ImageNet in SimCLR; lightly's default is 0.5.
    """
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    all_first, all_second = distributed.gather(first), distributed.gather(second)
    from_first = _cross_entropy(first, all_second, all_first, temperature)
    from_second = _cross_entropy(second, all_first, all_second, temperature)
    return (from_first + from_second) / 2


def _cross_entropy(view: torch.Tensor, other_views: torch.Tensor, same_views: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the cross-entropy of finding row i's other view among the other and the same views of all images, (n,)."""
    rows = torch.arange(len(view), device=view.device)
    labels = rows + len(view) * distributed.rank()
    other = view @ other_views.T / temperature
    same = view @ same_views.T / temperature
    itself = torch.zeros_like(same, dtype=torch.bool)
    itself[rows, labels] = True
    logits = torch.cat([other, same.masked_fill(itself, float("-inf"))], dim=1)
    return F.cross_entropy(logits, labels, reduction="none")
