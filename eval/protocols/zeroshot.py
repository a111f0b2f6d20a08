"""Zero-shot classification: the class whose prompts lie nearest to the image.

Head (CLIP, wise-ft): for each class all templates are encoded, each scaled to unit length, averaged, and the mean scaled
to unit length. acc1 and acc5 carry Wilson intervals over the test images, mean_per_class a stratified bootstrap. The scores are
cosines times the model's own logit scale, the logits that it was trained with; nll, ece and brier are those of their softmax, and
are left out for a model that was trained by another loss than a softmax over texts (SigLIP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.config import EvalConfig
from shards.core.config import digest, option
from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores, Sets
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


def prepare(config: Config) -> tuple[str, ...]:
    """Return the templates of `--templates`; none where the data's own are taken.

    Raises:
        UsageError: the file is not understood, or a template has no place for the name.
    """
    from shards.classes.templates import read_templates

    return read_templates(config.templates) if config.templates else ()


def check(config: Config, sets: Sets, examples: Examples) -> None:
    """Refuse a set whose classes have no names or are fewer than two; say the first prompts.

    Raises:
        UsageError: so it is, or a template has no place for the name.
    """
    from eval.data import check_prompts

    if not examples.named:
        raise UsageError(f"{examples.name}: the data does not name its {len(examples.classes)} classes", advice="--classnames FILE")
    if len(examples.classes) < 2:
        raise UsageError(f"{examples.name}: one class alone, {examples.classes[0]!r}: every answer is right", "at least two classes")
    check_prompts(examples.classes, prepare(config) or examples.templates)


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5 (with more than five classes), mean_per_class and, for a model of a softmax, nll, ece and brier.

    Raises:
        UsageError: the data does not tell its class names.
    """
    import numpy as np

    from eval import metrics
    from eval.answers import Answers
    from train.models.zeroshot import logit_scale

    examples, loaded = test.examples, bench.encoder.loaded
    if not examples.named:
        raise UsageError(f"{examples.name}: the data does not name its {len(examples.classes)} classes", advice="--classnames FILE")
    templates = prepare(config) or examples.templates
    head = build_head(loaded, examples.classes, templates, bench.encoder.device)
    if head.class_digest != examples.class_digest:
        raise RunError("the head's classes are not the data's, or stand in another order")
    settings = {"templates": digest(list(templates)), "n_templates": len(templates)}
    scores = test.features @ head.weights * np.float32(logit_scale(loaded.model))
    answers = (Answers(examples, scores),)
    softmax = getattr(loaded.model, "logit_bias", None) is None
    for metric, score in metrics.classification(scores, examples.labels, probabilistic=softmax).items():
        yield metric, score.having(settings=settings, answers=answers)


def build_head(loaded: Loaded, classes: tuple[str, ...], templates: tuple[str, ...], device: str = "cpu", batch: int = 256) -> Head:
    """Return the zero-shot head of a model for classes in label order; `batch` prompts go through the model at a time."""
    from train.models.zeroshot import class_weights

    weights = class_weights(loaded, classes, templates, device, batch).T.contiguous().numpy()
    return Head(weights, digest(list(classes)))
