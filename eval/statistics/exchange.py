"""The exchange rate between two sources: how many samples of B one sample of A is worth on a target, from nested sizes of both.

Each source's accuracy is a line in the logarithm of its size. At an accuracy that both reach, A needs n_A samples and B needs n_B; the rate
is n_B / n_A. It is averaged, as a logarithm, over the accuracies in which both measured curves overlap: nothing is extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
REPLICATES = 4_000
# Of the replicates that give no rate, how many may be: more, and a bound of a 95% interval would be one of them.
MOST_WITHOUT = 0.025


@dataclass(frozen=True)
class Rate:
    """One sample of A is worth `value` of B, between `low` and `high`; None where it is not estimable, and `why` says why."""

    value: float | None
    low: float | None
    high: float | None
    why: str = ""
    overlap: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"not estimable: {self.why}"
        if self.low is None or self.high is None:
            return f"{self.value:.2f} (no interval: {self.why})"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class _Line:
    """A fitted line: accuracy = intercept + slope · ln(size), with the covariance of both."""

    intercept: float
    slope: float
    squares: float  # of the points' distances from the line, summed
    df: int
    inverse: np.ndarray  # (2, 2), of the design's cross product
    smallest: float
    largest: float

    def ends(self) -> tuple[float, float]:
        """Return the accuracies of the fitted line at its first and last size."""
        import numpy as np

        return self.intercept + self.slope * np.log(self.smallest), self.intercept + self.slope * np.log(self.largest)


def exchange_rate(
    sizes_a: np.ndarray,
    accuracies_a: np.ndarray,
    sizes_b: np.ndarray,
    accuracies_b: np.ndarray,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Rate:
    """Return how many samples of B one sample of A is worth.

    Interval: a parametric bootstrap of both lines. Points scatter about both alike, since one protocol measured them: the scatter is
    pooled, and its own uncertainty is that of χ² with the degrees of freedom of both. Each with its own scatter covers 97–99% of a
    nominal 95% at three or four sizes. The accuracy at which the rate is read stays that of the data.

    Args:
        sizes_a: (n,) samples of A behind each accuracy; sizes repeat where there are several runs. `sizes_b` the same of B.

    Returns:
        A rate, or one without a value where a curve has one size alone or does not rise, or where the curves do not overlap; without an
        interval where both have two points alone, or where more than 2.5% of the replicates have no rate.

    Raises:
        ValueError: a size that is not above 0.
    """
    import numpy as np

    for sizes in (sizes_a, sizes_b):
        if not (np.asarray(sizes) > 0).all():
            raise ValueError("a size that is not above 0")
    for name, sizes in (("A", sizes_a), ("B", sizes_b)):
        if len(np.unique(sizes)) < 2:
            return Rate(None, None, None, f"{name} has one size alone")
    line_a, line_b = _line(sizes_a, accuracies_a), _line(sizes_b, accuracies_b)
    for name, line in (("A", line_a), ("B", line_b)):
        if line.slope <= 0:
            return Rate(None, None, None, f"the accuracy of {name} does not rise with its size")
    low, high = (max(line_a.ends()[0], line_b.ends()[0]), min(line_a.ends()[1], line_b.ends()[1]))
    if low >= high:
        ranges = " and ".join(f"{100 * line.ends()[0]:.1f}–{100 * line.ends()[1]:.1f}%" for line in (line_a, line_b))
        return Rate(None, None, None, f"the curves do not overlap: accuracies of {ranges}")
    middle = (low + high) / 2  # both logarithms are linear in the accuracy: their mean over the overlap is that at its middle
    value = float(np.exp(_log_rate(line_a.intercept, line_a.slope, line_b.intercept, line_b.slope, middle)))
    df = line_a.df + line_b.df
    if not df:
        return Rate(value, None, None, "both curves have two points alone", (low, high))
    generator = np.random.Generator(np.random.Philox(seed))
    scatter = np.sqrt((line_a.squares + line_b.squares) / generator.chisquare(df, size=(replicates, 1)))
    a, b = _redrawn(line_a, scatter, generator), _redrawn(line_b, scatter, generator)
    rising = (a[:, 1] > 0) & (b[:, 1] > 0)
    if (~rising).mean() > MOST_WITHOUT:
        return Rate(value, None, None, f"in {(~rising).mean():.0%} of the replicates a curve does not rise", (low, high))
    logs = _log_rate(a[rising, 0], a[rising, 1], b[rising, 0], b[rising, 1], middle)
    bounds = np.exp(np.quantile(logs, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Rate(value, float(bounds[0]), float(bounds[1]), overlap=(low, high))


def _log_rate(intercept_a: float, slope_a: float, intercept_b: float, slope_b: float, accuracy: float) -> float:
    """Return ln(n_B / n_A) at an accuracy."""
    return (accuracy - intercept_b) / slope_b - (accuracy - intercept_a) / slope_a


def _line(sizes: np.ndarray, accuracies: np.ndarray) -> _Line:
    import numpy as np

    logs = np.log(np.asarray(sizes, dtype=np.float64))
    design = np.stack([np.ones_like(logs), logs], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    intercept, slope = (inverse @ design.T @ accuracies).tolist()
    df = len(logs) - 2
    squares = float(np.square(accuracies - intercept - slope * logs).sum())
    return _Line(intercept, slope, squares, df, inverse, float(np.min(sizes)), float(np.max(sizes)))


def _redrawn(line: _Line, scatter: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return (intercept, slope), (replicates, 2), as a scatter of the points, (replicates, 1), lets them be."""
    import numpy as np

    root = np.linalg.cholesky(line.inverse)
    return np.asarray([line.intercept, line.slope]) + scatter * (generator.standard_normal((len(scatter), 2)) @ root.T)
