"""Describable Textures: 47 textures, such as banded or woven; 1,880 images each to train, validate and test (partition 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, VAL, check_split
from shards.core.errors import TornFileError, UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed", "cracked", "crosshatched", "crystalline", "dotted",
    "fibrous", "flecked", "freckled", "frilly", "gauzy", "grid", "grooved", "honeycombed", "interlaced", "knitted", "lacelike",
    "lined", "marbled", "matted", "meshed", "paisley", "perforated", "pitted", "pleated", "polka-dotted", "porous", "potholed",
    "scaly", "smeared", "spiralled", "sprinkled", "stained", "stratified", "striped", "studded", "swirly", "veined", "waffled",
    "woven", "wrinkled", "zigzagged",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c} texture.", "a photo of a {c} pattern.", "a photo of a {c} thing.", "a photo of a {c} object.",
    "a photo of the {c} texture.", "a photo of the {c} pattern.", "a photo of the {c} thing.", "a photo of the {c} object.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "dtd/images/CLASS/*.jpg and dtd/labels/{train,val,test}1.txt, as dtd-r1.0.1.tar.gz unpacks"
_LISTS = ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt")


def splits(path: str) -> list[str]:
    """Return the official splits of partition 1."""
    _root(path)
    return [TRAIN, VAL, TEST]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, or no such files.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    places = {name: label for label, name in enumerate(CLASSES)}
    items = []
    listed = f"{root}/labels/{split}1.txt"
    for number, line in enumerate(_layout.lines(listed), 1):
        folder, slash, _ = line.partition("/")
        if not slash:
            raise TornFileError(f"{listed}: line {number} is {line[:80]!r}", "CLASS/FILE.jpg", "a whole list, as it is published")
        if folder not in places:
            raise UsageError(f"{listed}: line {number}: {folder!r} is no class of the set", ", ".join(CLASSES[:5]) + ", …")
        items.append(_layout.Item(line, f"{root}/images/{line}", places[folder]))
    return _layout.examples("dtd", items, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("images", *_LISTS), ("dtd", "dtd/dtd"))
