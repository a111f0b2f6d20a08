"""How large a difference between two sources a planned study sees, from its numbers of images, shots, seeds and draws."""

from __future__ import annotations

from dataclasses import dataclass

from eval.statistics.proportions import LEVEL, POWER, detectable_paired, detectable_unpaired


@dataclass(frozen=True)
class Plan:
    """A planned study of two sources.

    Attributes:
        images: test images, the same for both.
        accuracy: where the two are expected, 0 to 1.
        discordance: the share of images that exactly one of two runs has right.
        draws, train_seeds, shots: units at each level, for each source; nested.
        deviations: standard deviations that a draw, a training seed and a draw of the shots add to an accuracy, by `draw`,
            `train_seed` and `shots`.
    """

    images: int
    accuracy: float
    discordance: float
    draws: int
    train_seeds: int
    shots: int
    deviations: dict[str, float]

    @property
    def units(self) -> tuple[str, int]:
        """The topmost level with two units or more, and how many it has; `images` and 1 where there is none."""
        for level, count in (("draw", self.draws), ("train_seed", self.train_seeds), ("shots", self.shots)):
            if count > 1:
                return level, count
        return "images", 1

    def variance_of_unit(self) -> float:
        """Return the variance of one unit's accuracy: its level's, and what lies below it, averaged."""
        level, _ = self.units
        draw, seed, shots = (self.deviations.get(name, 0.0) ** 2 for name in ("draw", "train_seed", "shots"))
        of_seed = seed + shots / self.shots
        below = {"draw": draw + of_seed / self.train_seeds, "train_seed": of_seed, "shots": shots}
        return below.get(level, 0.0)


def detectable(plan: Plan, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest true difference that the study finds significant with probability `power`.

    Units (draws, seeds or shots, whichever is topmost) of one source are paired with units of the other: Student's t of D - 1 degrees
    of freedom, by the noncentral t. The test images come on top, in quadrature: paired, with their discordance. What the levels below
    the topmost one add is taken as known.
    """
    _, units = plan.units
    of_images = detectable_paired(plan.discordance, plan.images, level, power)
    if units < 2:
        return of_images
    deviation = (2 * plan.variance_of_unit() / units) ** 0.5
    return float((deviation**2 * _noncentrality(units - 1, level, power) ** 2 + of_images**2) ** 0.5)


def detectable_between_images(plan: Plan, level: float = LEVEL, power: float = POWER) -> float:
    """Return the same for two models on different test images of the same number, one run each."""
    return detectable_unpaired(plan.accuracy, plan.images, level, power)


def _noncentrality(df: int, level: float, power: float) -> float:
    """Return how many standard errors a difference must have for a two-sided t test to find it with probability `power`."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    bound = float(t.ppf((1 + level) / 2, df))

    def missing(shift: float) -> float:
        wrong_side = float(nct.cdf(-bound, df, shift))  # scipy gives nan where this is below what it can tell from 0
        return power - float(nct.sf(bound, df, shift)) - (0.0 if wrong_side != wrong_side else wrong_side)

    return float(brentq(missing, 0.01, 4 * bound + 10))
