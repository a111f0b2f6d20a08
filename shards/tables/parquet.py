"""Parquet as a table: columns with names unlike each other, rows as Python values, streamed a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import TornFileError
from shards.tables.delimited import unlike
from shards.tables.text import from_utf8

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 1024
_BUFFER = 1 << 20  # with this, and without pre-buffering, memory holds pages of a row group and not the file


def schema_of(path: str) -> pa.Schema:
    """Return a file's schema.

    Raises:
        TornFileError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open_read(path) as file:
            return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _torn(path, error) from error


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names behind the class ids of each column that a Hugging Face export notes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: f["names"] for name, f in features.items() if isinstance(f, dict) and isinstance(f.get("names"), list)}


def rows(path: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield each row as {column: value}, of the columns named; repeated ones have the names that `unlike` gives them.

    Raises:
        TornFileError: the file is cut off; what stands before was yielded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = schema_of(path).names
    native = dict(zip(unlike(names), names, strict=True))
    wanted = list(dict.fromkeys(native[column] for column in columns))
    try:
        with fs.open_read(path) as file, pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=wanted):
                held = {name: batch.column(i) for i, name in enumerate(unlike(batch.schema.names)) if name in columns}
                values = [values_of(held[name]) for name in columns]
                for row in zip(*values, strict=True):
                    yield dict(zip(columns, row, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise _torn(path, error) from error


def values_of(column: pa.Array) -> list[Any]:
    """Return a column as Python values; text that is no UTF-8, wherever it is nested, is read as cp1252 and noted."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    """Return a scalar as a Python value, part by part."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.DictionaryScalar):
        return _value(scalar.value)
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(scalar[name]) for name in scalar.type.names}
    if isinstance(scalar, pa.MapScalar):
        return [(_value(pair["key"]), _value(pair["value"])) for pair in scalar.values]
    if isinstance(scalar, pa.ListScalar):
        return [_value(part) for part in scalar.values]
    if isinstance(scalar, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar):
        return from_utf8(scalar.as_buffer().to_pybytes())
    return scalar.as_py()


def _torn(path: str, error: Exception) -> TornFileError:
    return TornFileError(f"{path}: cut off or damaged: {str(error)[:200]}", "a whole parquet file")
