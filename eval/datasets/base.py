"""A labelled data set as a view: slicing, `--limit`, k-shot subsets and splits live here; a data set's file only loads.

A data set module has

    TEMPLATES                       prompts with `{c}` for the class name, used where no --templates are given
    METRIC                          its main metric: what `evaluate table --metric main` shows
    recognises(path) -> bool        whether a path holds this kind, judged by names alone
    load(path, columns) -> Examples
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from shards.core.config import digest
from shards.core.errors import ProvenderError, UsageError
from shards.sample import rank_key

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = ("a photo of a {c}.",)
METRIC = "acc1"
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


@dataclass(frozen=True)
class Columns:
    """Which columns hold images and labels, for data sets that have columns; empty: the only one of its kind."""

    image: str = ""
    label: str = ""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with labels 0 … C-1. Nothing is read but labels until `read` or `hashes` is asked for.

    Attributes:
        name: what tables call it.
        classes: class names in label order.
        ids: one name per image, for messages.
        labels: one class number per image, (n,) int64.
        read: position → encoded image bytes; called from several threads. May raise for one image.
        metric: the main metric.
        named: whether `classes` are names that prompts can use, not mere numbers.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    read: Callable[[int], bytes]
    templates: tuple[str, ...] = TEMPLATES
    metric: str = METRIC
    named: bool = True
    known_hashes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise UsageError(f"{self.name}: no labelled image", "at least one")
        for name, count in Counter(self.classes).most_common(1):
            if count > 1:
                raise UsageError(f"{self.name}: class name {name!r} stands {count} times", "distinct class names")
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if wrong.any():
            i = int(wrong.nonzero()[0][0])
            raise UsageError(f"{self.name}: {self.ids[i]} has label {self.labels[i]}", f"0 … {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Examples:
        return self.take(range(*part.indices(len(self))))

    def take(self, positions: Sequence[int] | np.ndarray) -> Examples:
        """Return the view of some positions, in that order."""
        import numpy as np

        chosen = np.asarray(positions, dtype=np.int64)
        known = self._known()
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=self.labels[chosen],
            read=lambda i: self.read(int(chosen[i])),
            known_hashes=None if known is None else known[chosen],
        )

    def rename(self, classes: tuple[str, ...]) -> Examples:
        """Return the same images under other class names, as many as before where those were known."""
        known = len(self.classes)
        if len(classes) < known or (self.named and len(classes) != known):
            raise UsageError(f"{self.name}: {len(classes)} class names for {known} classes", f"{known} names in label order")
        return replace(self, classes=classes, named=True, known_hashes=self._known())

    def relabel(self, classes: tuple[str, ...]) -> Examples:
        """Return the same images with the same class names in another order, labels translated by name."""
        import numpy as np

        place = {name: i for i, name in enumerate(classes)}
        labels = np.array([place[self.classes[label]] for label in self.labels], dtype=np.int64)
        return replace(self, classes=classes, labels=labels, known_hashes=self._known())

    def _known(self) -> np.ndarray | None:
        return self.__dict__.get("hashes", self.known_hashes)

    @property
    def class_digest(self) -> str:
        """sha256 of the class names in order: a head and a set whose digests differ must not meet."""
        return digest(list(self.classes))

    @cached_property
    def hashes(self) -> np.ndarray:
        """sha256 (hex, ASCII bytes) of every image's bytes, (n,); read once. What cannot be read is hashed by its name."""
        import numpy as np

        if self.known_hashes is not None:
            return self.known_hashes
        with ThreadPoolExecutor() as pool:
            return np.array(list(pool.map(self._hash, range(len(self)))), dtype="S64")

    def _hash(self, i: int) -> str:
        try:
            content = self.read(i)
        except (OSError, ProvenderError):
            content = b"unreadable\0" + self.ids[i].encode("utf-8", "surrogatepass")
        return hashlib.sha256(content).hexdigest()

    @property
    def digest(self) -> str:
        """sha256 of the images and their labels, whatever their order and the container they came in."""
        return digest(sorted(f"{label}:{text}" for label, text in zip(self.labels, self.hashes.astype(str), strict=True)))

    def limit(self, n: int) -> Examples:
        """Return n images drawn by the hash of their ids, in the old order; 0, or n beyond the size, returns all."""
        if n <= 0 or n >= len(self):
            return self
        by_hash = sorted(range(len(self)), key=lambda i: hashlib.sha256(self.ids[i].encode("utf-8", "surrogatepass")).digest())
        return self.take(sorted(by_hash[:n]))

    def shots(self, k: int | None, seed: int) -> np.ndarray:
        """Return the positions of k images per class: the first k of one order per seed and class, so that subsets nest.

        The order is the rank of the images' content, so it does not depend on names, containers or other classes.
        k None takes all.

        Raises:
            UsageError: a class has fewer than k images.
        """
        import numpy as np

        if k is None:
            return np.arange(len(self))
        hashes: list[str] = self.hashes.astype(str).tolist()
        chosen: list[int] = []
        for label, positions in enumerate(self._by_class()):
            if len(positions) < k:
                raise UsageError(
                    f"{self.name}: {k} shots asked for, class {self.classes[label]!r} has {len(positions)} training images",
                    f"k up to {min(map(len, self._by_class()))}",
                )
            chosen += sorted(positions, key=lambda i: (rank_key(seed, hashes[i]), i))[:k]
        return np.array(chosen, dtype=np.int64)

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (train, test) positions: within each class, the images whose content hash is in the lower half train.

        Equal images of a class fall on one side. A class with a single distinct image has it in test.
        """
        import numpy as np

        train: list[int] = []
        for positions in self._by_class():
            distinct = sorted({self.hashes[i] for i in positions})
            lower = set(distinct[: len(distinct) // 2])
            train += [i for i in positions if self.hashes[i] in lower]
        mask = np.zeros(len(self), dtype=bool)
        mask[train] = True
        return np.flatnonzero(mask), np.flatnonzero(~mask)

    def _by_class(self) -> list[list[int]]:
        groups: list[list[int]] = [[] for _ in self.classes]
        for i, label in enumerate(self.labels):
            groups[label].append(i)
        return groups


def label_of(path: str) -> str:
    """Return what tables call a path: its last part, or its last two where the last is only a split."""
    parts = [p for p in path.rstrip("/").split("/") if p not in ("", ".")]
    parts = parts[:-1] if parts and parts[-1] == "manifest.json" else parts
    if len(parts) > 1 and parts[-1].lower() in SPLITS:
        return "/".join(parts[-2:])
    return parts[-1] if parts else path
