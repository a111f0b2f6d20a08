"""The interval of a mean over draws of the data ⊃ training seeds ⊃ draws of the shots, all measured on the same test images.

Runs nest, test images do not: every run answers the same images, so averaging over runs does not average the choice of the images
away. With D units at the topmost level that has two or more, and X the share of right answers of unit d on image i, averaged over all
that lies below d, the layout is a two-way one. Its mean squares give the variance of the grand mean, which is

    (MS_units + MS_images - MS_interaction) / (D n)

(Searle, Casella, McCulloch 1992, Variance Components, §4.3). The spread of the D unit means holds all that varies below them, whatever
its size, with D - 1 degrees of freedom. The limits are Graybill and Wang's (1980, J. Am. Stat. Assoc. 75, 869), each term with its own
quantile:

    half-width² = max(t² MS_units - t z MS_interaction, 0)/(D n) + z² MS_images/(D n),   t of D - 1 degrees of freedom, z normal

Chosen by simulation (tests/eval/test_statistics_levels.py), 48 worlds of 2–5 draws × 1–5 seeds × 1–5 shots, 3,000 studies each, of a
nominal 95%: this covers 93.0–97.2% at 3–5 units, and 93.6–98.5% at 2, where it errs on the safe side. Satterthwaite's degrees of
freedom cover 89% at 2 units; the t interval over the unit means alone, as usually printed, 59% where images matter more than runs;
resampling level by level 62–81% at 2 units and 86–91% at 3–5 where draws matter, since two units redrawn are the same unit half of
the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
_ALIKE = 1e-12  # accuracies that differ by rounding alone


@dataclass(frozen=True)
class Interval:
    """A mean over units and its 95% bounds. `images` says whether the choice of the test images is covered, `spread` whether the units'
    spread is: without it the units are all alike, and the interval is that over test images alone.
    """

    value: float
    low: float
    high: float
    images: bool
    spread: bool


def crossed_interval(
    values: np.ndarray, strata: np.ndarray | None = None, bounds: tuple[float, float] = (0.0, 1.0), level: float = LEVEL
) -> Interval:
    """Return the interval of the mean over units and test images.

    Args:
        values: (units, images): what each image counts in each unit, in one order of images; two units at least.
        strata: (images,) classes, where the mean is that of the classes' means: images then vary within their class.
        bounds: what the mean cannot leave: 0 and 1 of an accuracy, -1 and 1 of a difference.

    Raises:
        ValueError: fewer than two units, or two images.
    """
    import numpy as np
    from scipy.stats import norm, t

    units, images = values.shape
    if units < 2 or images < 2:
        raise ValueError(f"{units} units × {images} images; two of each are the least")
    wide = values.astype(np.float64)
    weights = _image_weights(images, strata)
    unit_means = wide @ weights
    mean = float(unit_means.mean())
    spread = float(unit_means.var(ddof=1)) / units
    over_images = _variance_over_images(wide.mean(axis=0), strata)
    rest = wide - wide.mean(axis=0) - unit_means[:, None] + mean
    interaction = sum(_variance_over_images(unit, strata) for unit in rest) / (units * (units - 1))
    t_value, z_value = float(t.ppf((1 + level) / 2, units - 1)), float(norm.ppf((1 + level) / 2))
    of_units = max(t_value**2 * spread - t_value * z_value * interaction, 0.0)
    half = float(np.sqrt(of_units + z_value**2 * over_images))
    if half < _ALIKE:
        half = _never_nothing(mean, images, bounds)
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Interval(mean, low, high, images=True, spread=bool(np.ptp(unit_means) > _ALIKE))


def crossed_p(values: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Return the p-value of a mean difference of zero: one less the level at which `crossed_interval` just reaches zero.

    Args:
        values: (units, images): what each image counts under the first model less under the second. `strata` as there.
    """
    from scipy.optimize import brentq

    def beyond(level: float) -> float:
        found = crossed_interval(values, strata, (-float("inf"), float("inf")), level)
        return (found.high - found.value) - abs(found.value)

    if beyond(1e-6) >= 0:
        return 1.0
    if beyond(1 - 1e-6) <= 0:
        return 1e-6
    return 1 - float(brentq(beyond, 1e-6, 1 - 1e-6))


def _never_nothing(mean: float, images: int, bounds: tuple[float, float]) -> float:
    """Return the half-width where no image and no unit varies: Wilson's at 0 or at 1 for an accuracy, twice that for a difference."""
    from eval.statistics.proportions import wilson

    low, high = wilson(images, images)
    return (high - low) * (2 if bounds[0] < 0 else 1) if abs(mean - round(mean)) < _ALIKE else 0.0


