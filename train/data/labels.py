"""Labels of a batch as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.data.batch import Needs

NO_LABEL = -1


def label_array(labels: list[Any], needs: Needs) -> NDArray[Any]:
    """Return (n,) int64 class numbers, or (n, classes) float32 of 0 and 1 where a sample may have several.

    A sample whose label is unknown has −1, or a row of −1; an empty list says that it has none of the labels.
    """
    import numpy as np

    if not needs.multi_label:
        return np.array([_single(label) for label in labels], np.int64)
    rows = np.zeros((len(labels), needs.classes), np.float32)
    for row, label in enumerate(labels):
        numbers = label if isinstance(label, list) else [label]
        for number in numbers:
            if number == NO_LABEL:
                rows[row] = NO_LABEL
            else:
                rows[row, number] = 1.0
    return rows


def _single(label: Any) -> int:
    """Return a label, or the first one of a list; an empty list is no label."""
    if not isinstance(label, list):
        return label
    return label[0] if label else NO_LABEL
