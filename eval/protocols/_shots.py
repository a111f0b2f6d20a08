"""What few-shot protocols share: training and test images in one order of classes, nested draws, and scores over draws.

Subsets nest: per seed and class, k shots are the first k of one order, the rank of the images' content. A class with fewer than
k training images is refused, or gives all it has (`take-all`), or is left out of training and test (`drop`); rows say which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from eval import packed
from eval.config import EvalConfig
from shards.core.config import option
from shards.core.console import warn
from shards.core.errors import RunError, UsageError
from shards.sample import rank_key

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.metrics import Score
    from eval.protocols.base import Bench, Sets

SmallClasses = Literal["refuse", "take-all", "drop"]
_SHOWN = 5


@dataclass(frozen=True)
class FewShot(EvalConfig):
    """Flags of protocols that learn from labelled images."""

    train: str = option("", "labelled training set; without, a packed set's own, or half of --data per class by hash", metavar="PATH")
    k: str = option("1,5,10", "images per class, separated by commas; `all` takes every training image", metavar="K")
    seeds: int = option(5, "draws of the shots; the interval is over them")
    small_classes: SmallClasses = option(
        "refuse", "classes with fewer than k training images: refuse, take all they have, or drop them from training and test"
    )


@dataclass(frozen=True)
class FewShotOrPixels(FewShot):
    """The same for protocols that work without a model, too."""

    features: Literal["model", "pixels"] = option("model", "pixels: raw pixels of the image at 16 × 16 instead of a model, as a control")


@dataclass(frozen=True)
class Sides:
    """The training and the test images of a protocol, in one order of classes, and what rows say of them."""

    train: Encoded
    test: Encoded
    settings: dict[str, Any]
    shift: np.ndarray | None = None  # what raw pixels were standardised by: the training images' mean, (d,),
    scale: np.ndarray | None = None  # and their deviation

    def alike(self, other: Encoded) -> Encoded:
        """Return other images, standardised as these are."""
        if self.shift is None:
            return other
        return replace(other, features=(other.features - self.shift) / self.scale)


def prepare(config: FewShot) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if config.seeds < 1:
        raise UsageError(f"--seeds {config.seeds}", "at least one seed")
    return parse_shots(config.k)


def parse_shots(text: str) -> list[int | None]:
    """Return the numbers in `1,5,all`; None stands for all."""
    words = [word.strip() for word in text.split(",")]
    if not all(word == "all" or (word.isascii() and word.isdigit() and int(word) > 0) for word in words):
        raise UsageError(f"--k {text}", "whole numbers from 1 and `all`, separated by commas")
    return [None if word == "all" else int(word) for word in dict.fromkeys(words)]


def split_of(config: FewShot, name: str) -> str:
    """Return the path of a split of the packed set that `--data` names; empty where it is none, or that split itself."""
    folder, split = packed.folder_of(config.path)
    return "" if not folder or split == name else packed.splits_of(folder).get(name, "")


def train_path(config: FewShot) -> str:
    """Return the training set: `--train`, or a packed set's own; empty where `--data` is to be halved."""
    return config.train or split_of(config, packed.TRAIN)


def val_path(config: FewShot, stated: str) -> str:
    """Return the validation set: the one that is stated, or a packed set's own where its own images train; empty without one."""
    return stated or ("" if config.train else split_of(config, packed.VAL))


def validation(path: str, config: FewShot, bench: Bench, test: Encoded) -> Encoded | None:
    """Return the encoded validation set at a path, its labels in the test set's order of classes; None where the path is empty."""
    return bench.encode(same_classes(path, bench.open(path, config.classnames), test.examples)) if path else None


def check(config: FewShot, sets: Sets, examples: Examples) -> None:
    """Refuse a set with one class, other classes in training, or a k beyond the smallest class where that is the rule.

    The classes are counted before a byte of an image is read. Without a training set, equal images of a class count once, so the
    images are read (none is decoded) where the first count does.

    Raises:
        UsageError: so it is.
    """
    counted = [k for k in prepare(config) if k]
    if len(examples.classes) < 2:
        raise UsageError(f"{examples.name}: one class alone, {examples.classes[0]!r}: every answer is right", "at least two classes")
    path = train_path(config)
    if path:
        check_counts(same_classes(path, sets.open(path, config.classnames), examples), counted, config.small_classes)
        return
    if counted:
        check_counts(examples, counted, config.small_classes, parts=2)
        train_side, _ = examples.halves()
        check_counts(examples.take(train_side), counted, config.small_classes)


