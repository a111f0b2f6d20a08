"""Curves through few points: rank correlation, accuracy against size, and robustness beyond what a baseline line predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
REPLICATES = 2_000
_GRID = 60  # values of c that are tried before the search between two of them
_LARGEST_POWER, _SMALLEST_POWER = 4.0, 0.02  # x^-4 is a step between two sizes, x^-0.02 a logarithm


@dataclass(frozen=True)
class Correlation:
    """A rank correlation, its bootstrap interval, and how many pairs it is of."""

    value: float
    low: float | None
    high: float | None
    n: int


def spearman(x: np.ndarray, y: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> Correlation:
    """Return Spearman's rank correlation (Spearman 1904, Am. J. Psychol. 15, 72) with the percentile interval over redrawn pairs.

    Replicates in which all x or all y are equal have no correlation and do not count. With fewer than five pairs there is no interval:
    redrawing four pairs gives a few values alone.

    Args:
        x: (n,); `y` the same.

    Raises:
        ValueError: fewer than three pairs, or all x or all y equal.
    """
    import numpy as np

    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"{n} pairs; three with different x and different y are the least")
    value = float(_rank_correlations(x[None, :], y[None, :])[0])
    if n < 5:
        return Correlation(value, None, None, n)
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = generator.integers(0, n, (replicates, n))
    several = (np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)
    correlations = _rank_correlations(x[drawn[several]], y[drawn[several]])
    low, high = np.quantile(correlations, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Correlation(value, float(low), float(high), n)


def _rank_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    import numpy as np
    from scipy.stats import rankdata

    x_ranks, y_ranks = rankdata(x, axis=1), rankdata(y, axis=1)
    x_ranks -= x_ranks.mean(axis=1, keepdims=True)
    y_ranks -= y_ranks.mean(axis=1, keepdims=True)
    return np.asarray((x_ranks * y_ranks).sum(axis=1) / np.sqrt((x_ranks**2).sum(axis=1) * (y_ranks**2).sum(axis=1)))


@dataclass(frozen=True)
class Fit:
    """A curve y(x) with the parameters of its bootstrap replicates.

    Attributes:
        form: `saturating`, y = a - b x^-c with parameters (a, b, c); or `log-linear`, y = a + b ln x with (a, b).
        parameters: of the best fit.
        replicates: (replicates, parameters).
        residual: standard deviation of points about the curve, in units of y.
    """

    form: str
    parameters: tuple[float, ...]
    replicates: np.ndarray
    residual: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the curve's y at x, (n,)."""
        import numpy as np

        return _curve(np.asarray([self.parameters]), x)[0]

    def interval(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pointwise 95% bounds of the curve (not of new points) at x, each (n,)."""
        import numpy as np

        low, high = np.quantile(_curve(self.replicates, x), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high

    def bounds(self) -> list[tuple[float, float]]:
        """Return the 95% bounds of each parameter."""
        import numpy as np

        low, high = np.quantile(self.replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return list(zip(low.tolist(), high.tolist(), strict=True))


def fit(x: np.ndarray, y: np.ndarray, form: str = "saturating", replicates: int = REPLICATES, seed: int = 0) -> Fit:
    """Fit accuracy against size, with a bootstrap of residuals.

    The saturating form is the power law with an asymptote (Hestness et al. 2017, arXiv 1712.00409). Given c it is linear in a and b, so c
    alone is searched for (variable projection: Golub, Pereyra 1973, SIAM J. Numer. Anal. 10, 413), between 0.02 and 4. Replicates are the
    curve plus Student's t of n - p degrees of freedom times the residual deviation: with few points the deviation is itself uncertain,
    and redrawing the residuals covers too little (70–74% of a nominal 95% at six points, 85% at twelve).

    Args:
        x: (n,) sizes, above 0; `y` (n,) accuracies.
        form: `saturating` or `log-linear`.

    Raises:
        ValueError: no more points than parameters, sizes that are not above 0, or another form.
    """
    import numpy as np

    parameters = {"saturating": 3, "log-linear": 2}.get(form)
    if parameters is None:
        raise ValueError(f"form {form!r}; saturating or log-linear")
    n = len(x)
    if n <= parameters or not (np.asarray(x) > 0).all() or len(np.unique(x)) < parameters:
        raise ValueError(f"{n} points of {len(np.unique(x))} sizes for {parameters} parameters; more points, sizes above 0")
    best = _fitted(x, y[None, :], form)
    predicted = _curve(best, x)[0]
    residual = float(np.sqrt(np.square(y - predicted).sum() / (n - parameters)))
    generator = np.random.Generator(np.random.Philox(seed))
    scale = np.sqrt((n - parameters) / generator.chisquare(n - parameters, size=(replicates, 1)))
    drawn = predicted + residual * scale * generator.standard_normal((replicates, n))
    return Fit(form, tuple(best[0].tolist()), _fitted(x, drawn, form), residual)


def _curve(parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return y, (fits, n), of parameters (fits, 2 or 3) at x (n,)."""
    import numpy as np

    wide = np.asarray(x, dtype=np.float64)
    if parameters.shape[1] == 2:
        return parameters[:, :1] + parameters[:, 1:] * np.log(wide)[None, :]
    return parameters[:, :1] - parameters[:, 1:2] * wide[None, :] ** -parameters[:, 2:]


def _fitted(x: np.ndarray, y: np.ndarray, form: str) -> np.ndarray:
    """Return the least-squares parameters, (fits, 2 or 3), of each row of y (fits, n)."""
    import numpy as np

    wide = np.asarray(x, dtype=np.float64)
    if form == "log-linear":
        design = np.stack([np.ones_like(wide), np.log(wide)], axis=1)
        return np.linalg.lstsq(design, y.T, rcond=None)[0].T
    unit = np.exp(np.log(wide).mean())  # sizes in their geometric mean: x^-4 of a million is nothing in double precision
    powers = np.geomspace(_SMALLEST_POWER, _LARGEST_POWER, _GRID)
    errors = np.stack([_projected(wide / unit, y, np.full(len(y), power))[1] for power in powers])
    power = _refined(wide / unit, y, powers[errors.argmin(axis=0)])
    lines, _ = _projected(wide / unit, y, power)
    return np.stack([lines[:, 0], lines[:, 1] * unit**power, power], axis=1)


def _projected(x: np.ndarray, y: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (a, b), (fits, 2), with b ≥ 0, and the squared errors, (fits,), for one c of each row of y."""
    import numpy as np

    basis = -(x[None, :] ** -power[:, None])
    centred = basis - basis.mean(axis=1, keepdims=True)
    slope = np.maximum((y * centred).sum(axis=1) / (centred**2).sum(axis=1), 0.0)
    intercept = y.mean(axis=1) - slope * basis.mean(axis=1)
    errors = np.square(y - intercept[:, None] - slope[:, None] * basis).sum(axis=1)
    return np.stack([intercept, slope], axis=1), errors


def _refined(x: np.ndarray, y: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the best c of each row, (fits,), within a step of the grid: golden-section search of all rows at once."""
    import numpy as np

    step = np.log(_LARGEST_POWER / _SMALLEST_POWER) / (_GRID - 1)
    low = np.maximum(np.log(near) - step, np.log(_SMALLEST_POWER))
    high = np.minimum(np.log(near) + step, np.log(_LARGEST_POWER))
    golden = (5**0.5 - 1) / 2
    for _ in range(30):  # 0.618^30 of two steps: 1e-7 of c
        left, right = high - golden * (high - low), low + golden * (high - low)
        is_left = _projected(x, y, np.exp(left))[1] < _projected(x, y, np.exp(right))[1]
        high = np.where(is_left, right, high)
        low = np.where(is_left, low, left)
    return np.exp((low + high) / 2)


@dataclass(frozen=True)
class Robustness:
    """What a model has beyond the baseline, in units of accuracy, with its interval."""

    value: float
    low: float
    high: float


def effective_robustness(
    baseline: np.ndarray,
    models: np.ndarray,
    images: tuple[int, int] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Robustness]:
    """Return each model's accuracy under shift less what the baseline line predicts of it.

    The line is fitted to the baseline models' logits of accuracy, as in Taori et al. 2020 (arXiv 2007.00644), on the axes of wise-ft's
    scatter plot: ρ = acc_shifted - expit(slope · logit(acc_standard) + intercept). The interval is over baseline models redrawn, and over
    the test images of both sets where their numbers are given; it takes them as independent.

    Args:
        baseline: (models, 2) accuracies between 0 and 1, not at either: standard set, shifted set; three at least.
        models: (models, 2), the same of the models in question.
        images: test images of the standard and of the shifted set.

    Raises:
        ValueError: fewer than three baseline models with different accuracies, or an accuracy at 0 or 1.
    """
    import numpy as np
    from scipy.special import expit

    both = np.concatenate([baseline, models])
    if len(np.unique(baseline[:, 0])) < 3 or both.min() <= 0 or both.max() >= 1:
        raise ValueError(f"{len(baseline)} baseline models, accuracies {both.min():g} to {both.max():g}; three that differ, inside 0 to 1")
    slope, intercept = _logit_line(baseline)
    values = models[:, 1] - expit(slope * _logit(models[:, 0]) + intercept)
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = np.empty((replicates, len(models)))
    for at in range(replicates):
        line = _redrawn_line(baseline, generator)
        seen = _redrawn_accuracies(models, images, generator) if images else models
        drawn[at] = seen[:, 1] - expit(line[0] * _logit(seen[:, 0]) + line[1])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Robustness(*map(float, three)) for three in zip(values, low, high, strict=True)]


def _logit(share: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.log(share / (1 - share))


def _logit_line(points: np.ndarray) -> Sequence[float]:
    """Return (slope, intercept) of the least-squares line through logits."""
    import numpy as np

    return np.polyfit(_logit(points[:, 0]), _logit(points[:, 1]), 1).tolist()


def _redrawn_line(baseline: np.ndarray, generator: np.random.Generator) -> Sequence[float]:
    """Return the line of redrawn baseline models; a draw with one accuracy alone has no line, and is drawn again."""
    import numpy as np

    while True:
        chosen = baseline[generator.integers(0, len(baseline), len(baseline))]
        if len(np.unique(chosen[:, 0])) > 1:
            return _logit_line(chosen)


def _redrawn_accuracies(models: np.ndarray, images: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Return accuracies on redrawn test images, half an image away from 0 and 1."""
    import numpy as np

    counts = np.asarray(images)
    return np.clip(generator.binomial(counts, models), 0.5, counts - 0.5) / counts
