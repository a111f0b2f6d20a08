"""Several fine-tunings of one trunk on the same images: a local deep ensemble, uniform and greedy soups, and barriers between members.

Members are `--lr` × `--runs`. All start from the same weights, head included, and differ in learning rate, order and augmentation. The
greedy soup takes members in falling order of held-out accuracy and keeps each that makes it strictly better. Validation images are held out
where the set has them. Else, from five shots on, a fifth of the shots is, and no member is trained on it. With fewer shots there is no
greedy soup and no best member. BatchNorm statistics of soups are recomputed on the training images; members keep their own.

Rows: `member` for each alone, `local-ensemble` for the first 1 … M together, `best-member` (by held-out accuracy), `uniform-soup`,
`greedy-soup`, and with `--alphas` `member-barrier`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.ensembles.config import Several, check, check_model
from eval.protocols import _shots
from eval.transfer import inputs
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores

__all__ = ["VERSION", "Config", "check", "check_model", "prepare", "run"]
VERSION = 1
RATES = (1e-4, 3e-4, 1e-3, 3e-3)  # the published grid of fine-tunings


@dataclass(frozen=True)
class Config(Several):
    """Flags of `evaluate soups`."""

    PROTOCOL: ClassVar[str] = "soups"

    lr: tuple[float, ...] = option(RATES, "learning rates of the members, one or more", above=0)
    runs: int = option(1, "members with each learning rate", least=1)

    def grid(self) -> list[tuple[float, int]]:
        """Return the learning rate and the run of each member: runs vary last, so that the first members differ in both."""
        return [(lr, run) for run in range(self.runs) for lr in sorted(set(self.lr))]


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if len(config.grid()) < 2:
        raise UsageError(f"{len(config.grid())} member", "two or more: several --lr, or --runs 2")
    return inputs.prepare(config)


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5, mean_per_class, nll, ece and brier of members, ensembles and soups, and the members' diversity.

    Raises:
        UsageError: a class with fewer than k training images, other classes, or flags that make no sense.
    """
    from eval.ensembles.grids import Grid

    shots = prepare(config)
    sides = _shots.checked_sides(config, bench, test, shots)
    yield from Grid(config, bench, sides, inputs.build_of(config)).run(shots)
