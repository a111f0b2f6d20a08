"""SUN397: 397 kinds of scenes; 50 images of each train and 50 test (the first official partition)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = ()  # the lines of ClassName.txt without their first letter, `/` and `_` as blanks
TEMPLATES = (
    "a photo of a {c}.", "a photo of the {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "SUN397/a/abbey/*.jpg and SUN397/ClassName.txt (SUN397.tar.gz), Training_01.txt and Testing_01.txt (Partitions.zip) there"
_LISTS = {TRAIN: "Training_01.txt", TEST: "Testing_01.txt"}


def splits(path: str) -> list[str]:
    """Return the first official partition."""
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
    folders = _layout.lines(f"{root}/ClassName.txt")
    classes = tuple(folder.removeprefix("/")[2:].replace("/", " ").replace("_", " ") for folder in folders)
    places = {folder: label for label, folder in enumerate(folders)}
    items = []
    for number, line in enumerate(_layout.lines(f"{root}/{_LISTS[split]}"), 1):
        folder = line.rpartition("/")[0]
        if folder not in places:
            raise UsageError(
                f"{root}/{_LISTS[split]}: line {number}: {folder!r} is no line of ClassName.txt", ", ".join(folders[:5]) + ", …"
            )
        items.append(_layout.Item(line.removeprefix("/"), f"{root}{line}", places[folder]))
    return _layout.examples("sun397", items, classes, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("ClassName.txt", *_LISTS.values()), ("SUN397",))
