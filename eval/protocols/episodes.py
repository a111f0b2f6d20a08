"""Episodes: n-way k-shot tasks drawn from a set's classes; nearest class mean and ridge, mean over episodes.

An episode draws its classes and, of each, k images to learn from and q to ask, by the rank of names and contents under (seed, episode): a
function of the seed alone. Equal images of a class count once. acc1 is the nearest class mean by cosine (Snell et al. 2017 with the
cosine of Chen et al. 2021, arXiv:2003.04390, §3), acc1_ridge the probe's closed form. The interval is over episodes, of one test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from eval.config import EvalConfig
from shards.core.config import option
from shards.core.errors import UsageError
from shards.sample import rank_key

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.metrics import Score
    from eval.protocols.base import Bench, Scores, Sets

VERSION = 1


@dataclass(frozen=True)
class Config(EvalConfig):
    """Flags of `evaluate episodes`."""

    PROTOCOL: ClassVar[str] = "episodes"

    k: str = option("1,5", "images per class to learn from, separated by commas", metavar="K")
    way: int = option(5, "classes of an episode", least=2)
    queries: int = option(15, "images per class that are asked", least=1)
    episodes: int = option(600, "episodes; the interval is over them", least=1)
    seed: int = option(0, "of the draws")
    l2: float = option(1024.0, "weight of the ridge, as in `evaluate probe`", above=0)
    small_classes: Literal["refuse", "drop"] = option("refuse", "classes with fewer than k + queries distinct images: refuse or drop them")


@dataclass(frozen=True)
class Episode:
    """One task: the classes, and the positions of the images to learn from (way, k) and to ask (way, queries)."""

    classes: tuple[int, ...]
    support: np.ndarray
    query: np.ndarray


def prepare(config: Config) -> list[int]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    from eval.protocols._shots import parse_shots

    shots = parse_shots(config.k)
    if config.way < 2 or config.queries < 1 or config.episodes < 1 or config.l2 <= 0 or None in shots:
        found = f"--k {config.k} --way {config.way} --queries {config.queries} --episodes {config.episodes} --l2 {config.l2:g}"
        raise UsageError(found, "whole numbers from 1, at least two classes, a positive weight")
    return [k for k in shots if k is not None]


def check(config: Config, sets: Sets, examples: Examples) -> None:
    """Refuse a set with too few classes, or classes with too few images, by counting labels alone.

    Raises:
        UsageError: so it is.
    """
    import numpy as np

    counts = np.bincount(examples.labels, minlength=len(examples.classes))
    for k in prepare(config):
        _usable(config, examples, counts, k)


def _usable(config: Config, examples: Examples, counts: np.ndarray, k: int) -> list[int]:
    """Return the classes with enough images for k shots.

    Raises:
        UsageError: a class has too few and none may be dropped, or fewer classes are left than an episode has.
    """
    import numpy as np

    needed = k + config.queries
    small = np.flatnonzero(counts < needed)
    if len(small) and config.small_classes == "refuse":
        name = examples.classes[int(small[0])]
        found = f"{examples.name}: class {name!r} has {counts[small[0]]} images, {k} shots and {config.queries} queries need {needed}"
        raise UsageError(found, f"k + queries up to {counts.min()}", "--queries N, or --small-classes drop")
    usable = np.flatnonzero(counts >= needed).tolist()
    if len(usable) < config.way:
        raise UsageError(f"{examples.name}: {len(usable)} classes with {needed} images", f"at least {config.way}", f"--way {len(usable)}")
    return usable


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1 and acc1_ridge for every k.

    Raises:
        UsageError: too few classes, or classes with too few distinct images.
    """
    import numpy as np

    shots = prepare(config)
    pools = _pools(test.examples)
    counts = np.array([len(pool) for pool in pools])
    usable = [_usable(config, test.examples, counts, k) for k in shots]
    for k, classes in zip(shots, usable, strict=True):
        drawn = [draw(test.examples, pools, classes, config, k, episode) for episode in range(config.episodes)]
        settings: dict[str, Any] = {"way": config.way, "queries": config.queries, "episodes": config.episodes, "seed": config.seed}
        if len(classes) < len(pools):
            settings |= {"small_classes": config.small_classes, "n_small_classes": len(pools) - len(classes)}
        means = [float((nearest_mean(test.features, e) == np.arange(config.way)[:, None]).mean()) for e in drawn]
        ridges = [float((by_ridge(test.features, e, config.l2) == np.arange(config.way)[:, None]).mean()) for e in drawn]
        asked = len(np.unique(np.concatenate([episode.query.ravel() for episode in drawn])))
        yield "acc1", _score(means, config.way).having(k=k, n=asked, settings=settings)
        yield "acc1_ridge", _score(ridges, config.way).having(k=k, n=asked, settings={**settings, "l2": config.l2})


def _score(values: Sequence[float], way: int) -> Score:
    from eval.metrics import Score, ends_of, t_interval

    bounds = t_interval(values, ends_of("acc1"))
    low, high = bounds or (None, None)
    covers = f"t over {len(values)} episodes" if bounds else ""
    return Score(sum(values) / len(values), low, high, covers, chance=1 / way)


def _pools(examples: Examples) -> list[list[int]]:
    """Return the positions of each class's images, each picture once."""
    pools: list[dict[bytes, int]] = [{} for _ in examples.classes]
    for i, (label, content) in enumerate(zip(examples.labels.tolist(), examples.hashes.tolist(), strict=True)):
        pools[label].setdefault(content, i)
    return [list(pool.values()) for pool in pools]


def draw(examples: Examples, pools: list[list[int]], classes: list[int], config: Config, k: int, episode: int) -> Episode:
    """Return an episode: the first classes and images by their ranks. Subsets nest: k shots are the first k of one order."""
    import numpy as np

    chosen = sorted(classes, key=lambda label: (rank_key(config.seed, f"{episode}:{examples.classes[label]}"), label))[: config.way]
    rows = []
    for label in chosen:
        keys = {i: rank_key(config.seed, f"{episode}:{examples.hashes[i].decode()}") for i in pools[label]}
        rows.append(sorted(keys, key=keys.__getitem__))
    support = np.array([row[:k] for row in rows])
    # From the other end, so that the images asked do not depend on k.
    return Episode(tuple(chosen), support, np.array([row[-config.queries :] for row in rows]))


def nearest_mean(features: np.ndarray, episode: Episode) -> np.ndarray:
    """Return the answers to an episode's queries, (way, queries): the class whose mean feature is nearest by cosine."""
    import numpy as np

    means = features[episode.support].mean(axis=1)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray((features[episode.query] @ means.T).argmax(axis=-1))


def by_ridge(features: np.ndarray, episode: Episode, l2: float) -> np.ndarray:
    """Return the answers to an episode's queries, (way, queries), of the probe's classifier."""
    import numpy as np

    from eval.protocols.probe import ridge

    way, k = episode.support.shape
    classify = ridge(features[episode.support.ravel()], np.repeat(np.arange(way), k), way, l2)
    return np.asarray(classify(features[episode.query.ravel()]).argmax(axis=1).reshape(way, -1))
