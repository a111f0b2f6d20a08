"""FGVC Aircraft: 100 variants of aircraft; 3,334 images train, 3,333 validate, 3,333 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PER_CLASS, TEST, TRAIN, VAL, check_split
from shards.core.errors import TornFileError, UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = ()  # the lines of variants.txt
TEMPLATES = (
    "a photo of a {c}, a type of aircraft.", "a photo of the {c}, a type of aircraft.",
)  # fmt: skip
METRIC = PER_CLASS
LAYOUT = "data/images/NUMBER.jpg, data/variants.txt and data/images_variant_{train,val,test}.txt, as fgvc-aircraft-2013b.tar.gz unpacks"
_LISTS = tuple(f"images_variant_{split}.txt" for split in (TRAIN, VAL, TEST))


def splits(path: str) -> list[str]:
    """Return the official splits."""
    _root(path)
    return [TRAIN, VAL, TEST]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    classes = tuple(_layout.lines(f"{root}/variants.txt"))
    places = {name: label for label, name in enumerate(classes)}
    items = []
    listed = f"{root}/images_variant_{split}.txt"
    for number, line in enumerate(_layout.lines(listed), 1):
        name, _, variant = line.partition(" ")
        if not variant:
            raise TornFileError(f"{listed}: line {number} is {line[:80]!r}", "NUMBER VARIANT", "a whole list, as it is published")
        if variant not in places:
            raise UsageError(f"{listed}: line {number}: {variant!r} is no line of variants.txt", ", ".join(classes[:5]) + ", …")
        items.append(_layout.Item(f"{name}.jpg", f"{root}/images/{name}.jpg", places[variant]))
    return _layout.examples("aircraft", items, classes, TEMPLATES, METRIC)


def _root(path: str) -> str:
    inner = ("data", "fgvc-aircraft-2013b/data")
    return _layout.root_of(path, LAYOUT, ("images", "variants.txt", *_LISTS), inner)
