"""CLIP's contrastive loss: symmetric cross-entropy over the similarities of all pairs of the global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import distributed


def clip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the CLIP loss of each of this rank's n pairs against the global batch, (n,).

    It is the mean of the image's cross entropy over all texts and of the text's over all images; the mean over pairs is the
    loss of Radford et al. 2021 (open_clip's `ClipLoss`).

    With several ranks each one computes its own (n, n·W) block against the gathered features, whose gradients flow
    back to the ranks they came from (open_clip's `local_loss` with `gather_with_grad`). The losses, and the
    mean over ranks of the gradients of their means, are then exactly those of one process holding the global batch.

    Args:
        images: L2-normalised image features, (n, d).
        texts: L2-normalised text features, (n, d), row i belonging to image i.
        scale: exp(logit_scale), a scalar.
    """
    labels = torch.arange(len(images), device=images.device) + len(images) * distributed.rank()
    image_logits = scale * images @ distributed.gather(texts).T
    text_logits = scale * texts @ distributed.gather(images).T
    of_images = F.cross_entropy(image_logits, labels, reduction="none")
    of_texts = F.cross_entropy(text_logits, labels, reduction="none")
    return (of_images + of_texts) / 2
