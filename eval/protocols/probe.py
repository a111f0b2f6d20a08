"""Few-shot linear probe: a closed-form linear classifier on frozen features, k images per class, several seeds.

The classifier is big_vision's `fewshot_lsr`: features standardised by the training shots, a constant feature of 100 as
bias, ridge regression to targets of -1 and 1. Nothing is chosen on the test set: the ridge's weight is fixed (2^10).
Subsets nest: per seed and class, k shots are the first k of one order. The interval is Student's t over seeds: it covers
the draw of the shots, not that of the test set. `k = all` has no draw, so its interval is that over test images; so it is where
all draws are the same images, or all give the same number, and the table says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.protocols import _shots
from eval.protocols._shots import FewShotOrPixels, check
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores

__all__ = ["BIAS", "VERSION", "Config", "check", "prepare", "ridge", "run"]

VERSION = 1
BIAS = 100.0
_EPSILON = 1e-5  # keeps a constant feature from dividing by zero, as in big_vision


@dataclass(frozen=True)
class Config(FewShotOrPixels):
    """Flags of `evaluate probe`."""

    PROTOCOL: ClassVar[str] = "probe"

    l2: float = option(1024.0, "weight of the ridge; fixed in advance, never chosen on the test set")


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if config.seeds < 1 or config.l2 <= 0:
        raise UsageError(f"--seeds {config.seeds} --l2 {config.l2:g}", "at least one seed, a positive weight")
    return _shots.parse_shots(config.k)


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5 (with more than five classes) and mean_per_class for every k.

    Raises:
        UsageError: a class with fewer than k training images, other classes in training, or flags that make no sense.
    """
    shots = prepare(config)
    whole = _shots.sides_of(config, bench, test)
    all_sides = [_shots.for_shots(whole, k, config.small_classes) for k in shots]  # before any number: a k too large costs nothing
    for k, sides in zip(shots, all_sides, strict=True):
        settings = {**sides.settings, "l2": config.l2, "seeds": config.seeds}
        runs = [_answers(sides, k, seed, config.l2) for seed in _shots.seeds_of(config, k)]
        for name, score in _shots.over_draws(sides, runs, k):
            yield name, score.having(k="all" if k is None else k, settings=settings)


def _answers(sides: _shots.Sides, k: int | None, seed: int, l2: float) -> np.ndarray:
    """Return the scores of all test images, (n, classes) float32, after one draw of the shots."""
    import numpy as np

    train = sides.train.examples
    chosen = _shots.draw(train, k, seed)
    classify = ridge(sides.train.features[chosen], train.labels[chosen], len(train.classes), l2)
    return classify(sides.test.features).astype(np.float32)


def ridge(features: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> Callable[[np.ndarray], np.ndarray]:
    """Fit the classifier and return it: a function from features (n, d) to scores (n, classes).

    Minimises ||XW - Y||² + l2·||W||² with X standardised plus the bias column, Y in {-1, 1}; solved in the smaller of
    the two forms (images × images, or features × features), in double precision.
    """
    import numpy as np

    raw64 = features.astype(np.float64)
    mean, std = raw64.mean(axis=0), raw64.std(axis=0) + _EPSILON

    def design(raw: np.ndarray) -> np.ndarray:
        return np.pad((raw.astype(np.float64) - mean) / std, ((0, 0), (0, 1)), constant_values=BIAS)

    x = design(features)
    y = np.where(labels[:, None] == np.arange(classes)[None, :], 1.0, -1.0)
    n, d = x.shape
    small = n < d
    solved = np.linalg.solve((x @ x.T if small else x.T @ x) + l2 * np.eye(min(n, d)), y if small else x.T @ y)
    weights = x.T @ solved if small else solved
    return lambda raw: design(raw) @ weights
