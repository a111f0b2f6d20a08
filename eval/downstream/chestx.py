"""ChestX-ray14 as the cross-domain few-shot benchmark has it: seven findings, chest X-rays with exactly one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.image_names import base, is_image
from shards.tables import table
from shards.tables.json_records import Bad

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax",
)  # fmt: skip
TEMPLATES = (
    "a chest X-ray showing {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv), train_val_list.txt, test_list.txt and images*/**/*.png"
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_LISTS = {TRAIN: "train_val_list.txt", TEST: "test_list.txt"}


def splits(path: str) -> list[str]:
    """Return the official splits, which part patients."""
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
    listed = table.sniff(next(fs.join(root, name) for name in _TABLES if fs.exists(fs.join(root, name))), LAYOUT)
    name, finding = listed.asked("Image Index"), listed.asked("Finding Labels")
    wanted = set(_layout.lines(fs.join(root, _LISTS[split])))
    paths = {base(inner): fs.join(root, inner) for inner in fs.walk(root) if is_image(inner)}
    places = {label: number for number, label in enumerate(CLASSES)}
    items, others = [], 0
    for number, row in enumerate(listed.rows(), 2):
        if isinstance(row, Bad):
            raise TornFileError(f"{listed.path}: row {number}: {row.why}", "a whole table, as it is published")
        image = row[name]
        if image in wanted:
            others += row[finding] not in places
            if row[finding] in places:
                items.append(_layout.Item(image, paths.get(image, fs.join(root, "images", image)), places[row[finding]]))
    found = _layout.examples("chestx", items, CLASSES, TEMPLATES, METRIC)
    return found.telling(others, f"[image|images] of {split} passed over", "none of the seven findings, or several")


def _root(path: str) -> str:
    root = _layout.root_of(path, LAYOUT, tuple(_LISTS.values()), ("ChestX", "ChestX-ray14"))
    if not any(fs.exists(fs.join(root, name)) for name in _TABLES):
        raise UsageError(f"{root}: no {_TABLES[0]}", LAYOUT)
    return root
