"""A table of statistics: its columns, its order, and how two of them are added up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

KEYS = ("source", "kind", "text", "value")
HASHES = 2**52  # hashes of captions are below: doubles hold them exactly


def schema() -> pa.Schema:
    """Return the columns of a table of statistics."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in KEYS[:3]]
    return pa.schema([*text, ("value", pa.float64()), ("count", pa.int64()), ("captions", pa.int64())])


def table(kind: str, **columns: Any) -> pa.Table:
    """Return rows of one kind; columns that are not given are null."""
    import pyarrow as pa

    n = len(columns["count"])
    columns["kind"] = pa.repeat(kind, n)
    arrays = [pa.nulls(n, f.type) if columns.get(f.name) is None else pa.array(columns[f.name]).cast(f.type) for f in schema()]
    return pa.table(arrays, schema=schema())


def histogram(kind: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return how often each number comes; nulls are left out."""
    found = values.drop_null().value_counts()
    return table(kind, value=found.field("values"), count=found.field("counts"))


def three_digits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positive values rounded to three significant digits, off by 0.5% at most; others stay as they are."""
    import numpy as np

    positive = np.where(values > 0, values, 1.0)
    digits = 2 - np.floor(np.log10(positive)).astype(np.int64)
    up, down = 10.0 ** np.maximum(digits, 0), 10.0 ** np.maximum(-digits, 0)  # powers of ten that are exact: equal values stay equal
    return np.where(values > 0, np.round(positive * up / down) * down / up, values)


def ordered(rows: pa.Table) -> pa.Table:
    """Return rows by kind, source, key and value: equal statistics are equal tables then."""
    keyed = rows.append_column("key", _key(rows))
    found = keyed.sort_by([(name, "ascending") for name in ("kind", "source", "key", "value")])
    return found.drop_columns("key").combine_chunks()


def merged(tables: Iterable[pa.Table]) -> pa.Table:
    """Add up tables of statistics, all in memory; `add_up` is for many."""
    import pyarrow as pa

    together = pa.concat_tables([schema().empty_table(), *tables])
    keyed = together.append_column("key", _key(together))
    added = keyed.group_by(["source", "kind", "key", "value"]).aggregate([("text", "min"), ("count", "sum"), ("captions", "sum")])
    return ordered(
        added.select(["source", "kind", "text_min", "value", "count_sum", "captions_sum"]).rename_columns(schema().names).cast(schema())
    )


def _key(rows: pa.Table) -> pa.ChunkedArray:
    """Return the texts that are keys: all but captions' own, which are told apart by their hash."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.equal(rows["kind"], "caption"), pa.scalar(None, pa.string()), rows["text"])
