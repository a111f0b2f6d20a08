"""Bootstrap over test images (Efron, Tibshirani 1993, An Introduction to the Bootstrap): intervals of a mean and of a difference.

Redrawing n images with replacement is a multinomial draw over the distinct values that images have, so no replicate needs a loop:
correct or wrong are two values, a difference of two models has three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
REPLICATES = 10_000  # so that a p-value of 0.05 has a standard error of 0.002
_CHUNK = 2**22  # counts drawn at a time: 32 MB


@dataclass(frozen=True)
class Difference:
    """First less second: the value, its interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


def stratified_bootstrap(
    values: np.ndarray, strata: np.ndarray | None = None, *, per_stratum: bool = False, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a mean, images redrawn within their stratum.

    Args:
        values: (n,) what each image counts, such as 0 or 1.
        strata: (n,) the class of each image; None redraws all images together.
        per_stratum: the mean over strata of their means (mean per class) instead of the mean over images.
    """
    import numpy as np

    means = _means(values, strata, per_stratum, replicates, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    per_stratum: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Difference:
    """Return the difference of two models on the same images, with the percentile interval over redrawn images.

    p is twice the smaller share of replicates on one side of zero, one replicate added to each side (Davison, Hinkley 1997,
    Bootstrap Methods and their Application, §4.2).

    Args:
        first: (n,) what each image counts under the first model: 0 or 1, or the mean over runs. `second` the same, in the same order.
    """
    import numpy as np

    differences = first.astype(np.float64) - second.astype(np.float64)
    means = _means(differences, strata, per_stratum, replicates, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = (int((means <= 0).sum()) + 1) / (replicates + 1)
    above = (int((means >= 0).sum()) + 1) / (replicates + 1)
    value = _weighted_mean(differences, strata, per_stratum)
    return Difference(value, float(low), float(high), min(1.0, 2 * min(below, above)))


def _weighted_mean(values: np.ndarray, strata: np.ndarray | None, per_stratum: bool) -> float:
    import numpy as np

    if strata is None or not per_stratum:
        return float(values.mean())
    return float(np.mean([values[strata == stratum].mean() for stratum in np.unique(strata)]))


def _means(values: np.ndarray, strata: np.ndarray | None, per_stratum: bool, replicates: int, seed: int) -> np.ndarray:
    """Return the mean of every replicate, (replicates,)."""
    import numpy as np

    generator = np.random.Generator(np.random.Philox(seed))
    groups = [values] if strata is None else [values[strata == stratum] for stratum in np.unique(strata)]
    total = np.zeros(replicates)
    for group in groups:
        weight = 1 / len(groups) if per_stratum else len(group) / len(values)
        total += weight * _redrawn(group, replicates, generator)
    return total


def _redrawn(values: np.ndarray, replicates: int, generator: np.random.Generator) -> np.ndarray:
    import numpy as np

    distinct, counts = np.unique(values, return_counts=True)
    at_once = max(1, _CHUNK // len(distinct))
    parts = []
    for start in range(0, replicates, at_once):
        drawn = generator.multinomial(len(values), counts / len(values), size=min(at_once, replicates - start))
        parts.append(drawn @ distinct / len(values))
    return np.concatenate(parts)
