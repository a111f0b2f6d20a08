"""Food-101: 101 dishes; 75,750 images train (with some noise, as published), 25,250 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = ()  # the lines of meta/labels.txt, which name the folders that meta/classes.txt lists
TEMPLATES = (
    "a photo of {c}, a type of food.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "food-101/images/CLASS/*.jpg and food-101/meta/{classes,labels,train,test}.txt, as food-101.tar.gz unpacks"
_LISTS = ("meta/classes.txt", "meta/labels.txt", "meta/train.txt", "meta/test.txt")


def splits(path: str) -> list[str]:
    """Return the official splits."""
    _root(path)
    return [TRAIN, TEST]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    folders, classes = (tuple(_layout.lines(f"{root}/{name}")) for name in _LISTS[:2])
    _layout.check_order(f"{root}/meta/labels.txt", folders, classes)
    places = {name: label for label, name in enumerate(folders)}
    items = []
    for number, line in enumerate(_layout.lines(f"{root}/meta/{split}.txt"), 1):
        folder = line.partition("/")[0]
        if folder not in places:
            raise UsageError(f"{root}/meta/{split}.txt: line {number}: {folder!r} is no class of the set", ", ".join(folders[:5]) + ", …")
        items.append(_layout.Item(f"{line}.jpg", f"{root}/images/{line}.jpg", places[folder]))
    return _layout.examples("food101", items, classes, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("images", *_LISTS), ("food-101",))
