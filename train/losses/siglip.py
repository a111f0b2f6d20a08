"""SigLIP's loss: every pair of the global batch is one binary decision, whether image and caption belong together."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import distributed


def siglip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the SigLIP loss of this rank's images against the captions of the global batch.

    `−Σ_i Σ_j log σ(z_ij·(scale·⟨image_i, text_j⟩ + bias)) / n` with z = 1 for a pair that belongs together, else −1
    (Zhai et al. 2023, algorithm 1; open_clip's `SigLipLoss`). With several ranks each one sums over its own n images
    and all n·W captions, whose gradients flow back to the ranks they came from. The mean over ranks of the losses, and
    of their gradients, is that of one process holding the global batch. Captions are gathered, as in open_clip's
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
    return -F.logsigmoid(signs * logits).sum() / len(images)