def check_counts(examples: Examples, ks: Sequence[int], rule: SmallClasses, parts: int = 1) -> None:
    """Refuse numbers of shots that a training set cannot give under a rule for small classes, by counting labels alone.

    Args:
        parts: how many parts each class is cut into, of which one trains.

    Raises:
        UsageError: a class has too few images; or, if classes are dropped, fewer than two are left.
    """
    import numpy as np

    if rule == "refuse":
        examples.check_shots(ks, parts)
        return
    counts = np.bincount(examples.labels, minlength=len(examples.classes)) // parts
    if rule == "take-all" and ks and counts.min() == 0:
        empty = examples.classes[int(counts.argmin())]
        raise UsageError(f"{examples.name}: class {empty!r} has no training image", "at least one of each class")
    for k in ks:
        left = int((counts >= k).sum())
        if rule == "drop" and left < 2:
            raise UsageError(f"{examples.name}: {left} classes have {k} training images", f"k up to {np.sort(counts)[-2]}")


def same_classes(path: str, train: Examples, test: Examples) -> Examples:
    """Return a training set with its labels translated to the test set's order of classes by name.

    Raises:
        UsageError: it has other classes.
        RunError: the orders differ nevertheless.
    """
    theirs, ours = train.classes, test.classes
    if set(theirs) != set(ours):
        only = sorted(set(theirs) ^ set(ours))
        found = f"{path}: {len(theirs)} classes, the test set {len(ours)}; not in both: {', '.join(only[:_SHOWN])}"
        raise UsageError(found, "the same")
    translated = train.relabel(ours)
    if translated.class_digest != test.class_digest:
        raise RunError(f"{path}: its classes stand in another order than the test set's")
    return translated


def sides_of(config: FewShot, bench: Bench, test: Encoded) -> Sides:
    """Return the encoded training and test images; raw pixels are standardised by all training images.

    Raises:
        UsageError: other classes in training, or nothing to train on.
    """
    path = train_path(config)
    sides = _from_path(path, config, bench, test) if path else _halved(test)
    if getattr(config, "features", "model") == "pixels":
        return _standardised(sides)
    return sides


def checked_sides(config: FewShot, bench: Bench, test: Encoded, shots: Sequence[int | None]) -> Sides:
    """Return `sides_of`, after every number of shots was checked: before anything is fitted, a k too large costs nothing.

    Raises:
        UsageError: a class with fewer than k training images, other classes in training, or nothing to train on.
    """
    sides = sides_of(config, bench, test)
    for k in shots:
        for_shots(sides, k, config.small_classes)
    return sides


def _from_path(path: str, config: FewShot, bench: Bench, test: Encoded) -> Sides:
    train = same_classes(path, bench.open(path, config.classnames), test.examples)
    encoded = bench.encode(train)
    settings = {
        "split": "given",
        "train": encoded.digest,
        "n_train": len(encoded.examples),
        "n_train_undecodable": len(encoded.undecodable),
        "overlap": _overlap(encoded.examples, test.examples),
    }
    return Sides(encoded, test, settings)


def _halved(test: Encoded) -> Sides:
    train, rest = test.examples.halves()
    if not len(train):
        raise UsageError(f"{test.examples.name}: no class has two images to split", advice="--train PATH")
    overlap = _overlap(test.examples.take(train), test.examples.take(rest))
    settings: dict[str, Any] = {"split": "half per class by content hash", "n_train": len(train)}
    if overlap:  # only where a picture stands in several classes
        settings["overlap"] = overlap
    return Sides(part_of(test, train), part_of(test, rest), settings)


def _overlap(train: Examples, test: Examples) -> int:
    """Return how many test images are training images too, byte for byte, and warn of them."""
    both = test.shared_with(train)
    if len(both):
        warn(f"{len(both)} of {len(test)} test images are training images too, byte for byte, such as {test.ids[both[0]]}")
    return len(both)


def part_of(encoded: Encoded, positions: np.ndarray) -> Encoded:
    """Return some of a set's images, with their features."""
    return replace(encoded, examples=encoded.examples.take(positions), features=encoded.features[positions], positions=None)


