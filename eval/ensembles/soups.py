"""Soups: one model of the mean of several models' weights (Wortsman et al. 2022, arXiv:2203.05482), and BatchNorm statistics for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eval.features import Encoder

if TYPE_CHECKING:
    import numpy as np
    import torch

    from eval.datasets.base import Examples
    from eval.transfer.judge import Classifier
    from eval.transfer.tuning import Tuned

Weights = dict[str, "torch.Tensor"]
MOST_KEPT = 2**30  # bytes of training pixels that stay in memory between two soups


def uniform(states: Sequence[Weights]) -> Weights:
    """Return the mean of all weights."""
    from train.models.average import average

    return average(states)


def greedy(states: Sequence[Weights], accuracies: Sequence[float], judge: Callable[[Weights], float]) -> tuple[Weights, list[int], float]:
    """Return a greedy soup's weights, the members it is of in the order of adding, and its held-out accuracy.

    Recipe 1 of the paper, strict: models are tried in falling order of held-out accuracy, equal ones in the order they stand; each is added
    where the mean with it is better than without.

    Args:
        accuracies: of the models alone, held out.
        judge: weights → held-out accuracy.
    """
    from train.models.average import average

    order = sorted(range(len(states)), key=lambda at: (-accuracies[at], at))
    chosen, weights, best = [order[0]], dict(states[order[0]]), accuracies[order[0]]
    for at in order[1:]:
        mixed = average([states[member] for member in [*chosen, at]])
        accuracy = judge(mixed)
        if accuracy > best:
            chosen, weights, best = [*chosen, at], mixed, accuracy
    return weights, chosen, best


class Refresher:
    """Recomputes BatchNorm statistics of averaged weights on training images, as evaluation shapes them (no augmentation).

    The images are mixed once by a fixed seed; a last batch of less than half a batch is left out, as all batches count alike.
    """

    def __init__(self, examples: Examples, image_size: int, encoder: Encoder) -> None:
        """Take the training images; they are read when the first model with BatchNorm comes."""
        import numpy as np

        n, batch = len(examples), encoder.batch_size
        order = np.random.Generator(np.random.Philox(0)).permutation(n)
        self.used = n if n < batch or n % batch >= batch / 2 else n - n % batch
        self._examples, self._order, self._encoder = examples, order[: self.used], encoder
        self._keeps = self.used * image_size**2 * 3 <= MOST_KEPT
        self._pixels: list[np.ndarray] = []

    def refresh(self, classifier: Classifier) -> str:
        """Recompute a model's statistics in place; return what rows say of it."""
        import torch

        from train.models import norm

        if not norm.has_running_stats(classifier.model):
            return "none"
        old = self._encoder
        encoder = Encoder(classifier, old.device, old.batch_size, old.workers)
        classifier.model.to(old.device)
        with torch.inference_mode(), norm.running_stats_anew(classifier.model):
            for pixels in self._batches(encoder):
                encoder.embed(pixels)
        return f"recomputed on {self.used} training images"

    def _batches(self, encoder: Encoder) -> Any:
        if self._pixels:
            return self._pixels
        batches = (pixels for pixels, _ in encoder.batches(self._examples, self._order))
        if not self._keeps:
            return batches
        self._pixels = list(batches)
        return self._pixels


def classifier_at(model: Tuned, weights: Weights, refresher: Refresher | None) -> tuple[Classifier, str]:
    """Return the model with other weights, and what was done with its BatchNorm statistics: recomputed where there is a refresher."""
    from train.models import norm

    classifier = model.at(weights)
    if refresher is not None:
        return classifier, refresher.refresh(classifier)
    return classifier, "averaged" if norm.has_running_stats(classifier.model) else "none"
