"""Accuracies, calibration and their 95% intervals: pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from eval.answers import Answers

LEVEL = 0.95
REPLICATES = 2_000
# Nats, a sum of squares up to 2, correlations and similarities from -1 to 1: no percentages.
NO_SHARES = ("nll", "brier", "barrier", "kappa", "error_correlation", "cka")
_ENDS = {
    "nll": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "barrier": (-math.inf, math.inf),
    "error_barrier": (-1.0, 1.0),
    "kappa": (-1.0, 1.0),
    "error_correlation": (-1.0, 1.0),
    "cka": (-1.0, 1.0),
}
BINS = 15  # of the calibration error: Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True)
class Score:
    """A number with its interval. `interval` says what the interval covers; without one, low and high are None.

    `k` is the number of shots per class (None: not a few-shot number), `settings` what else the number depends on,
    `n` the number of test images, `runs` the values that a mean over seeds is of, `chance` what a guess without looking gives.
    `answers` are the scores by image that the number was made of, one for each of `runs`, or one. `protocol` is what the row's
    protocol is called, where one command runs several.
    """

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""
    k: int | str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    n: int = 0
    runs: tuple[float, ...] = ()
    chance: float | None = None
    answers: tuple[Answers, ...] = field(default=(), compare=False, repr=False)
    protocol: str = ""

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


def ends_of(metric: str) -> tuple[float, float]:
    """Return the least and the greatest value that a metric can have; 0 and 1 of a share."""
    return _ENDS.get(metric, (0.0, 1.0))


def t_interval(values: Sequence[float], ends: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float] | None:
    """Return the Student-t interval of a mean over independent runs, cut at the ends of what is possible; a single run has none."""
    import numpy as np
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    mean = float(np.mean(values))
    return max(ends[0], mean - half), min(ends[1], mean + half)


def over_seeds(values: Sequence[float], metric: str) -> Score:
    """Return a metric's mean over seeds with its t interval; one seed has no interval."""
    bounds = t_interval(values, ends_of(metric))
    low, high = bounds or (None, None)
    return Score(sum(values) / len(values), low, high, f"t over {len(values)} seeds" if bounds else "", runs=tuple(values))


def accuracy(ranked: np.ndarray, k: int = 1) -> Score:
    """Return top-k accuracy with its Wilson interval over test images."""
    from eval.statistics.proportions import wilson

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
    n images of which a share p is right is a binomial draw, so the replicates need no loop. Where each class is all right or
    all wrong, no redrawing changes anything; then each class's share is drawn from its Jeffreys posterior instead, as Wilson's
    interval does not vanish at 0 and 1 either.
    """
    import numpy as np

    shares, totals = class_accuracies(correct, labels)
    generator = np.random.Generator(np.random.Philox(0))
    value, bounds = float(shares.mean()), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if np.isin(shares, (0, 1)).all():
        hits = shares * totals
        drawn = generator.beta(hits + 0.5, totals - hits + 0.5, size=(REPLICATES, len(totals)))
        low, high = np.quantile(drawn.mean(axis=1), bounds)
        return Score(value, min(value, float(low)), max(value, float(high)), "jeffreys over test images", n=len(labels))
    draws = generator.binomial(totals, shares, size=(REPLICATES, len(totals)))
    low, high = np.quantile((draws / totals).mean(axis=1), bounds)
    return Score(value, float(low), float(high), "stratified bootstrap over test images", n=len(labels))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the softmax of logits (n, classes), in double precision."""
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def over_runs(scores: Sequence[Score], metric: str, why: str = "") -> Score:
    """Return the mean of a metric over independent runs, such as draws of the shots.

    A single run has no interval: it says nothing of how far runs differ. Runs that all give the same keep the interval of the first
    one: an interval over runs would have no width.

    Args:
        scores: of each run.
        why: why all runs give the same, where they do and more than that is known of it; named in the interval.
    """
    values = [score.value for score in scores]
    first = scores[0]
    if len(values) > 1 and len(set(values)) == 1:
        reason = why or f"all {len(values)} draws give the same"
        return first.having(interval=f"{first.interval} ({reason})" if first.interval else "", runs=tuple(values))
    return over_seeds(values, metric).having(n=first.n, chance=first.chance)


def over_images(values: np.ndarray, metric: str) -> Score:
    """Return a metric's mean of one value per test image with its t interval; they are added up in one order, whatever the images' is."""
    import numpy as np

    values = np.sort(values)
    bounds = t_interval(values.tolist(), ends_of(metric))
    low, high = bounds or (None, None)
    return Score(float(values.mean()), low, high, "t over test images" if bounds else "", n=len(values))


def nll_by_image(log_chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each image's negative log-likelihood, (n,) in nats, from `log_softmax` (n, classes)."""
    import numpy as np

    return np.asarray(-np.take_along_axis(log_chances, labels[:, None], axis=1)[:, 0])


def brier_by_image(log_chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each image's squared errors summed over classes, (n,), from `log_softmax` (n, classes)."""
    import numpy as np

    errors = np.exp(log_chances)
    errors[np.arange(len(labels)), labels] -= 1
    return np.asarray((errors**2).sum(axis=1))


def nll(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Return the mean negative log-likelihood, in nats, of the softmax of logits (n, classes)."""
    return over_images(nll_by_image(log_softmax(logits), labels), "nll")


def brier(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Return the Brier score of the softmax of logits: squared errors summed over classes, 0 to 2 (Brier 1950, Mon. Weather Rev. 78, 1)."""
    return over_images(brier_by_image(log_softmax(logits), labels), "brier")


def ece(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Score:
    """Return the expected calibration error of the softmax of logits (Guo et al. 2017, eq. 3), without an interval.

    Images fall into `bins` bins of equal width by their largest probability, each bin with its upper edge. The error is the
    mean of |accuracy - confidence| over bins, weighted by their images. A bootstrap of it is biased upwards, so there is none.
    """
    import numpy as np

    probabilities = np.exp(log_softmax(logits))
    confidence = probabilities.max(axis=1)
    correct = ranks(logits, labels) == 0
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    order = np.argsort(confidence)  # one order of adding up, whatever the images' is
    gaps = np.bincount(places[order], weights=(correct - confidence)[order], minlength=bins)
    return Score(float(np.abs(gaps).sum() / len(labels)), n=len(labels))


def chance_of(metric: str, classes: int) -> float | None:
    """Return what a guess among equally likely classes gives in a metric; None where that says nothing."""
    import math

    known = {"acc1": 1 / classes, "mean_per_class": 1 / classes, "acc5": min(5 / classes, 1.0), "brier": 1 - 1 / classes}
    return math.log(classes) if metric == "nll" else known.get(metric)


def classification(scores: np.ndarray, labels: np.ndarray, *, probabilistic: bool = False) -> dict[str, Score]:
    """Return all metrics of scores (n, classes), by name.

    Args:
        probabilistic: the scores are logits of a softmax, so that calibration means something.
    """
    classes = scores.shape[1]
    ranked = ranks(scores, labels)
    scored = {"acc1": accuracy(ranked)}
    if classes > 5:
        scored["acc5"] = accuracy(ranked, 5)
    scored["mean_per_class"] = mean_per_class(ranked == 0, labels)
    if probabilistic:
        scored |= {"nll": nll(scores, labels), "ece": ece(scores, labels), "brier": brier(scores, labels)}
    return {metric: score.having(chance=chance_of(metric, classes)) for metric, score in scored.items()}
