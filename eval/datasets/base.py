"""A labelled data set as a view: slicing, `--limit`, k-shot subsets and splits live here; a data set's file only loads.

A data set module has

    TEMPLATES                       prompts with `{c}` for the class name, used where no --templates are given
    METRIC                          its main metric: what `evaluate table --metric main` shows
    recognises(path) -> bool        whether a path holds this kind, judged by names alone
    load(path, columns) -> Examples
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from shards.classes.match import Matched
from shards.core import fs
from shards.core.config import digest
from shards.core.engines.local import threads_of
from shards.core.errors import ProvenderError, RunError, UsageError
from shards.sample import rank_key

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = ("a photo of a {c}.",)
METRIC = "acc1"
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
MOST_CLASSES = 10**6  # a label beyond it is no label: ImageNet-21k has 21,841 classes, and a column of scores costs 8 bytes an image


@dataclass(frozen=True)
class Columns:
    """Which columns hold images, labels and splits, for data sets that have columns; empty: the only or usual one of its kind."""

    image: str = ""
    label: str = ""
    split: str = ""


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
        repeated: names that may stand for several classes: the list they come from tells these apart otherwise.
        told: what loading passed over or did not find: (count, what, where), for the end of a command.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    read: Callable[[int], bytes]
    templates: tuple[str, ...] = TEMPLATES
    metric: str = METRIC
    named: bool = True
    repeated: tuple[str, ...] = ()
    told: tuple[tuple[int, str, str], ...] = ()
    known_hashes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise UsageError(f"{self.name}: no labelled image", "at least one")
        for name, count in Counter(self.classes).most_common(1 + len(self.repeated)):
            if count > 1 and name not in self.repeated:
                raise UsageError(f"{self.name}: class name {name!r} stands {count} times", "distinct class names")
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if wrong.any():
            i = int(wrong.nonzero()[0][0])
            advice = "do the labels count from 1?" if self.labels.min() == 1 and self.labels.max() == len(self.classes) else ""
            raise UsageError(f"{self.name}: {self.ids[i]} has label {self.labels[i]}", f"0 … {len(self.classes) - 1}", advice)

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

    def rename(self, names: Matched, used: Sequence[int]) -> Examples:
        """Return the same images under other class names.

        Args:
            used: the labels that `names.labels` has the new ones of, in the same order.
        """
        import numpy as np

        places = np.full(max(used) + 1, -1, dtype=np.int64)
        places[np.asarray(used, dtype=np.int64)] = names.labels
        return replace(
            self, classes=names.classes, labels=places[self.labels], named=True, repeated=names.repeated, known_hashes=self._known()
        )

    def telling(self, count: int, what: str, where: str) -> Examples:
        """Return the same images with one more thing to tell at the end; a count of 0 is nothing to tell."""
        return replace(self, told=(*self.told, (count, what, where)), known_hashes=self._known()) if count else self

    def relabel(self, classes: tuple[str, ...]) -> Examples:
        """Return the same images with the same class names in another order, labels translated by name.

        Raises:
            UsageError: a name stands for several classes, and the order differs.
        """
        import numpy as np

        if classes == self.classes:
            return self
        if len(set(classes)) < len(classes):
            raise UsageError(f"{self.name}: names that stand for several classes, in another order", "classes in one order")
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
        return self.known_hashes if self.known_hashes is not None else content_hashes(self.ids, self.read)

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
        self.check_shots([k])
        hashes: list[str] = self.hashes.astype(str).tolist()
        chosen: list[int] = []
        for positions in self._by_class():
            chosen += sorted(positions, key=lambda i: (rank_key(seed, hashes[i]), i))[:k]
        return np.array(chosen, dtype=np.int64)

    def check_shots(self, ks: Sequence[int], parts: int = 1) -> None:
        """Refuse a number of shots beyond the smallest class, by counting labels alone.

        Args:
            parts: how many parts each class is cut into, of which one trains.

        Raises:
            UsageError: a class has fewer images.
        """
        import numpy as np

        counts = np.bincount(self.labels, minlength=len(self.classes)) // parts
        for k in ks:
            if counts.min() < k:
                label = int(np.argmax(counts < k))
                found = f"{self.name}: {k} shots asked for, class {self.classes[label]!r} has {counts[label]} training images"
                if parts > 1:
                    found += f", 1/{parts} of its {self.labels.tolist().count(label)}: the others test"
                advice = f"--k {counts.min()}" if counts.min() else "--train PATH, or a set with more images of that class"
                raise UsageError(found, f"k up to {counts.min()}", advice)

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

    def shared_with(self, other: Examples) -> np.ndarray:
        """Return the positions of the images that another set has, too, byte for byte."""
        import numpy as np

        return np.flatnonzero(np.isin(self.hashes, other.hashes))

    def in_several_classes(self) -> tuple[tuple[int, int], ...]:
        """Return pairs of positions of images that are equal byte for byte and stand in different classes.

        Each such picture gives one pair: its first position, and the first one in another class.
        """
        first: dict[bytes, int] = {}
        found: dict[bytes, tuple[int, int]] = {}
        for i, content in enumerate(self.hashes.tolist()):
            before = first.setdefault(content, i)
            if self.labels[before] != self.labels[i]:
                found.setdefault(content, (before, i))
        return tuple(found.values())

    def _by_class(self) -> list[list[int]]:
        groups: list[list[int]] = [[] for _ in self.classes]
        for i, label in enumerate(self.labels):
            groups[label].append(i)
        return groups


def content_hashes(ids: Sequence[str], read: Callable[[int], bytes]) -> np.ndarray:
    """Return the sha256 (hex, ASCII bytes) of the bytes of every image, (n,). What cannot be read is hashed by its name."""
    import numpy as np

    def hash_of(i: int) -> str:
        try:
            content = read(i)
        except (OSError, ProvenderError):
            content = b"unreadable\0" + ids[i].encode("utf-8", "surrogatepass")
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(threads_of()) as pool:
        return np.array(list(pool.map(hash_of, range(len(ids)))), dtype="S64")


def read_file(path: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        RunError: it is no plain file: a pipe would be waited for without end.
    """
    if not fs.is_remote(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise RunError(f"{path}: no plain file")
    return fs.read_bytes(path)


def label_of(path: str) -> str:
    """Return what tables call a path: its last part, or its last two where the last is only a split."""
    parts = [p for p in path.rstrip("/").split("/") if p not in ("", ".")]
    parts = parts[:-1] if parts and parts[-1] == "manifest.json" else parts
    if len(parts) > 1 and parts[-1].lower() in SPLITS:
        return "/".join(parts[-2:])
    return parts[-1] if parts else path
