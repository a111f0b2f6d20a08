"""A Hugging Face data set saved by `save_to_disk`, with an Image and a ClassLabel column."""

from __future__ import annotations

import threading
from typing import Any

from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples, label_of
from shards.core import fs
from shards.core.errors import RunError, UsageError

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]


def recognises(path: str) -> bool:
    """Return whether the path is a folder that `save_to_disk` wrote."""
    return any(fs.exists(fs.join(path, name)) for name in ("state.json", "dataset_dict.json"))


def load(path: str, columns: Columns) -> Examples:
    """Open a saved data set; images stay in their Arrow files as they were encoded.

    Raises:
        UsageError: a dictionary of splits, or columns that are not one Image and one ClassLabel.
    """
    import datasets
    import numpy as np

    if fs.exists(fs.join(path, "dataset_dict.json")):
        splits = [n for n in fs.names(path) if fs.is_dir(fs.join(path, n))]
        raise UsageError(
            f"{path}: a DatasetDict with the splits {', '.join(splits)}", "one split", f"--data {path.rstrip('/')}/{splits[0]}"
        )
    rows = datasets.load_from_disk(path)
    image = _column(path, rows.features, datasets.Image, columns.image, "image")
    label = _column(path, rows.features, datasets.ClassLabel, columns.label, "label")
    labels = np.array([-1 if value is None else value for value in rows[label]], dtype=np.int64)
    encoded = rows.cast_column(image, datasets.Image(decode=False)).select_columns([image])
    lock = threading.Lock()  # a Dataset does not promise to be read by several threads

    def read(i: int) -> bytes:
        with lock:
            cell = encoded[i][image]
        if not cell or (cell["bytes"] is None and not cell["path"]):
            raise RunError(f"{path}: row {i} has no image")
        return cell["bytes"] if cell["bytes"] is not None else fs.read_bytes(cell["path"])

    ids = tuple(f"row {i}" for i in range(len(rows)))
    return Examples(label_of(path), tuple(rows.features[label].names), ids, labels, read, TEMPLATES, METRIC)


def _column(path: str, features: dict[str, Any], kind: type, wanted: str, what: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if wanted in found:
        return wanted
    if wanted or len(found) != 1:
        raise UsageError(
            f"{path}: {kind.__name__} columns: {', '.join(found) or 'none'}" + (f", not {wanted!r}" if wanted else ""),
            f"one {kind.__name__} column of {', '.join(features)}",
            f"--{what}-column {found[0]}" if found else "",
        )
    return found[0]
