"""A labelled set that many models are judged on: its images are decoded and shaped once, and kept where they fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.features import Encoder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from eval.datasets.base import Examples

MOST_KEPT = 2**31  # bytes of pixels: 14,000 images of 224 × 224


@dataclass(frozen=True, eq=False)
class Classifier:
    """A tower with its classifier, as `eval.features.Encoder` takes a source of features; its features are logits.

    Attributes:
        model: what is put on the device and into evaluation mode: tower and head.
        unit_features: whether the head sees features of unit length.
    """

    model: nn.ModuleDict
    unit_features: bool
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str = ""

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) float32 of normalised images (n, 3, S, S)."""
        from train.tasks.finetune import logits

        return logits(self.model["tower"], self.model["head"], images, self.unit_features).float()


class Judge:
    """The images of a labelled set, shaped for one image size."""

    def __init__(self, examples: Examples, image_size: int, encoder: Encoder) -> None:
        """Take the set; its images are read when the first model is judged.

        Args:
            encoder: says the device, the batch size and the number of threads.
        """
        self.examples = examples
        self.image_size = image_size
        self._encoder = encoder
        self._kept: list[np.ndarray] | None = None

    def logits(self, classifier: Classifier) -> np.ndarray:
        """Return a model's logits, (n, classes) float32.

        Raises:
            RunError: they are no finite numbers.
        """
        import numpy as np
        import torch

        encoder = self._with(classifier)
        classifier.model.to(encoder.device).eval()
        with torch.inference_mode():
            parts = [encoder.embed(pixels) for pixels in self._pixels(encoder)]
        return np.concatenate(parts)

    def images(self, classifier: Classifier) -> Iterator[torch.Tensor]:
        """Yield the set's images as a model sees them, in batches (n, 3, S, S) float32 on its device."""
        encoder = self._with(classifier)
        for pixels in self._pixels(encoder):
            yield encoder.normalised(pixels)

    def accuracy(self, classifier: Classifier) -> float:
        """Return the share of the set's images that a model classifies rightly."""
        from eval.metrics import ranks

        return float((ranks(self.logits(classifier), self.examples.labels) == 0).mean())

    def _with(self, classifier: Any) -> Encoder:
        encoder = self._encoder
        return Encoder(classifier, encoder.device, encoder.batch_size, encoder.workers)

    def _pixels(self, encoder: Encoder) -> Any:
        """Return the batches of pixels, (n, S, S, 3) uint8; kept after the first time where they are few enough."""
        import numpy as np

        if self._kept is not None:
            return self._kept
        batches = (pixels for pixels, _ in encoder.batches(self.examples, np.arange(len(self.examples))))
        if len(self.examples) * self.image_size**2 * 3 > MOST_KEPT:
            return batches
        self._kept = list(batches)
        return self._kept
