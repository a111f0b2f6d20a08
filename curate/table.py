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
    """Return the sha256 of a table's columns and values, whatever its chunks and its metadata."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    flat = table.combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, flat.schema) as stream:
        for batch in flat.to_batches():
            stream.write_batch(batch)
    return hashlib.sha256(sink.getvalue()).hexdigest()
