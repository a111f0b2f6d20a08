"""The measured table: one row per input sample, written once, read by every decision.

`path`, `offset`, `size` point at the bytes a shard will hold (or at the original ones of a refused image), `xxh3` tells
whether they are still the same; they belong to one machine and stay out of the table's digest and of every output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
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
    ("colours", "string"),
    ("colour", "double"),
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


# A prime of 255 bits, and a number below it that nobody has chosen.
_PRIME = 2**255 - 19
_STEP = int.from_bytes(hashlib.sha256(b"rows").digest(), "big") % _PRIME


def rows_digest(table: pa.Table, beside: str = "") -> str:
    """Return what a table's rows say, in their order, as 64 hex digits; `joined_digest` makes that of parts into that of the whole.

    It is the polynomial of the rows' sha256 in `_STEP`, modulo `_PRIME`, so that it does not depend on where the rows were cut
    into parts. It tells versions of one's own table apart; it is no proof against somebody who forges rows.

    Args:
        beside: what else each row depends on.
    """
    value = 0
    for row in table.to_pylist():
        line = json.dumps([row, beside], ensure_ascii=False).encode()
        value = (value * _STEP + int.from_bytes(hashlib.sha256(line).digest(), "big")) % _PRIME
    return f"{value:064x}"


def joined_digest(parts: Iterable[tuple[str, int]]) -> str:
    """Return the `rows_digest` of a table from the digest and the number of rows of each of its parts, in order."""
    value = 0
    for part_digest, rows in parts:
        value = (value * pow(_STEP, rows, _PRIME) + int(part_digest, 16)) % _PRIME
    return f"{value:064x}"


def table_sha256(table: pa.Table) -> str:
    """Return the sha256 of a table's columns and values: not of its chunks, slices and metadata, which Arrow's own bytes show."""
    hashed = hashlib.sha256(str(table.schema.remove_metadata()).encode() + table.num_rows.to_bytes(8, "big"))
    for column in table.combine_chunks().columns:
        for array in column.chunks:
            _add_values(hashed, array)
    return hashed.hexdigest()


def _add_values(hashed: hashlib._Hash, array: pa.Array) -> None:
    """Hash which values are there, then their lengths where they have any, then the values, one after the other."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.null_count:
        hashed.update(array.is_valid().cast(pa.uint8()).to_numpy())
    if pa.types.is_list(array.type):
        hashed.update(pc.list_value_length(array).fill_null(-1).to_numpy())
        _add_values(hashed, array.flatten())
    elif pa.types.is_string(array.type):
        array = array.fill_null("")
        hashed.update(pc.binary_length(array).to_numpy())
        if len(array):
            _, offsets, values = array.buffers()
            bounds = np.frombuffer(offsets, np.int32)[array.offset :]
            hashed.update(values[int(bounds[0]) : int(bounds[len(array)])])
    else:
        plain = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
        hashed.update(plain.fill_null(0).to_numpy())
