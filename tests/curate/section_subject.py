"""A report's subject made of rows: statistics counted by the real code, a sample of all rows, pictures by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.report.stats import add_up, count_rows, write_statistics
from curate.report.subject import Subject

COLUMNS = {
    "source": pa.string(), "uid": pa.string(), "caption": pa.string(), "width": pa.int32(), "height": pa.int32(), "bytes": pa.int64(),
    "original_format": pa.string(), "information": pa.float64(),
}  # fmt: skip


@contextlib.contextmanager
def subject_of(rows: Sequence[dict[str, Any]], folder: Path, sources: Sequence[str] = ()) -> Iterator[Subject]:
    """Open a subject of these samples, given in rank order; columns that no row names are missing, as in foreign shards."""
    given = [name for name in COLUMNS if any(name in row for row in rows)]
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([(name, COLUMNS[name]) for name in given]))
    half = len(rows) // 2
    paths = [str(folder / "0.parquet"), str(folder / "1.parquet")]
    for path, part in zip(paths, (table.slice(0, half), table.slice(half)), strict=True):
        write_statistics(path, count_rows(part))
    at = [f"0/0/{i}" for i in range(len(rows))]
    every = {name: table[name] if name in given else pa.nulls(len(rows), kind) for name, kind in COLUMNS.items()}
    names = tuple(sources) or tuple(dict.fromkeys(row["source"] for row in rows))
    with add_up(paths) as con:
        yield Subject(con, names, pa.table({**every, "at": at}), {"most": 5000}, (), ())
