"""Zero-shot classification: the class whose prompts lie nearest to the image.

Head (CLIP, wise-ft): for each class all templates are encoded, each scaled to unit length, averaged, and the mean scaled
to unit length. acc1 and acc5 carry Wilson intervals over the test images, mean_per_class a stratified bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.config import EvalConfig
from shards.core.config import digest, option
from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores
    from train.models.load import Loaded

VERSION = 1
NEEDS_TEXT = True


@dataclass(frozen=True)
class Config(EvalConfig):
    """Flags of `evaluate zeroshot`."""

    PROTOCOL: ClassVar[str] = "zeroshot"

    templates: str = option("", "prompt templates, one per line with {c} for the class; the data's own where not given", metavar="FILE")


@dataclass(frozen=True)
class Head:
    """One unit-length column per class, (d, classes), and the digest of the class names in that order."""

    weights: np.ndarray
    class_digest: str


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5 (with more than five classes) and mean_per_class.

    Raises:
        UsageError: the data does not tell its class names.
    """
    from eval import metrics
    from eval.data import read_templates

    examples = test.examples
    if not examples.named:
        raise UsageError(f"{examples.name}: the data does not name its {len(examples.classes)} classes", advice="--classnames FILE")
    templates = read_templates(config.templates) if config.templates else examples.templates
    head = build_head(bench.encoder.loaded, examples.classes, templates, bench.encoder.device)
    if head.class_digest != examples.class_digest:
        raise RunError("the head's classes are not the data's, or stand in another order")
    settings = {"templates": digest(list(templates)), "n_templates": len(templates)}
    ranked = metrics.ranks(test.features @ head.weights, examples.labels)
    yield "acc1", metrics.accuracy(ranked).having(settings=settings)
    if len(examples.classes) > 5:
        yield "acc5", metrics.accuracy(ranked, 5).having(settings=settings)
    yield "mean_per_class", metrics.mean_per_class(ranked == 0, examples.labels).having(settings=settings)


def build_head(loaded: Loaded, classes: tuple[str, ...], templates: tuple[str, ...], device: str = "cpu", batch: int = 256) -> Head:
    """Return the zero-shot head of a model for classes in label order; `batch` prompts go through the model at a time."""
    import numpy as np
    import torch

    from eval.data import prompts

    texts = [text for name in classes for text in prompts(templates, name)]
    loaded.model.to(device).eval()
    with torch.inference_mode():
        parts = [loaded.embed_texts(texts[at : at + batch], device).cpu() for at in range(0, len(texts), batch)]
        mean = torch.cat(parts).reshape(len(classes), len(templates), -1).mean(dim=1)
        weights = torch.nn.functional.normalize(mean, dim=-1).T.contiguous().numpy()
    if not np.isfinite(weights).all():
        raise RunError("the model gives text features that are no finite numbers", "a model whose training has not diverged")
    return Head(weights, digest(list(classes)))
