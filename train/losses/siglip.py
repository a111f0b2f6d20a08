"""SigLIP's loss: every pair of the global batch is one binary decision, whether image and caption belong together."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import distributed


def siglip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the SigLIP loss of each of this rank's n pairs, (n,).

    The decision about image i and text j costs `s_ij = −log σ(z_ij·(scale·⟨image_i, text_j⟩ + bias))` with z = 1 for a pair
    that belongs together, else −1. Half of it is image i's and half text j's: pair i's loss is half the sum of row i and of
    column i of s. The mean over pairs is `Σ_i Σ_j s_ij / n` (Zhai et al. 2023, algorithm 1; open_clip's `SigLipLoss`); with
    weights s_ij counts by the mean of both. With several ranks each one has the rows of its own n images against all n·W
    captions, and the sums of columns go, with their gradients, to the ranks whose captions they are. The mean over ranks of
    the losses, and of their gradients, is that of one process holding the global batch. Captions are gathered, as in open_clip's
    `gather`, and not passed around a ring: 64 ranks of 512 samples need 64 MB for the logits.

    Args:
        images: L2-normalised image features, (n, d).
        texts: L2-normalised text features, (n, d), row i belonging to image i.
        scale: exp(logit_scale), a scalar; it starts at 10.
        bias: logit_bias, a scalar; it starts at −10.
    """
    logits = scale * images @ distributed.gather(texts).T + bias
    rows = torch.arange(len(images), device=images.device)
    signs = torch.full_like(logits, -1.0, requires_grad=False)
    signs[rows, rows + len(images) * distributed.rank()] = 1.0
    decisions = -F.logsigmoid(signs * logits)
    columns_of_ranks = distributed.gather(decisions.sum(dim=0).unsqueeze(0))
    columns = columns_of_ranks.sum(dim=0).chunk(distributed.world_size())[distributed.rank()]
    return (decisions.sum(dim=1) + columns) / 2
