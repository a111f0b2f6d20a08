"""Class folders: `PATH/<class>/image.jpg`, at any depth; labels are the sorted folder names."""

from __future__ import annotations

from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples, label_of
from shards.core import fs
from shards.core.errors import UsageError

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]


def recognises(path: str) -> bool:
    """Return whether the path is a folder with folders in it, and neither tars nor Arrow files."""
    if not fs.is_dir(path):
        return False
    names = fs.names(path)
    return not any(n.endswith((".tar", ".arrow")) or n == "dataset_dict.json" for n in names) and any(
        fs.is_dir(fs.join(path, n)) for n in names
    )


def load(path: str, columns: Columns) -> Examples:
    """List a folder's images with their classes.

    Raises:
        UsageError: no class folders, or images beside them.
    """
    import numpy as np

    from shards.folders import read_folder

    found = read_folder(path, layout="classes")
    items = list(found)
    if stray := [item.id for item in items if item.class_index < 0]:
        raise UsageError(f"{path}: {len(stray)} images stand in no class folder, such as {stray[0]}", "PATH/<class>/image.jpg")
    paths = [item.image for item in items]
    ids = tuple(item.id for item in items)
    labels = np.array([item.class_index for item in items], dtype=np.int64)
    return Examples(label_of(path), found.classes, ids, labels, lambda i: fs.read_bytes(paths[i]), TEMPLATES, METRIC)
