"""Cassava Leaf Disease (Kaggle 2020): four diseases and healthy leaves, uneven classes; 21,397 images, a fifth tests by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PLAIN, Rule, check_split
from shards.core import fs
from shards.core.errors import TornFileError
from shards.tables import table
from shards.tables.json_records import Bad

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "Cassava Bacterial Blight (CBB)", "Cassava Brown Streak Disease (CBSD)", "Cassava Green Mottle (CGM)",
    "Cassava Mosaic Disease (CMD)", "Healthy",
)  # fmt: skip
TEMPLATES = PLAIN
METRIC = "acc1"
LAYOUT = (
    "train.csv (image_id,label), label_num_to_disease_map.json and train_images/*.jpg, as cassava-leaf-disease-classification.zip unpacks"
)
RULE = Rule("cassava", val=0.1, test=0.2)
_MAP = "label_num_to_disease_map.json"


def splits(path: str) -> list[str]:
    """Return the splits that the rule makes of the labelled images; the labels of Kaggle's own test set are not published."""
    _root(path)
    return RULE.splits()


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    named = _layout.read_json(fs.join(root, _MAP))
    _layout.check_order(fs.join(root, _MAP), CLASSES, [str(named[key]) for key in sorted(named, key=int)])
    items = []
    listed = table.sniff(fs.join(root, "train.csv"), LAYOUT)
    image, label = listed.asked("image_id"), listed.asked("label")
    for number, row in enumerate(listed.rows(), 2):
        if isinstance(row, Bad) or not str(row[label]).isdigit():
            raise TornFileError(f"{listed.path}: row {number} is no image and label", "image_id,label", "a whole table, as it is published")
        items.append(_layout.Item(row[image], fs.join(root, "train_images", row[image]), int(row[label])))
    return _layout.examples("cassava", _layout.by_rule(items, RULE, split), CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("train.csv", _MAP, "train_images"), ("cassava-leaf-disease-classification",))
