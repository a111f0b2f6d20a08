"""ISIC 2018, task 3 (HAM10000): seven kinds of skin lesions under a dermatoscope, uneven classes; 10,015 images, a fifth tests by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PER_CLASS, EmptySplitError, Rule, check_split
from shards.core import fs
from shards.core.errors import TornFileError
from shards.tables import table
from shards.tables.json_records import Bad

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "melanoma", "melanocytic nevus", "basal cell carcinoma", "actinic keratosis", "benign keratosis", "dermatofibroma",
    "vascular lesion",
)  # fmt: skip
TEMPLATES = (
    "a dermatoscopic photo of a {c}.",
)  # fmt: skip
METRIC = PER_CLASS
LAYOUT = "ISIC2018_Task3_Training_{Input/*.jpg,GroundTruth/*_GroundTruth.csv} and ISIC2018_Task3_Training_LesionGroupings.csv"
RULE = Rule("isic", val=0.1, test=0.2, key="the lesion_id")
_CODES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
_STEM = "ISIC2018_Task3_Training_"


def splits(path: str) -> list[str]:
    """Return the splits that the rule makes. An image goes where its lesion goes: one lesion has up to six images."""
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
    lesions = {row["image"]: row["lesion_id"] for row in _rows(fs.join(root, f"{_STEM}LesionGroupings.csv"), ("image", "lesion_id"))}
    items = []
    listed = next(fs.join(root, name) for name in _truths() if fs.exists(fs.join(root, name)))
    for row in _rows(listed, ("image", *_CODES)):
        true = [label for label, code in enumerate(_CODES) if float(row[code] or 0) > 0.5]
        name = row["image"]
        if len(true) != 1 or name not in lesions:
            raise TornFileError(f"{listed}: {name!r} has {len(true)} classes", "one, and a lesion in the table of lesions")
        if RULE.side(lesions[name]) == split:
            items.append(_layout.Item(f"{name}.jpg", fs.join(root, f"{_STEM}Input", f"{name}.jpg"), true[0]))
    if not items:
        raise EmptySplitError(f"isic: the rule puts no lesion into {split!r}", "the whole published set")
    return _layout.examples("isic", items, CLASSES, TEMPLATES, METRIC)


def _rows(path: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a table, of some columns.

    Raises:
        UsageError: a column is not there.
        TornFileError: a row is torn.
    """
    listed = table.sniff(path, LAYOUT)
    names = {column: listed.asked(column) for column in columns}
    found = []
    for number, row in enumerate(listed.rows(), 2):
        if isinstance(row, Bad):
            raise TornFileError(f"{path}: row {number}: {row.why}", "a whole table, as it is published")
        found.append({column: str(row[name]) for column, name in names.items()})
    return found


def _truths() -> tuple[str, str]:
    return f"{_STEM}GroundTruth/{_STEM}GroundTruth.csv", f"{_STEM}GroundTruth.csv"


def _root(path: str) -> str:
    root = _layout.root_of(path, LAYOUT, (f"{_STEM}Input", f"{_STEM}LesionGroupings.csv"), ("ISIC", "ISIC2018"))
    return root if any(fs.exists(fs.join(root, name)) for name in _truths()) else _layout.root_of(root, LAYOUT, _truths()[:1])
