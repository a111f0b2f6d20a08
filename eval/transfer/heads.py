"""What a fine-tuning starts from and is chosen by: a linear probe as its head, and a held-out part of the shots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples
    from eval.features import Encoded
    from train.models.load import Loaded
    from train.run import Run

PROBE_RATE = 3e-3  # the published first stage of LP-FT: AdamW, 128 epochs, batches of 128


def split(draw: np.ndarray, labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (kept, held out) positions: the last ⌊share·n⌋ of each class's n images in the order of the draw, at least one.

    A class with a single image keeps it.
    """
    import numpy as np

    kept, held = [], []
    for label in np.unique(labels[draw]):
        positions = draw[labels[draw] == label]
        out = min(max(1, int(share * len(positions))), len(positions) - 1)
        kept.append(positions[: len(positions) - out])
        held.append(positions[len(positions) - out :])
    return np.concatenate(kept), np.concatenate(held)


def probe(train: Encoded, draw: np.ndarray, seed: int) -> np.ndarray:
    """Return a linear probe on the trunk's features of a draw, (d + 1, classes), the biases last."""
    import torch

    from eval.linear.descent import Recipe
    from eval.linear.descent import train as descend

    x = torch.from_numpy(train.features[draw])[None].float()
    y = torch.from_numpy(train.examples.labels[draw])[None]
    weights = torch.ones((1, 1, len(draw)))
    layers = descend(x, y, len(train.examples.classes), weights, torch.full((1, 1), PROBE_RATE), Recipe("adamw"), [seed])
    return layers[0, 0].numpy()


def zero_shot(loaded: Loaded, examples: Examples, templates: str, device: str) -> np.ndarray:
    """Return the zero-shot head of a set's classes, (d + 1, classes), its logits those of the trunk; the biases last, all 0.

    Args:
        templates: a file of prompts; the set's own where it is empty.

    Raises:
        UsageError: the trunk reads no text, or a template has no place for the name.
    """
    import numpy as np

    from shards.classes.templates import read_templates
    from train.models.zeroshot import class_weights, logit_scale

    prompts = read_templates(templates) if templates else examples.templates
    rows = class_weights(loaded, examples.classes, prompts, device) * logit_scale(loaded.model)
    return np.pad(rows.numpy().T, ((0, 1), (0, 0)))


def beginning(layer: np.ndarray) -> Callable[[Run], None]:
    """Return what puts a layer into a training's head, which then sees features of unit length, as the layer's own maker did."""

    def begin(made: Run) -> None:
        import torch

        head = made.task.heads["classifier"]
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(layer[:-1].T.copy()))
            head.bias.copy_(torch.from_numpy(layer[-1]))
        made.task.unit_features = True

    return begin
