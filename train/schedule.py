"""The learning rate as a function of the step: linear warm-up, then half a cosine to zero."""

from __future__ import annotations

import math

from shards.core.errors import UsageError


def warmup_cosine(step: int, base: float, warmup: int, steps: int) -> float:
    """Return the learning rate of a step (open_clip's `cosine_lr`, which wise-ft and CLIP_benchmark share).

    `base·(s+1)/w` for s < w, then `base·(1 + cos(π·(s−w)/(T−w)))/2`.

    Args:
        step: s, from 0.
        base: the peak.
        warmup: w, in steps.
        steps: T, the steps of the whole training.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * base


def check_warmup(warmup: int, steps: int) -> None:
    """Refuse a warm-up that would not end before training does.

    Raises:
        UsageError: it is as long as training or longer.
    """
    if warmup >= steps:
        raise UsageError(f"a warm-up of {warmup:,} steps in a training of {steps:,}", f"warmup < {steps:,}", "--warmup N, or train longer")
