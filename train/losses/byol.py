"""BYOL's loss: the online network predicts the teacher's projection of the other view."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def byol_loss(
    first_prediction: torch.Tensor,
    second_prediction: torch.Tensor,
    first_target: torch.Tensor,
    second_target: torch.Tensor,
) -> torch.Tensor:
    """Return the sum over both directions of `2 − 2·cos(prediction, target)` for each of n samples, (n,).

    Grill et al. 2020, equation 2, symmetrised as in the paper by a sum: it lies in [0, 8]. lightly's
    `NegativeCosineSimilarity`, averaged over both directions as its BYOL example does, is the mean of `loss/4 − 1`. The targets get
    no gradient. No sample looks at another, so that the mean over ranks is the loss of the global batch.

    Args:
        first_prediction: the predictor's output for view 1, (n, d), not normalised.
        second_prediction: the same for view 2.
        first_target: the teacher's projection of view 1, (n, d), not normalised. It is compared with view 2's prediction.
        second_target: the same for view 2.
    """
    return _regression(first_prediction, second_target) + _regression(second_prediction, first_target)


def _regression(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    cosine = F.cosine_similarity(prediction, target.detach(), dim=-1)
    return 2 - 2 * cosine
