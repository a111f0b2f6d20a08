"""A Hugging Face data set on disk: a folder of `save_to_disk`, or parquet files as the hub has them, with images and labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.datasets import _tables
from eval.datasets.base import METRIC, MOST_CLASSES, TEMPLATES, Columns, Examples, label_of
from eval.splits import refuse_mixture
from shards.classes.match import sorted_classes
from shards.core import fs
from shards.core.errors import RunError, UsageError, closest

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]

_USUAL_LABELS = ("label", "labels", "class", "class_name", "category", "target", "fine_label", "cls", "y")
_USUAL_IMAGES = ("image", "img", "jpg", "png", "picture")


@dataclass(frozen=True)
class Table:
    """Rows with their columns.

    Attributes:
        kinds: what each column holds: image, class (a ClassLabel), number, text, or other.
        names: the class names of each ClassLabel.
        values: a column's name → its values.
        image: an image column's name → the function from a row to its bytes.
    """

    path: str
    rows: int
    kinds: dict[str, str]
    names: dict[str, tuple[str, ...]]
    values: Callable[[str], Sequence[Any]]
    image: Callable[[str], Callable[[int], bytes]]


def recognises(path: str) -> bool:
    """Return whether the path is a folder that `save_to_disk` wrote, or parquet files with images in them, and no shards."""
    if _tables.is_saved(path):
        return True
    if fs.is_dir(path) and any(name.endswith(".tar") for name in fs.names(path)):
        return False  # the parquet files beside shards are their sidecars
    files = _tables.files_of(path)
    return bool(files) and _tables.has_images(files[0])


def load(path: str, columns: Columns) -> Examples:
    """Open a data set; images stay where they are until one is read.

    Labels are a ClassLabel, texts (each one a class) or numbers (which have no names).

    Raises:
        UsageError: several splits, or columns that are not one of images and one of labels.
        TornFileError: a file is cut off.
    """
    table = _saved(path) if _tables.is_saved(path) else _parquet(path)
    image = _column(table, ("image",), columns.image, _USUAL_IMAGES, "image")
    label = _label_column(table, columns.label)
    labels, classes = _labels(table, label)
    named = table.kinds[label] != "number"
    ids = tuple(f"row {i}" for i in range(table.rows))
    return Examples(label_of(path), classes, ids, labels, table.image(image), TEMPLATES, METRIC, named)


def _labels(table: Table, column: str) -> tuple[Any, tuple[str, ...]]:
    """Return the label of each row, (n,) int64, and the classes' names.

    Raises:
        UsageError: a row has no label, or one that is none.
    """
    import numpy as np

    values = table.values(column)
    kind = table.kinds[column]
    if kind == "text":
        texts = [value.strip() if isinstance(value, str) else "" for value in values]
        if "" in texts:
            raise UsageError(f"{table.path}: row {texts.index('')} has no {column!r}", "a text for each row")
        classes = sorted_classes(list(set(texts)))
        places = {name: i for i, name in enumerate(classes)}
        return np.array([places[text] for text in texts], dtype=np.int64), classes
    numbers = [-1 if value is None else value for value in values]
    wrong = next((i for i, number in enumerate(numbers) if not -1 <= number < MOST_CLASSES), None)
    if wrong is not None:
        raise UsageError(f"{table.path}: row {wrong} has label {numbers[wrong]}", f"a class number from 0, below {MOST_CLASSES:,}")
    classes = table.names[column] if kind == "class" else tuple(map(str, range(max(numbers, default=-1) + 1)))
    return np.array(numbers, dtype=np.int64), classes


def _label_column(table: Table, wanted: str) -> str:
    """Return the column of labels: the only ClassLabel, else the one with a usual name."""
    if wanted or "class" in table.kinds.values():
        kinds = ("class", "text", "number") if wanted else ("class",)
        return _column(table, kinds, wanted, (), "label")
    return _column(table, ("text", "number"), "", _USUAL_LABELS, "label")


def _column(table: Table, kinds: tuple[str, ...], wanted: str, usual: tuple[str, ...], what: str) -> str:
    """Return the column that is wanted, or the only one of its kinds; among several, or among texts and numbers, the usual one."""
    fitting = [name for name, kind in table.kinds.items() if kind in kinds]
    if wanted in fitting:
        return wanted
    by_name = next((name for name in usual if name in fitting), "")
    if not wanted and by_name:
        return by_name
    if not wanted and len(fitting) == 1 and kinds in (("image",), ("class",)):
        return fitting[0]
    shown = ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items())
    words = {"image": "Image", "label": "ClassLabel"}
    found = f"{table.path}: {words[what]} columns: {', '.join(n for n in fitting if table.kinds[n] in ('image', 'class')) or 'none'}"
    if wanted:
        found += f", not {wanted!r}"
    hint = closest(wanted, fitting) if wanted else ""
    advice = hint or (f"--{what}-column {fitting[0]}" if fitting else "")
    raise UsageError(found, f"one {what} column of: {shown}", advice)


def _saved(path: str) -> Table:
    """Open what `save_to_disk` wrote."""
    import datasets

    if fs.exists(fs.join(path, "dataset_dict.json")):
        splits = [n for n in fs.names(path) if fs.is_dir(fs.join(path, n))]
        advice = f"--data {path.rstrip('/')}/{splits[0]}" if splits else ""
        raise UsageError(f"{path}: a DatasetDict with the splits {', '.join(splits) or '(none)'}", "one split", advice)
    _check_files(path)
    with _tables.readable(path):
        rows = datasets.load_from_disk(path)
    kinds = {name: _kind(feature, datasets) for name, feature in rows.features.items()}
    names = {name: tuple(rows.features[name].names) for name, kind in kinds.items() if kind == "class"}
    lock = threading.Lock()  # a Dataset does not promise to be read by several threads

    def values(name: str) -> Sequence[Any]:
        with _tables.readable(path):
            return list(rows[name])

    def image(name: str) -> Callable[[int], bytes]:
        feature = datasets.Image(decode=False)
        with _tables.readable(path):
            encoded = rows.select_columns([name])
            encoded = encoded.cast_column(name, feature) if isinstance(rows.features[name], datasets.Image) else encoded

        def read(i: int) -> bytes:
            with lock, _tables.readable(path):
                cell = encoded[i][name]
            if isinstance(cell, bytes) and cell:
                return cell
            if not cell or (cell["bytes"] is None and not cell["path"]):
                raise RunError(f"{path}: row {i} has no image")
            return cell["bytes"] if cell["bytes"] is not None else fs.read_bytes(cell["path"])

        return read

    return Table(path, len(rows), kinds, names, values, image)


def _check_files(path: str) -> None:
    """Refuse a saved folder with a torn file, by its name: `datasets` says neither which nor that it is torn.

    Raises:
        TornFileError: a file is cut off or absent.
    """
    import pyarrow as pa

    state = fs.join(path, "state.json")
    with _tables.readable(state):
        names = [str(entry["filename"]) for entry in json.loads(fs.read_text(state))["_data_files"]]
    for name in names:
        file = fs.join(path, name)
        with _tables.readable(file), fs.open_read(file) as opened, pa.ipc.open_stream(opened) as stream:
            stream.schema  # noqa: B018
        _check_end(file)


def _check_end(file: str) -> None:
    end = b"\xff\xff\xff\xff\0\0\0\0"
    size = fs.size(file)
    with _tables.readable(file):
        if fs.read_range(file, max(0, size - len(end)), len(end)) != end:
            raise EOFError("the stream has no end")


def _kind(feature: Any, datasets: Any) -> str:
    """Return what a column holds, by its feature."""
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.ClassLabel):
        return "class"
    kind = str(getattr(feature, "dtype", "")) if isinstance(feature, datasets.Value) else ""
    if kind in ("string", "large_string"):
        return "text"
    if kind in ("binary", "large_binary"):
        return "image"
    return "number" if "int" in kind else "other"


def _parquet(path: str) -> Table:
    """Open parquet files."""
    files = _tables.files_of(path)
    if not files:
        raise UsageError(f"{path}: no parquet file", "a folder of save_to_disk, or parquet files, or a pattern of them in quotes")
    if len(files) > 1:
        folder = path.rstrip("/") if fs.is_dir(path) else path.rpartition("/")[0] or "."
        stems = [fs.relative(file, folder).partition("-")[0] for file in files]
        refuse_mixture(path, stems, f"'{folder}/{{}}*.parquet'")
    parquet = _tables.Parquet(files)
    features = parquet.features
    kinds = {field.name: _arrow_kind(field.type, features.get(field.name, {})) for field in parquet.schema}
    names = {name: tuple(map(str, features[name].get("names") or ())) for name, kind in kinds.items() if kind == "class"}

    def image(column: str) -> Callable[[int], bytes]:
        return lambda row: parquet.image(column, row)

    return Table(path, sum(parquet.rows), kinds, names, parquet.values, image)


def _arrow_kind(kind: Any, feature: dict[str, Any]) -> str:
    """Return what a column holds, by its type and what `datasets` notes of it."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        kind = kind.value_type
    if t.is_integer(kind):
        return "class" if feature.get("_type") == "ClassLabel" and feature.get("names") else "number"
    if t.is_string(kind) or t.is_large_string(kind):
        return "text"
    has_bytes = t.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return "image" if has_bytes or t.is_binary(kind) or t.is_large_binary(kind) else "other"
