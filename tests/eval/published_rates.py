"""The learning rates of SSE and StarSSE as they were published, written out: what the cycles' steps are held against."""

from __future__ import annotations

import math
from collections.abc import Iterator

from eval.ensembles.cycles import Cycle
from eval.ensembles.trainings import Per


def published_rates(lr: float, epochs: int, cycle: Cycle, members: int, steps_per_epoch: int, per: Per) -> Iterator[float]:
    """Yield the published learning rate of every step of a whole SSE run: `epochs + (members − 1)·cycle.epochs` epochs.

    By epoch, as published: `fge_lr·½(1 + cos(π·e/fge_epochs))` for the e-th epoch of its cycle. By step, the same with steps.
    """
    for base, length in [(lr, epochs), *[(cycle.lr, cycle.epochs)] * (members - 1)]:
        for step in range(length * steps_per_epoch):
            at, whole = (step // steps_per_epoch, length) if per == "epoch" else (step, length * steps_per_epoch)
            yield base * 0.5 * (1 + math.cos(math.pi * at / whole))
