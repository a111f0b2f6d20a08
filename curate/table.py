"""The measured table: one row per input sample, written once, read by every decision.

`path`, `offset`, `size` point at the bytes a shard will hold (or at the original ones of a refused image), `xxh3` tells
whether they are still the same; they belong to one machine and stay out of the table's digest and of every output.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shards.schema import CONTENT, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

RECORDS = (
    ("source_id", "string"),
    ("input", "string"),
    ("row", "int64"),
    ("captions", "list<string>"),
    ("urls", "list<string>"),
    ("path", "string"),
    ("offset", "int64"),
    ("size", "int64"),
    ("stamp", "string"),
    ("class_index", "int32"),
    ("class_name", "string"),
    ("licence", "string"),
    ("status", "string"),
    ("detail", "string"),
    ("meta", "string"),
)

MEASURED = (
    ("uid", "string"),
    ("image_id", "string"),
    ("source", "string"),
    ("source_id", "string"),
    ("input", "string"),
    ("row", "int64"),
    ("status", "string"),
    ("detail", "string"),
    *CONTENT,
    ("phash", "uint64"),
    ("information", "double"),
    ("frames", "int32"),
    ("class_index", "int32"),
    ("class_name", "string"),
    ("licence", "string"),
    ("meta", "string"),
)

POINTER = (("path", "string"), ("offset", "int64"), ("size", "int64"), ("xxh3", "uint64"))


def records_schema() -> pa.Schema:
    """Return the schema of listed records."""
    return arrow_schema(RECORDS)


def measured_schema(plugin_columns: tuple[tuple[str, str], ...]) -> pa.Schema:
    """Return the schema of measured rows: the core, the columns of source and filters, the pointer."""
    return arrow_schema((*MEASURED, *plugin_columns, *POINTER))


def table_sha256(table: pa.Table) -> str:
    """Return the sha256 of a table's columns and values: not of its chunks, slices and metadata, which Arrow's own bytes show."""
    found = hashlib.sha256(str(table.schema.remove_metadata()).encode() + table.num_rows.to_bytes(8, "big"))
    for column in table.combine_chunks().columns:
        for array in column.chunks:
            _add_values(found, array)
    return found.hexdigest()


def _add_values(found: hashlib._Hash, array: pa.Array) -> None:
    """Hash which values are there, then their lengths where they have any, then the values, one after the other."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.null_count:
        found.update(array.is_valid().cast(pa.uint8()).to_numpy())
    if pa.types.is_list(array.type):
        found.update(pc.list_value_length(array).fill_null(-1).to_numpy())
        _add_values(found, array.flatten())
    elif pa.types.is_string(array.type):
        array = array.fill_null("")
        found.update(pc.binary_length(array).to_numpy())
        if len(array):
            _, offsets, values = array.buffers()
            bounds = np.frombuffer(offsets, np.int32)[array.offset :]
            found.update(values[int(bounds[0]) : int(bounds[len(array)])])
    else:
        plain = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
        found.update(plain.fill_null(0).to_numpy())
