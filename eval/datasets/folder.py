"""Class folders: `PATH/<class>/image.jpg`, at any depth; labels follow the folders' names, as numbers where all are numbers."""

from __future__ import annotations

from collections.abc import Sequence

from eval.datasets import _tables
from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples, label_of, read_file
from eval.packed import folder_of
from eval.splits import are_classes_splits, refuse_mixture
from shards.core import fs
from shards.core.errors import UsageError

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]
_SHOWN = 5


def recognises(path: str) -> bool:
    """Return whether the path is a folder with folders in it, and neither tars nor tables, and no packed set."""
    if not fs.is_dir(path) or _tables.is_saved(path) or folder_of(path)[0]:
        return False
    names = fs.names(path)
    if any(name.endswith(".tar") for name in names) or _tables.files_of(path):
        return False
    return any(fs.is_dir(fs.join(path, name)) for name in names)


def load(path: str, columns: Columns) -> Examples:
    """List a folder's images with their classes.

    Raises:
        UsageError: no class folders, images beside them, or several splits.
    """
    import numpy as np

    from shards.folders import read_folder

    found = read_folder(path, layout="classes")
    items = list(found)
    if stray := [item.id for item in items if item.class_index < 0]:
        raise UsageError(f"{path}: {len(stray)} images stand in no class folder, such as {stray[0]}", "PATH/<class>/image.jpg")
    if are_classes_splits(found.classes):
        listed = ", ".join(found.classes[:_SHOWN])
        raise UsageError(f"{path}: holds the splits {listed}, and no class folders in them", "PATH/<class>/image.jpg")
    paths = [item.image for item in items]
    ids = tuple(item.id for item in items)
    labels = np.array([item.class_index for item in items], dtype=np.int64)
    classes = tuple(map(fs.printable, found.classes))
    examples = Examples(label_of(path), classes, ids, labels, lambda i: read_file(paths[i]), TEMPLATES, METRIC)
    parents = _parents(ids)
    refuse_mixture(path, parents, f"{path.rstrip('/')}/{{}}")
    if len(parents) > 1:
        examples = examples.telling(len(parents), "[folder|folders] of class folders taken together", ", ".join(parents[:_SHOWN]))
    where = found.hidden[0] if found.hidden else ""
    return examples.telling(
        len(found.hidden), "hidden [picture or thumbnail|pictures and thumbnails] passed over", f"such as {fs.printable(where)}"
    )


def _parents(ids: Sequence[str]) -> list[str]:
    """Return the folders that hold class folders, relative to the set; `.` is the set itself."""
    folders = {id.rpartition("/")[0] for id in ids}
    return sorted({folder.rpartition("/")[0] or "." for folder in folders})
