"""Few-shot linear probe: a closed-form linear classifier on frozen features, k images per class, several seeds.

The classifier is big_vision's `fewshot_lsr`: features standardised by the training shots, a constant feature of 100 as
bias, ridge regression to targets of -1 and 1. Nothing is chosen on the test set: the ridge's weight is fixed (2^10).
Subsets nest: per seed and class, k shots are the first k of one order. The interval is Student's t over seeds: it covers
the draw of the shots, not that of the test set. `k = all` has no draw, so its interval is Wilson's over test images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from eval.config import EvalConfig
from shards.core.config import option
from shards.core.console import warn
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from eval.features import Encoded
    from eval.metrics import Score
    from eval.protocols.base import Bench, Scores

VERSION = 1
BIAS = 100.0
_EPSILON = 1e-5  # keeps a constant feature from dividing by zero, as in big_vision


@dataclass(frozen=True)
class Config(EvalConfig):
    """Flags of `evaluate probe`."""

    PROTOCOL: ClassVar[str] = "probe"

    train: str = option("", "labelled training set; without, half of --data per class, split by content hash", metavar="PATH")
    k: str = option("1,5,10", "images per class, separated by commas; `all` takes every training image", metavar="K")
    seeds: int = option(5, "draws of the shots; the interval is over them")
    l2: float = option(1024.0, "weight of the ridge; fixed in advance, never chosen on the test set")


@dataclass(frozen=True)
class Sides:
    """The training and the test images of a probe, in one order of classes."""

    train: Encoded
    test: Encoded
    settings: dict[str, Any]


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1 and mean_per_class for every k.

    Raises:
        UsageError: a class with fewer than k training images, other classes in training, or flags that make no sense.
    """
    shots = parse_shots(config.k)
    if config.seeds < 1 or config.l2 <= 0:
        raise UsageError(f"--seeds {config.seeds} --l2 {config.l2:g}", "at least one seed, a positive weight")
    sides = _given(config, bench, test) if config.train else _halved(test)
    settings = {**sides.settings, "l2": config.l2, "seeds": config.seeds}
    for k in shots:  # all draws before any number, so that a k too large costs nothing
        sides.train.examples.shots(k, 0)
    for k in shots:
        for name, score in _scores(sides, k, config):
            yield name, score.having(k="all" if k is None else k, settings=settings)


def parse_shots(text: str) -> list[int | None]:
    """Return the numbers in `1,5,all`; None stands for all."""
    words = [word.strip() for word in text.split(",")]
    if not all(word == "all" or (word.isascii() and word.isdigit() and int(word) > 0) for word in words):
        raise UsageError(f"--k {text}", "whole numbers from 1 and `all`, separated by commas")
    return [None if word == "all" else int(word) for word in dict.fromkeys(words)]


def _given(config: Config, bench: Bench, test: Encoded) -> Sides:
    """Take the training set from its own path, its labels translated to the test set's order of classes by name."""
    import numpy as np

    train = bench.open(config.train, config.classnames)
    theirs, ours = train.classes, test.examples.classes
    if set(theirs) != set(ours):
        only = sorted(set(theirs) ^ set(ours))
        raise UsageError(f"{config.train}: {len(theirs)} classes, the test set {len(ours)}; not in both: {', '.join(only[:5])}", "the same")
    encoded = bench.encode(train.relabel(ours))
    overlap = int(np.isin(test.examples.hashes, encoded.examples.hashes).sum())
    if overlap:
        warn(f"{overlap} of {len(test.examples)} test images are training images too, byte for byte")
    settings = {
        "split": "given",
        "train": encoded.digest,
        "n_train": len(encoded.examples),
        "n_train_undecodable": len(encoded.undecodable),
        "overlap": overlap,
    }
    return Sides(encoded, test, settings)


def _halved(test: Encoded) -> Sides:
    train, rest = test.examples.halves()
    if not len(train):
        raise UsageError(f"{test.examples.name}: no class has two images to split", advice="--train PATH")
    settings = {"split": "half per class by content hash", "n_train": len(train)}
    return Sides(_part(test, train), _part(test, rest), settings)


def _part(encoded: Encoded, positions: np.ndarray) -> Encoded:
    from eval.features import Encoded

    return Encoded(encoded.examples.take(positions), encoded.features[positions], encoded.digest, encoded.undecodable)


def _scores(sides: Sides, k: int | None, config: Config) -> Iterator[tuple[str, Score]]:
    from eval import metrics

    labels, n = sides.test.examples.labels, len(sides.test.examples)
    runs = [_ranks(sides, k, seed, config.l2) for seed in range(1 if k is None else config.seeds)]
    if k is None:
        yield "acc1", metrics.accuracy(runs[0])
        yield "mean_per_class", metrics.mean_per_class(runs[0] == 0, labels)
    else:
        yield "acc1", metrics.over_seeds([float((r == 0).mean()) for r in runs]).having(n=n)
        means = [float(metrics.class_accuracies(r == 0, labels)[0].mean()) for r in runs]
        yield "mean_per_class", metrics.over_seeds(means).having(n=n)


def _ranks(sides: Sides, k: int | None, seed: int, l2: float) -> np.ndarray:
    """Return how many classes stand before the true one for every test image, after one draw of the shots."""
    from eval import metrics

    train = sides.train.examples
    chosen = train.shots(k, seed)
    scores = ridge(sides.train.features[chosen], train.labels[chosen], len(train.classes), l2)
    return metrics.ranks(scores(sides.test.features), sides.test.examples.labels)


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
