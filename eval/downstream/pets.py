"""Oxford-IIIT Pet: 37 breeds of cats and dogs; 3,680 images train, 3,669 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PER_CLASS, TEST, TRAIN, check_split
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "Abyssinian", "American Bulldog", "American Pit Bull Terrier", "Basset Hound", "Beagle", "Bengal", "Birman", "Bombay", "Boxer",
    "British Shorthair", "Chihuahua", "Egyptian Mau", "English Cocker Spaniel", "English Setter", "German Shorthaired",
    "Great Pyrenees", "Havanese", "Japanese Chin", "Keeshond", "Leonberger", "Maine Coon", "Miniature Pinscher", "Newfoundland",
    "Persian", "Pomeranian", "Pug", "Ragdoll", "Russian Blue", "Saint Bernard", "Samoyed", "Scottish Terrier", "Shiba Inu",
    "Siamese", "Sphynx", "Staffordshire Bull Terrier", "Wheaten Terrier", "Yorkshire Terrier",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}, a type of pet.",
)  # fmt: skip
METRIC = PER_CLASS
LAYOUT = "images/NAME.jpg and annotations/{trainval,test}.txt, as images.tar.gz and annotations.tar.gz unpack"
_LISTS = {TRAIN: "annotations/trainval.txt", TEST: "annotations/test.txt"}


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
    listed = f"{root}/{_LISTS[split]}"
    items, names = [], {}
    for number, line in enumerate(_layout.lines(listed), 1):
        name, *numbers = line.split()
        if not numbers or not numbers[0].isdigit():
            raise TornFileError(f"{listed}: line {number} is {line[:80]!r}", "NAME LABEL SPECIES BREED", "a whole list, as it is published")
        label = int(numbers[0]) - 1
        names[label] = name.rpartition("_")[0]
        items.append(_layout.Item(f"{name}.jpg", f"{root}/images/{name}.jpg", label))
    _layout.check_order(listed, CLASSES, [names.get(label, CLASSES[label]) for label in range(len(CLASSES))])
    return _layout.examples("pets", items, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("images", *_LISTS.values()), ("oxford-iiit-pet", "oxford_pets"))
