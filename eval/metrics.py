"""Accuracies and their 95% intervals: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
REPLICATES = 2_000


@dataclass(frozen=True)
class Score:
    """A number with its interval. `interval` says what the interval covers; without one, low and high are None.

    `k` is the number of shots per class (None: not a few-shot number), `settings` what else the number depends on,
    `n` the number of test images, `runs` the values that a mean over seeds is of.
    """

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""
    k: int | str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    n: int = 0
    runs: tuple[float, ...] = ()

    def having(self, **changes: Any) -> Score:
        """Return the score with some fields replaced."""
        return replace(self, **changes)


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes stand before the true one, (n,), from scores (n, classes).

    Equal scores stand in class order, as with argmax: a model that scores all classes alike gets no credit for it.
    """
    import numpy as np

    true = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return np.asarray(((scores > true) | ((scores == true) & earlier)).sum(axis=1))


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share: Wilson 1927, J. Am. Stat. Assoc. 22, 209."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the Student-t interval of a mean over independent runs; a single run has none."""
    import numpy as np
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    mean = float(np.mean(values))
    return mean - half, mean + half


def over_seeds(values: Sequence[float]) -> Score:
    """Return the mean over seeds with its t interval; one seed has no interval."""
    bounds = t_interval(values)
    low, high = bounds or (None, None)
    return Score(sum(values) / len(values), low, high, f"t over {len(values)} seeds" if bounds else "", runs=tuple(values))


def accuracy(ranked: np.ndarray, k: int = 1) -> Score:
    """Return top-k accuracy with its Wilson interval over test images."""
    correct = int((ranked < k).sum())
    return Score(correct / len(ranked), *wilson(correct, len(ranked)), interval="wilson over test images", n=len(ranked))


def class_accuracies(correct: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (accuracy, images) of every class that has a test image."""
    import numpy as np

    totals = np.bincount(labels)
    hits = np.bincount(labels, weights=correct.astype(float), minlength=len(totals))
    there = totals > 0
    return hits[there] / totals[there], totals[there]


def mean_per_class(correct: np.ndarray, labels: np.ndarray) -> Score:
    """Return the mean over classes of each class's accuracy; classes without a test image do not count.

    The interval is the stratified bootstrap's (images redrawn within their class, percentiles, fixed seed). Redrawing
    n images of which a share p is right is a binomial draw, so the replicates need no loop.
    """
    import numpy as np

    shares, totals = class_accuracies(correct, labels)
    draws = np.random.Generator(np.random.Philox(0)).binomial(totals, shares, size=(REPLICATES, len(totals)))
    low, high = np.quantile((draws / totals).mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(float(shares.mean()), float(low), float(high), "stratified bootstrap over test images", n=len(labels))
