"""Stanford Cars: 196 makes, models and years of cars; 8,144 images train, 8,041 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = ()  # class_names of devkit/cars_meta.mat
TEMPLATES = (
    "a photo of a {c}.", "a photo of the {c}.", "a photo of my {c}.", "i love my {c}!", "a photo of my dirty {c}.",
    "a photo of my clean {c}.", "a photo of my new {c}.", "a photo of my old {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "devkit/{cars_meta,cars_train_annos}.mat, cars_test_annos_withlabels.mat, cars_train/*.jpg and cars_test/*.jpg"
_FILES = {TRAIN: ("devkit/cars_train_annos.mat", "cars_train"), TEST: ("cars_test_annos_withlabels.mat", "cars_test")}


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
    import numpy as np

    root = _root(path)
    meta = f"{root}/devkit/cars_meta.mat"
    classes = tuple(map(str, np.atleast_1d(_layout.variable(_layout.read_mat(meta), meta, "class_names"))))
    name, folder = _FILES[split]
    listed = f"{root}/{name}"
    rows = np.atleast_1d(_layout.variable(_layout.read_mat(listed), listed, "annotations"))
    fields = rows.dtype.names or ()
    if not {"fname", "class"} <= set(fields):
        raise TornFileError(
            f"{listed}: annotations have {', '.join(fields) or 'no fields'}", "fname and class; of the test set, those with labels"
        )
    items = [_layout.Item(f"{folder}/{row['fname']}", f"{root}/{folder}/{row['fname']}", int(row["class"]) - 1) for row in rows]
    return _layout.examples("cars", items, classes, TEMPLATES, METRIC)


def _root(path: str) -> str:
    needed = ("devkit/cars_meta.mat", *(name for files in _FILES.values() for name in files))
    return _layout.root_of(path, LAYOUT, needed, ("stanford_cars", "cars"))
