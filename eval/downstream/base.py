"""What a downstream set is: a file that reads the published files of one data set, whatever they are packed in.

A module has

    its docstring's first line       what the set measures; `evaluate list` prints it
    CLASSES                          class names in label order; empty where they come from the data (a comment says from which file)
    TEMPLATES                        prompts with `{c}`: those that CLIP or CLIP_benchmark publish for the set, else the plain one
    METRIC                           acc1, or mean_per_class where that is the set's own
    LAYOUT                           which published files `load` expects
    splits(path) -> list[str]        the splits that are there: train, val, test, and shifted ones
    load(path, split) -> Examples    one of them; ids are the published file names

and may have

    RULE                             how splits are made where none are official
    CHECKSUM                         the rule's checksum over the whole published set, where its file names are known beforehand
    SHIFTS                           shifted splits by name, with what differs from `test`

Nothing is downloaded. Archives are unpacked by the user, as LAYOUT says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shards.core.errors import UsageError, closest

if TYPE_CHECKING:
    from eval.datasets.base import Examples

PACKAGE = "eval.downstream"
PLAIN = ("a photo of a {c}.",)
PER_CLASS = "mean_per_class"
TRAIN, VAL, TEST = "train", "val", "test"
_RULE_VERSION = 1


class EmptySplitError(UsageError):
    """A rule puts no image into a split: a set that is smaller than the published one may have none."""


class Module(Protocol):
    """The shape of a downstream set's module."""

    CLASSES: tuple[str, ...]
    TEMPLATES: tuple[str, ...]
    METRIC: str
    LAYOUT: str

    def splits(self, path: str) -> list[str]:
        """Return the splits that are there."""
        ...

    def load(self, path: str, split: str) -> Examples:
        """Return one of them."""
        ...


@dataclass(frozen=True)
class Rule:
    """A split that everybody can rebuild: each image goes by the hash of its published name.

    An image's place is x = (first 8 bytes of sha256("NAME:ID"), big-endian) / 2^64, where ID is the file's name in the published set,
    with its class folder. It tests where x < test, validates where x < test + val, trains otherwise. So a file that is missing
    moves no other. With `shots`, the images of a class with the smallest hashes train, so many of them, and all others test.
    `key` says what the ID is where it is not the file's name.
    """

    name: str
    val: float = 0.0
    test: float = 0.0
    shots: int = 0
    key: str = "the published file name"

    @property
    def text(self) -> str:
        """The rule in words, as `dataset.json` states it."""
        place = f"x = (first 8 bytes of sha256('{self.name}:ID'), big-endian) / 2^64, ID = {self.key}"
        if self.shots:
            return f"rule {_RULE_VERSION}: the {self.shots} images of each class with the smallest x train, all others test; {place}"
        return f"rule {_RULE_VERSION}: test where x < {self.test:g}, val where x < {self.test + self.val:g}, else train; {place}"

    def splits(self) -> list[str]:
        """Return the splits that the rule makes."""
        return [TRAIN, VAL, TEST] if self.val else [TRAIN, TEST]

    def place(self, id: str) -> float:
        """Return an image's x, in [0, 1)."""
        digest = hashlib.sha256(f"{self.name}:{id}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def side(self, id: str) -> str:
        """Return the split of an image, for a rule with shares."""
        x = self.place(id)
        if x < self.test:
            return TEST
        return VAL if x < self.test + self.val else TRAIN

    def sides(self, ids: Sequence[str], labels: Sequence[int]) -> list[str]:
        """Return the split of each image."""
        if not self.shots:
            return [self.side(id) for id in ids]
        groups: dict[int, list[int]] = {}
        for i, label in enumerate(labels):
            groups.setdefault(label, []).append(i)
        found = [TEST] * len(ids)
        for group in groups.values():
            for i in sorted(group, key=lambda i: (self.place(ids[i]), ids[i]))[: self.shots]:
                found[i] = TRAIN
        return found


def checksum(rows: Iterable[tuple[str, int, str]]) -> str:
    """Return the sha256 over the sorted lines `ID<TAB>LABEL<TAB>SPLIT` of a split list."""
    lines = sorted(f"{id}\t{label}\t{split}\n" for id, label, split in rows)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def check_split(known: Sequence[str], path: str, split: str) -> None:
    """Refuse a split that is not there.

    Raises:
        UsageError: naming those that are.
    """
    if split not in known:
        raise UsageError(f"{path}: no split {split!r}", ", ".join(known), closest(split, known))
