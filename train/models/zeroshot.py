"""A classifier from class names: what a CLIP's text tower makes of prompts is the weights of a linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from shards.classes.templates import prompts
from shards.core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.models.load import Loaded

BATCH = 256  # prompts that go through the model at a time


def class_weights(
    loaded: Loaded, classes: Sequence[str], templates: tuple[str, ...], device: str = "cpu", batch: int = BATCH
) -> torch.Tensor:
    """Return one unit-length row per class, (classes, d) float32 on the CPU.

    For each class all prompts are encoded, each scaled to unit length, averaged, and the mean scaled to unit length: Radford et
    al. 2021, §3.1.4; `zeroshot_classifier` of CLIP's notebook and of wise-ft.

    Raises:
        UsageError: the model has no text tower, or a template no place for the name.
        RunError: the features are no finite numbers.
    """
    texts = [text for name in classes for text in prompts(templates, name)]
    loaded.model.to(device).eval()
    with torch.inference_mode():
        parts = [loaded.embed_texts(texts[at : at + batch], device).cpu() for at in range(0, len(texts), batch)]
        mean = torch.cat(parts).reshape(len(classes), len(templates), -1).mean(dim=1)
        weights = torch.nn.functional.normalize(mean, dim=-1)
    if not bool(torch.isfinite(weights).all()):
        raise RunError("the model gives text features that are no finite numbers", "a model whose training has not diverged")
    return weights.clone()


def logit_scale(model: Any) -> float:
    """Return what a model multiplies cosine similarities by to be logits, exp of its `logit_scale`; 1 where it has no such number."""
    scale = getattr(model, "logit_scale", None)
    return 1.0 if scale is None else float(scale.detach().float().exp())
