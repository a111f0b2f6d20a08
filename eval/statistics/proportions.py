"""Shares of right answers: intervals, a paired test, and how large a difference n test images can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
POWER = 0.8


def wilson(correct: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209), as scipy has it.

    Raises:
        ValueError: n < 1, or more correct than n.
    """
    from scipy.stats import binomtest

    bounds = binomtest(correct, n).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947, Psychometrika 12, 153).

    Args:
        first: (n,) bool, which images the first model has right; `second` the same of the second, in the same order.

    Returns:
        The binomial probability of a split of the images on which the two disagree as uneven as this; 1 where they never disagree.
    """
    from scipy.stats import binomtest

    first_alone = int((first & ~second).sum())
    second_alone = int((second & ~first).sum())
    if not first_alone + second_alone:
        return 1.0
    return float(binomtest(first_alone, first_alone + second_alone).pvalue)


def detectable_unpaired(share: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest difference between two accuracies, each on n images of its own, that a study sees.

    δ = (z_{1-α/2} + z_power) √((p q + p' q')/n) with p' = p ∓ δ, on the side of ½, where the variance is larger (Fleiss, Levin, Paik
    2003, Statistical Methods for Rates and Proportions, ch. 4); quadratic in δ. With the variance at p alone the power at p = 0.7 and
    n = 1,000 is 78%, not 80%.

    Args:
        share: the base accuracy p, 0 to 1.
        power: the probability with which a difference this large is found significant.
    """
    z_level, z_power = _normal(level, power)
    k = (z_level + z_power) ** 2 / n
    towards = k * abs(2 * share - 1)
    return float((towards + (towards**2 + 8 * (1 + k) * k * share * (1 - share)) ** 0.5) / (2 * (1 + k)))


def detectable_paired(discordance: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest difference between two accuracies on the same n images that McNemar's test sees.

    Connor 1987 (Biometrics 43, 207) asks for n = (z_α √ψ + z_β √(ψ - δ²))² / δ² images; solved for δ, which is quadratic.

    Args:
        discordance: ψ, the share of images that exactly one of the two has right. Independent models of accuracy p have 2p(1-p);
            models that learnt alike have less.

    Returns:
        δ, at most ψ: a difference cannot be larger than the share of images that make it.
    """
    z_level, z_power = _normal(level, power)
    inside = z_level**2 * n * discordance - (n + z_power**2) * discordance * (z_level**2 - z_power**2)
    difference = (z_level * (n * discordance) ** 0.5 + max(inside, 0.0) ** 0.5) / (n + z_power**2)
    return float(min(difference, discordance))


def _normal(level: float, power: float) -> tuple[float, float]:
    from statistics import NormalDist

    normal = NormalDist()
    return normal.inv_cdf((1 + level) / 2), normal.inv_cdf(power)
