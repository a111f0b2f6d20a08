"""The diagonal of a classifier's Fisher information: how much its answers depend on each weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eval.transfer.judge import Classifier

MOST_IMAGES = 256  # each takes a backward pass of its own


def diagonal(classifier: Classifier, images: Iterable[torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return the mean over images of (∂ log p(y | x) / ∂θ)², y drawn from the classifier's own softmax, by the weights' names.

    One y is drawn for each image, so this is an unbiased estimate of Matena and Raffel's (2021, arXiv:2111.09832, eq. 4).

    Args:
        images: batches as `Judge.images` yields them; the first MOST_IMAGES images are used.
        seed: of the draws of y.
    """
    import torch

    model = classifier.model.eval()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    seen = 0
    for batch in images:
        for image in batch[: MOST_IMAGES - seen]:
            _add_squares(model, classifier, image, weights, sums, generator)
            seen += 1
    return {name: total / max(seen, 1) for name, total in sums.items()}


def _add_squares(
    model: nn.ModuleDict,
    classifier: Classifier,
    image: torch.Tensor,
    weights: dict[str, nn.Parameter],
    sums: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> None:
    """Add one image's squared gradients."""
    import torch

    from train.tasks.finetune import logits

    log_chances = logits(model["tower"], model["head"], image[None], classifier.unit_features).float().log_softmax(dim=1)[0]
    drawn = int(torch.multinomial(log_chances.detach().exp().cpu(), 1, generator=generator))
    gradients = torch.autograd.grad(log_chances[drawn], list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            sums[name] += gradient.double() ** 2
