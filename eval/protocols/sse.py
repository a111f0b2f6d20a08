"""Snapshot ensembles of one fine-tuning, SSE and StarSSE: learning-rate cycles after the first model, mean softmax by number of members.

The first model has a cosine to 0 over `--epochs`; then `--members` − 1 cycles follow, each with a cosine to 0, a new optimiser and no
warm-up. With `--schedule star` each cycle starts from the first model (StarSSE), with `sse` from the last snapshot. The published grid of
cycles is `--cycle-lr` times `--lr` and `--cycle-epochs` times `--epochs`. The cycle is chosen by the ensemble's accuracy on validation
images where the set has them. Else, from five shots on, a fifth of the shots chooses, and all is trained anew on all of them. With fewer
shots it is fixed in advance, the one nearest to the first training. `--select test` chooses on the test set, and rows say so.

The published code changes the rate with each epoch; `--per step`, the default, with each step. Rows: `starsse` (or `sse`) for the first 1 …
M snapshots together, `…-snapshot` for each alone, `…-soup` for the mean of all weights with `--soup`, and with `--alphas` `…-barrier`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from eval.ensembles.config import Several, check, check_model
from eval.ensembles.cycles import RATIOS_EPOCHS, RATIOS_LR, grid
from eval.protocols import _shots
from eval.transfer import inputs
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores

__all__ = ["VERSION", "Config", "check", "check_model", "prepare", "run"]
VERSION = 1


@dataclass(frozen=True)
class Config(Several):
    """Flags of `evaluate sse`."""

    PROTOCOL: ClassVar[str] = "sse"

    schedule: Literal["star", "sse"] = option("star", "where a cycle starts: star, from the first model; sse, from the last snapshot")
    members: int = option(5, "snapshots, the first model among them", least=2)
    lr: float = option(1e-3, "learning rate of the first model", above=0)
    cycle_lr: tuple[float, ...] = option(RATIOS_LR, "learning rates of a cycle to choose from, in --lr; one or more", above=0)
    cycle_epochs: tuple[float, ...] = option(
        RATIOS_EPOCHS, "lengths of a cycle to choose from, in --epochs, cut to whole epochs; one or more", above=0
    )
    per: Literal["step", "epoch"] = option("step", "the learning rate changes with each step, or, as published, with each epoch")
    select: Literal["val", "test"] = option("val", "what chooses the cycle; test is for reproduction, and marked")
    soup: bool = option(False, "also the mean of all snapshots' weights")


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if not config.cycle_lr or not config.cycle_epochs:
        raise UsageError("no --cycle-lr or no --cycle-epochs", "one ratio or more of each, such as 1")
    if config.per == "epoch" and config.epochs != int(config.epochs):
        raise UsageError(f"--per epoch with {config.epochs:g} epochs", "whole epochs, or --per step")
    grid(config.lr, config.epochs, config.cycle_lr, config.cycle_epochs)
    return inputs.prepare(config)


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5, mean_per_class, nll, ece and brier of ensembles and snapshots, and the snapshots' diversity.

    Raises:
        UsageError: a class with fewer than k training images, other classes, or flags that make no sense.
    """
    from eval.ensembles.snapshots import Snapshots

    shots = prepare(config)
    sides = _shots.checked_sides(config, bench, test, shots)
    yield from Snapshots(config, bench, sides, inputs.build_of(config)).run(shots)
