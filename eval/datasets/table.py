"""A table of image paths and labels: CSV, TSV, JSON Lines or parquet; `TABLE@SPLIT` takes one split of its split column, test otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.datasets import _tables
from eval.datasets.base import METRIC, MOST_CLASSES, TEMPLATES, Columns, Examples, label_of, read_file
from eval.splits import kind_of
from shards.classes.match import sorted_classes
from shards.classes.names import number_of
from shards.core import fs
from shards.core.errors import TornFileError, UsageError, closest
from shards.image_names import base, stem
from shards.tables import table
from shards.tables.json_records import Bad
from shards.tables.values import id_of

__all__ = ["METRIC", "TEMPLATES", "load", "recognises", "splits"]

IMAGES = ("image", "path", "filepath", "file_path", "image_path", "file", "filename", "file_name", "image_name", "img", "image_id", "id")
LABELS = ("label", "class", "class_name", "label_name", "category", "target", "labels", "y")
SPLITS = ("split", "set", "subset", "partition")
_ALLOWED = "a CSV, TSV, JSON, JSON Lines or parquet table with a column of image paths and one of labels"
_PACKED = ("", ".gz", ".bz2")
_SUFFIXES = tuple(plain + packed for plain in (".csv", ".tsv", ".jsonl", ".ndjson") for packed in _PACKED)
_MARK = "@"


def recognises(path: str) -> bool:
    """Return whether the path is a table file by its name: of parquet one without images in it, of JSON a list of records."""
    file = parted(path)[0]
    if not fs.exists(file) or fs.is_dir(file):
        return False
    lower = file.lower()
    if lower.endswith(".parquet"):
        return not _tables.has_images(file)
    if lower.endswith(".json"):
        with fs.open_read(file) as opened:
            return opened.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return lower.endswith(_SUFFIXES)


def parted(path: str) -> tuple[str, str]:
    """Return (file, split) of `TABLE@SPLIT`; a file whose own name has the mark is itself."""
    if fs.exists(path) or _MARK not in path.rpartition("/")[2]:
        return path, ""
    file, _, split = path.rpartition(_MARK)
    return file, split


def splits(path: str, columns: Columns | None = None) -> list[str]:
    """Return the values of a table's split column, train before val before test where they speak of these; nothing without one.

    Raises:
        UsageError: no table, or not the split column that was asked for.
    """
    read = table.sniff(path, _ALLOWED)
    column = _split_column(read, columns or Columns())
    return _ordered({id_of(row[column]) for row in _rows(read, (column,))}) if column else []


def load(path: str, columns: Columns) -> Examples:
    """Read a table's paths and labels; paths are relative to the table. Labels that are all whole numbers have no names.

    Raises:
        UsageError: no such columns or split, a row without label, or a first image that is not there.
        TornFileError: a row is torn.
    """
    import numpy as np

    file, split = parted(path)
    read = table.sniff(file, _ALLOWED)
    image = _column(read, columns.image, IMAGES, "image")
    label = _column(read, columns.label, LABELS, "label")
    parts = _split_column(read, columns)
    rows = _rows(read, tuple(filter(None, (image, label, parts))))
    if parts:
        split = split or _usual(file, _ordered({id_of(row[parts]) for row in rows}))
        known = _ordered({id_of(row[parts]) for row in rows})
        if split not in known:
            raise UsageError(f"{file}: no split {split!r}", ", ".join(known), closest(split, known))
        rows = [row for row in rows if id_of(row[parts]) == split]
    elif split:
        raise UsageError(f"{file}: no split column for {_MARK}{split}", read.described, "--data without it")
    names = [id_of(row[image]) for row in rows]
    if "" in names:
        raise UsageError(f"{file}: entry {names.index('') + 1} has no {image!r}", "a path for each")
    labels, classes, named = _labels(file, label, [id_of(row[label]) for row in rows])
    folder = file.rpartition("/")[0] or "."
    paths = [fs.join(folder, name) for name in names]
    name = stem(base(file)) if split in ("", "test") else f"{stem(base(file))}/{split}"
    examples = Examples(
        label_of(name),
        classes,
        tuple(map(fs.printable, names)),
        np.array(labels, dtype=np.int64),
        lambda i: read_file(paths[i]),
        TEMPLATES,
        METRIC,
        named,
    )
    if "://" in names[0] and not fs.is_remote(folder):
        raise UsageError(f"{file}: {names[0]!r} is a web address", "paths of files, relative to the table")
    if not fs.exists(paths[0]):
        raise UsageError(f"{file}: {paths[0]} is not there", f"paths relative to the table; column {image!r} holds {names[0]!r}")
    return examples


def _rows(read: table.Table, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return all rows with their cells of some columns.

    Raises:
        TornFileError: a row cannot be read.
    """
    found = []
    for number, row in enumerate(read.rows(columns), 1):
        if isinstance(row, Bad):
            raise TornFileError(f"{read.path}: row {number}: {row.why}", "whole rows")
        found.append({column: row.get(column) for column in columns})
    if not found:
        raise UsageError(f"{read.path}: no row", _ALLOWED)
    return found


def _column(read: table.Table, asked: str, usual: Sequence[str], what: str) -> str:
    """Return the column that is asked for, or the usual one."""
    if asked:
        return read.asked(asked)
    found = read.column(*usual)
    if not found:
        raise UsageError(f"{read.path}: no {what} column", f"its columns: {read.described}", f"--{what}-column NAME")
    return found


def _split_column(read: table.Table, columns: Columns) -> str:
    return read.asked(columns.split) if columns.split else read.column(*SPLITS)


def _ordered(names: set[str]) -> list[str]:
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(names, key=lambda name: (order.get(kind_of(name), 3), name))


def _usual(file: str, known: list[str]) -> str:
    """Return the split that a table stands for: the one that speaks of test, or its only one."""
    tests = [name for name in known if kind_of(name) == "test"]
    if len(tests) == 1 or len(known) == 1:
        return tests[0] if tests else known[0]
    raise UsageError(f"{file}: holds the splits {', '.join(known)}", "one split at a time", f"--data {file}{_MARK}{known[0]}")


def _labels(file: str, column: str, texts: list[str]) -> tuple[list[int], tuple[str, ...], bool]:
    """Return labels, classes and whether these are names."""
    if "" in texts:
        raise UsageError(f"{file}: entry {texts.index('') + 1} has no {column!r}", "a label for each")
    numbers = [number_of(text) for text in texts]
    if None not in numbers:
        whole = [number for number in numbers if number is not None]
        if max(whole) >= MOST_CLASSES:
            raise UsageError(f"{file}: label {max(whole)}", f"class numbers from 0, below {MOST_CLASSES:,}")
        return whole, tuple(map(str, range(max(whole) + 1))), False
    negative = next((text for text in texts if text.startswith("-") and text[1:].isdigit()), "")
    if negative and all(text.lstrip("-").isdigit() for text in texts):
        raise UsageError(f"{file}: label {negative}", "class numbers from 0, or names")
    classes = sorted_classes(sorted(set(texts)))
    places = {name: i for i, name in enumerate(classes)}
    return [places[text] for text in texts], classes, True