def spread_interval(unit_means: Sequence[float], n: int, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Return the interval of a mean over units of which only the accuracies are known, no answers by image.

    The variance over images is then p(1-p)/n at most, images and interaction together; the units' spread holds the interaction, too.
    The interval is therefore too wide where runs answer images unlike: it covers 95.6–99.8% in the worlds of `crossed_interval`.

    Args:
        unit_means: (units,) accuracies, two at least.
        n: test images; 0 leaves them out, and the interval is Student's t over the units.
        bounds: what the mean cannot leave.

    Raises:
        ValueError: fewer than two units.
    """
    import numpy as np
    from scipy.stats import norm, t

    units = len(unit_means)
    if units < 2:
        raise ValueError(f"{units} units; two are the least")
    mean = float(np.mean(unit_means))
    spread = float(np.var(unit_means, ddof=1)) / units
    of_images = max(mean * (1 - mean), 0.0) / n if n else 0.0
    t_value, z_value = float(t.ppf((1 + LEVEL) / 2, units - 1)), float(norm.ppf((1 + LEVEL) / 2))
    half = float(np.sqrt(t_value**2 * spread + z_value**2 * of_images))
    low, high = mean - half, mean + half
    if spread <= _ALIKE**2 and n:
        from eval.statistics.proportions import wilson

        low, high = wilson(round(mean * n), n)
    low, high = max(bounds[0], low), min(bounds[1], high)
    return Interval(mean, low, high, images=bool(n), spread=spread > _ALIKE**2)


def _image_weights(images: int, strata: np.ndarray | None) -> np.ndarray:
    """Return what share of the mean each image has, (images,)."""
    import numpy as np

    if strata is None:
        return np.full(images, 1 / images)
    _, place, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(counts) * counts[place]))


def _variance_over_images(values: np.ndarray, strata: np.ndarray | None) -> float:
    """Return the variance of a mean over images, (images,) values; within classes where there are strata.

    A class with one image has no variance of its own; it gets the mean of the other classes'.
    """
    import numpy as np

    if strata is None:
        return float(values.var(ddof=1)) / len(values)
    classes = np.unique(strata)
    groups = [values[strata == label] for label in classes]
    several = [float(group.var(ddof=1)) for group in groups if len(group) > 1]
    usual = float(np.mean(several)) if several else float(values.var(ddof=1))
    variances = [float(group.var(ddof=1)) if len(group) > 1 else usual for group in groups]
    return sum(v / len(group) for v, group in zip(variances, groups, strict=True)) / len(classes) ** 2


def components(tree: Sequence[Sequence[Sequence[float]]]) -> dict[str, tuple[float, int]]:
    """Return the variances that draws, training seeds and shots add, each with its degrees of freedom, from nested values.

    Analysis of variance of nested levels, each level's mean square less what the level below gives it (Searle, Casella, McCulloch 1992,
    §3.3, unweighted means where the levels are uneven). A negative estimate is 0. A level with no degrees of freedom is nan.

    Args:
        tree: tree[draw][seed][shot] is an accuracy.
    """
    import numpy as np

    seed_groups = [seed for draw in tree for seed in draw]
    shots, shots_df = _pooled(seed_groups)
    mean_shots = _harmonic([len(seed) for seed in seed_groups])
    seeds_raw, seeds_df = _pooled([[float(np.mean(seed)) for seed in draw] for draw in tree])
    draws_raw, draws_df = _pooled([[float(np.mean([np.mean(seed) for seed in draw])) for draw in tree]])
    seeds = max(seeds_raw - _number(shots) / mean_shots, 0.0) if seeds_df else float("nan")
    below = seeds_raw if seeds_df else _number(shots) / mean_shots
    mean_seeds = _harmonic([len(draw) for draw in tree])
    draws = max(draws_raw - below / mean_seeds, 0.0) if draws_df else float("nan")
    return {"draw": (draws, draws_df), "train_seed": (seeds, seeds_df), "shots": (shots, shots_df)}


def _pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the variance within groups, pooled, and its degrees of freedom; nan and 0 where no group has two values."""
    import numpy as np

    df = sum(len(group) - 1 for group in groups)
    squares = sum(float(np.square(np.asarray(group) - np.mean(group)).sum()) for group in groups)
    return (squares / df, df) if df else (float("nan"), 0)


def _number(value: float) -> float:
    return 0.0 if value != value else value  # nan


def _harmonic(counts: Sequence[int]) -> float:
    return len(counts) / sum(1 / count for count in counts)
