"""Wide rows in order, in bounded memory: two passes, first into buckets on disk, then each bucket sorted by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.listing import spill_folder, sql_text
from shards.core import fs

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

BATCH_ROWS = 65_536
BUCKET_ROWS = 1_000_000  # some gigabyte of wide rows


def sorted_batches(
    con: duckdb.DuckDBPyConnection, query: str, order: str, bucket: str, rows: int, work: str, most: int = BUCKET_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in order.

    Args:
        order: columns of the query, such as `uid, row`.
        bucket: SQL over them that grows with the order, from 0 to below 1, evenly for the rows.
        rows: how many there are; few are sorted at once.
        work: the work folder, in which buckets lie for a while, as what a database spills does.
        most: rows of a bucket.
    """
    if rows <= most or fs.is_remote(work):
        yield from con.sql(f"FROM ({query}) ORDER BY {order}").to_arrow_reader(BATCH_ROWS)
        return
    count = -(-rows // most)
    parted = spill_folder(work)
    copied = f"SELECT *, least({count - 1}, floor({count} * ({bucket})))::INTEGER AS bucket FROM ({query})"
    con.execute(f"COPY ({copied}) TO {sql_text(parted)} (FORMAT parquet, PARTITION_BY (bucket), COMPRESSION zstd)")
    try:
        for number in range(count):
            one = fs.join(parted, f"bucket={number}")
            if fs.exists(one):
                files = sql_text(fs.join(one, "*.parquet"))
                rows_of = f"SELECT * EXCLUDE (bucket) FROM read_parquet({files}, hive_partitioning = true)"
                yield from con.sql(f"FROM ({rows_of}) ORDER BY {order}").to_arrow_reader(BATCH_ROWS)
                fs.remove(one)
    finally:
        fs.remove(parted)
