"""SSE and StarSSE: snapshots at the ends of learning-rate cycles, from one fine-tuning (arXiv:2303.03374).

The first model is trained with a cosine to 0. Then K − 1 cycles of E epochs follow, each with its own cosine from the cycle's rate to 0, a
new optimiser and no warm-up. SSE goes on from the last snapshot, StarSSE from the first one each time, so its cycles do not depend on each
other. The ensemble is the mean softmax of the snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.ensembles.trainings import Per, Trainings, resuming
from shards.core.errors import UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    from eval.transfer.tuning import Tuned

RATIOS_LR = (0.25, 0.5, 1.0, 2.0, 4.0)
RATIOS_EPOCHS = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, order=True)
class Cycle:
    """The rate that each cycle starts from, and its epochs."""

    lr: float
    epochs: int


def grid(lr: float, epochs: float, lr_ratios: Sequence[float], epoch_ratios: Sequence[float]) -> list[Cycle]:
    """Return the cycles to choose from: rates `ratio·lr`, epochs `int(ratio·epochs)` as published; rising, each once.

    Raises:
        UsageError: all would have no epoch.
    """
    lengths = [int(ratio * epochs) for ratio in epoch_ratios]
    note(
        lengths.count(0),
        "[length of a cycle comes|lengths of cycles come] to no epoch, and [is|are] left out",
        f"int({min(epoch_ratios):g} · {epochs:g}) = 0",
    )
    cycles = sorted({Cycle(ratio * lr, length) for ratio in lr_ratios for length in lengths if length})
    if not cycles:
        raise UsageError(f"--cycle-epochs {' '.join(f'{ratio:g}' for ratio in epoch_ratios)} of {epochs:g} epochs: no epoch", "more epochs")
    return cycles


def middle(cycles: Sequence[Cycle], lr: float, epochs: float) -> Cycle:
    """Return the cycle that is taken where there is nothing to choose by: that nearest to the first training's rate and epochs."""
    return min(cycles, key=lambda cycle: (abs(cycle.epochs - epochs), abs(cycle.lr - lr), cycle))


def snapshots(first: Tuned, members: int, *, star: bool, cycle: Callable[[Tuned, int], Tuned | None]) -> list[Tuned] | None:
    """Return the snapshots of a run, the first model among them; None where a cycle diverged.

    Args:
        star: each cycle starts from the first snapshot; else from the last one.
        cycle: (snapshot to start from, number of the cycle from 1) → next snapshot.
    """
    made = [first]
    for number in range(1, members):
        snapshot = cycle(first if star else made[-1], number)
        if snapshot is None:
            return None
        made.append(snapshot)
    return made


def train_cycle(trainings: Trainings, cycle: Cycle, per: Per) -> Callable[[Tuned, int], Tuned | None]:
    """Return the function that trains one cycle, as `snapshots` takes it."""
    return lambda start, number: trainings.fit(cycle.lr, cycle.epochs, number, resuming(start), per=per)