def _standardised(sides: Sides) -> Sides:
    shift, scale = sides.train.features.mean(axis=0), sides.train.features.std(axis=0) + 1e-5
    known = replace(sides, shift=shift, scale=scale)
    return replace(known, train=known.alike(sides.train), test=known.alike(sides.test))


def draw(examples: Examples, k: int | None, seed: int) -> np.ndarray:
    """Return the positions of k images per class, class by class, each in the order of its ranks: the first k of one order.

    A class with fewer gives all it has; `check_counts` says whether that is allowed. k None takes all, in that order too.
    """
    import numpy as np

    hashes: list[str] = examples.hashes.astype(str).tolist()
    keys = [rank_key(seed, content) for content in hashes]
    order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    by_class: list[list[int]] = [[] for _ in examples.classes]
    for i in order:
        by_class[examples.labels[i]].append(i)
    return np.array([i for positions in by_class for i in positions[:k]], dtype=np.int64)


def for_shots(sides: Sides, k: int | None, rule: SmallClasses) -> Sides:
    """Return the sides under a rule for small classes, with what rows say of it.

    Raises:
        UsageError: as `check_counts`, now that images that do not decode are gone.
    """
    import numpy as np

    train = sides.train.examples
    if k is None:
        return sides
    check_counts(train, [k], rule)
    counts = np.bincount(train.labels, minlength=len(train.classes))
    small = np.flatnonzero(counts < k)
    if not len(small):
        return sides
    names = [train.classes[label] for label in small[:_SHOWN]]
    settings = {**sides.settings, "small_classes": rule, "n_small_classes": len(small), "such_as": names}
    if rule == "take-all":
        return replace(sides, settings=settings)
    kept = np.flatnonzero(counts >= k)
    return replace(sides, train=_of_classes(sides.train, kept), test=_of_classes(sides.test, kept), settings=settings)


def _of_classes(encoded: Encoded, kept: np.ndarray) -> Encoded:
    """Return the images of some classes, which are numbered anew."""
    import numpy as np

    numbers = np.full(len(encoded.examples.classes), -1)
    numbers[kept] = np.arange(len(kept))
    part = part_of(encoded, np.flatnonzero(numbers[encoded.examples.labels] >= 0))
    classes = tuple(part.examples.classes[label] for label in kept)
    hashes = part.examples.hashes
    examples = replace(part.examples, classes=classes, labels=numbers[part.examples.labels], known_hashes=hashes)
    return replace(part, examples=examples)


def like(encoded: Encoded, other: Encoded) -> Encoded:
    """Return the images whose classes another set has, too, numbered as there."""
    import numpy as np

    classes = other.examples.classes
    return _of_classes(encoded, np.array([encoded.examples.classes.index(name) for name in classes]))


def over_draws(sides: Sides, runs: Sequence[np.ndarray], k: int | None, **options: Any) -> Iterator[tuple[str, Score]]:
    """Yield the metrics of the scores of all draws, (n, classes) each: their mean over draws, or those of the only one.

    Args:
        options: of `metrics.classification`.
    """
    from eval import metrics
    from eval.answers import Answers

    labels = sides.test.examples.labels
    scored = [metrics.classification(run, labels, **options) for run in runs]
    answers = tuple(Answers(sides.test.examples, run, {} if k is None else {"seed": seed}) for seed, run in enumerate(runs))
    for metric, first in scored[0].items():
        if k is None:
            yield metric, first.having(answers=answers)
            continue
        by_run = [run[metric] for run in scored]
        why = _same_images(sides.train.examples, k, [score.value for score in by_run])
        yield metric, metrics.over_runs(by_run, metric, why).having(answers=answers)


def _same_images(train: Examples, k: int, values: Sequence[float]) -> str:
    """Return in words that all draws are the same images; empty where they are not, or where they cannot be, as their values differ."""
    seeds = len(values)
    if seeds < 2 or len(set(values)) > 1:
        return ""
    draws = {tuple(sorted(train.hashes[draw(train, k, seed)].tolist())) for seed in range(seeds)}
    return f"all {seeds} draws are the same images" if len(draws) == 1 else ""


def seeds_of(config: FewShot, k: int | None) -> range:
    """Return the seeds of a number of shots: all images have no draw."""
    return range(1 if k is None else config.seeds)
