"""Nearest neighbours by cosine: what features tell apart without anything being fitted.

The k nearest training images vote for their class. acc1, acc5 and mean_per_class are DINO's: a vote weighs exp(cosine / 0.07) (Caron et al.
2021, §4.1 and its eval_knn.py). acc1_majority counts votes alike, with equal counts in class order. The number of neighbours, 20 as in
DINO, is fixed in advance and at most the number of training images. Of equally near images the earlier one by content is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.protocols import _shots
from eval.protocols._shots import FewShotOrPixels, check
from shards.core.config import option

if TYPE_CHECKING:
    import numpy as np

    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores

__all__ = ["VERSION", "Config", "check", "neighbours", "prepare", "run", "votes"]

VERSION = 1
_BLOCK = 2**26  # cosines that are in memory together: 256 MB


@dataclass(frozen=True)
class Config(FewShotOrPixels):
    """Flags of `evaluate knn`."""

    PROTOCOL: ClassVar[str] = "knn"

    k: str = option("all", "training images per class, separated by commas; `all` takes every training image", metavar="K")
    neighbours: int = option(20, "images that vote; fixed in advance, never chosen on the test set", least=1)
    temperature: float = option(0.07, "of the weights of votes", above=0)


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    return _shots.prepare(config)


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5 (with more than five classes), mean_per_class and acc1_majority for every number of shots.

    Raises:
        UsageError: a class with fewer than k training images, other classes in training, or flags that make no sense.
    """
    shots = prepare(config)
    whole = _shots.sides_of(config, bench, test)
    all_sides = [_shots.for_shots(whole, k, config.small_classes) for k in shots]  # before any number: a k too large costs nothing
    for k, sides in zip(shots, all_sides, strict=True):
        runs = [_answers(config, sides, k, seed) for seed in _shots.seeds_of(config, k)]
        count = min(config.neighbours, len(_shots.draw(sides.train.examples, k, 0)))
        settings = {**sides.settings, "neighbours": count, "temperature": config.temperature, "seeds": config.seeds}
        place = "all" if k is None else k
        for name, score in _shots.over_draws(sides, [weighted for weighted, _ in runs], k):
            yield name, score.having(k=place, settings=settings)
        for name, score in _shots.over_draws(sides, [plain for _, plain in runs], k):
            if name == "acc1":
                yield "acc1_majority", score.having(k=place, settings=settings, answers=())


def _answers(config: Config, sides: _shots.Sides, k: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted and plain votes of all test images, (n, classes) float32 each."""
    import numpy as np

    chosen = _shots.draw(sides.train.examples, k, seed)
    train = sides.train.examples.take(chosen)
    by_content = np.argsort(train.hashes, kind="stable")
    places, cosines = neighbours(sides.train.features[chosen[by_content]], sides.test.features, config.neighbours)
    labels = train.labels[by_content][places]
    # Less the largest, which changes no order of classes and keeps small temperatures from overflowing.
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / config.temperature)
    classes = len(train.classes)
    return votes(labels, weights, classes), votes(labels, np.ones_like(weights), classes)


def neighbours(train: np.ndarray, test: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places and cosines of the `count` nearest training images of each test image, (n, count), by place.

    Of equally near ones the first in order are taken. Features (n, d) need not have unit length.
    """
    import numpy as np

    count = min(count, len(train))
    near, far = _unit(train), _unit(test)
    places = np.empty((len(far), count), np.int64)
    cosines = np.empty((len(far), count), np.float32)
    rows = max(1, _BLOCK // len(near))
    for at in range(0, len(far), rows):
        block = far[at : at + rows] @ near.T
        least = np.partition(block, len(near) - count, axis=1)[:, len(near) - count, None]
        chosen = block >= least
        for row in np.flatnonzero(chosen.sum(axis=1) > count):
            spare = np.flatnonzero(block[row] == least[row])[count - int((block[row] > least[row]).sum()) :]
            chosen[row, spare] = False
        places[at : at + rows] = np.nonzero(chosen)[1].reshape(-1, count)
        cosines[at : at + rows] = np.take_along_axis(block, places[at : at + rows], axis=1)
    return places, cosines


def _unit(features: np.ndarray) -> np.ndarray:
    import numpy as np

    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def votes(labels: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Return the sum of weights by class, (n, classes) float32, of neighbours' labels and weights, (n, count)."""
    import numpy as np

    rows = np.arange(len(labels))[:, None] * classes
    total = np.bincount((rows + labels).ravel(), weights=weights.ravel(), minlength=len(labels) * classes)
    return total.reshape(len(labels), classes).astype(np.float32)
