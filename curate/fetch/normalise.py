"""Native records become the rows that img2dataset reads: one parquet file per shard, in rank order.

Parquet, since img2dataset's CSV reader breaks on commas, quotes and newlines; sorted by DuckDB, which spills.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from curate.config import source_values
from curate.fetch.config import FetchConfig
from curate.sources.base import Record
from shards.core import fs, registry
from shards.core.config import load
from shards.core.engines.local import threads_of
from shards.core.errors import UsageError
from shards.sample import rank_key, uid_of
from shards.tables.values import storable

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 10_000
# One URL once per record; a record's URLs stand together, since its rank does not depend on them.
_IN_RANK_ORDER = """
    SELECT source_id, url, url_index, caption FROM read_parquet(?)
    QUALIFY row_number() OVER (PARTITION BY source_id, url ORDER BY n) = 1
    ORDER BY rank, uid, url_index, n
"""


@dataclass(frozen=True)
class Normalised:
    """What a source's files hold: the digest of the ordered rows, and counts."""

    fingerprint: str
    records: int
    without_url: int
    urls: int
    shards: int


def normalise(config: FetchConfig, folder: str) -> Normalised:
    """Write the rows of a source into `folder/NNNNN.parquet` (source_id, url, url_index, caption, row).

    Raises:
        UsageError: the source has no URLs to fetch, or its files hold none.
    """
    fs.make_dirs(folder)
    spool = fs.join(folder, "spool.parquet")
    records, without_url = _spool(config, spool)
    digest, urls, shards = hashlib.sha256(), 0, 0
    for table in _in_rank_order(spool, folder, config.samples_per_shard):
        digest.update(json.dumps(table.to_pydict()).encode())
        write_shard_input(table, folder, shards, first_row=urls)
        urls, shards = urls + table.num_rows, shards + 1
    fs.remove(spool)
    if not urls:
        raise UsageError(f"{config.pattern}: {records} records, none with a URL", "metadata with URLs")
    return Normalised(digest.hexdigest(), records, without_url, urls, shards)


def shard_name(shard: int) -> str:
    """Return img2dataset's name of a shard, `00012`."""
    return f"{shard:05d}"


def write_shard_input(table: pa.Table, folder: str, shard: int, first_row: int | None = None) -> None:
    """Write one shard's rows; `row` numbers them through the whole input, unless the table has it already."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if first_row is not None:
        table = table.append_column("row", pa.array(range(first_row, first_row + table.num_rows), pa.int64()))
    with fs.atomic_write(fs.join(folder, shard_name(shard) + ".parquet")) as file:
        pq.write_table(table, file)


def _records(config: FetchConfig) -> Iterator[Record]:
    source = registry.get("curate.sources", config.source)
    if source.IMAGES == "inline":
        raise UsageError(f"source {config.source!r} has its images with it", "a source whose images are URLs", "curate build-shards")
    options = load(source.Options, source_values(config.source, config.extra))
    for input in source.inputs(config.pattern, options):
        yield from source.read(input, options)


def _spool(config: FetchConfig, path: str) -> tuple[int, int]:
    """Write the rows unsorted, each with its rank and place; return the numbers of records and of those without URL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("source_id", "url", "url_index", "caption", "rank", "uid", "n")
    kinds = (pa.string(), pa.string(), pa.int32(), pa.string(), pa.uint64(), pa.string(), pa.int64())
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    counts = {"records": 0, "without_url": 0}
    rows = _rows(islice(_records(config), config.limit), config, counts)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, _BATCH)):
            writer.write_table(pa.table([pa.array(c, k) for c, k in zip(zip(*chunk, strict=True), kinds, strict=True)], schema=schema))
    return counts["records"], counts["without_url"]


def _rows(records: Iterator[Record], config: FetchConfig, counts: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    number = 0
    for record in records:
        counts["records"] += 1
        urls = [(i, stripped) for i, url in enumerate(record.urls) if (stripped := storable(url).strip())]
        if record.status or not urls:
            counts["without_url"] += 1
            continue
        uid = uid_of(config.source_name, record.source_id)
        rank, caption = rank_key(config.seed, uid), storable(record.captions[0] if record.captions else "")
        for index, url in urls:
            yield storable(record.source_id), url, index, caption, rank, uid, number
            number += 1


def _in_rank_order(spool: str, folder: str, rows: int) -> Iterator[pa.Table]:
    """Yield the spooled rows in rank order, `rows` at a time."""
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{fs.join(folder, 'spill').replace(chr(39), chr(39) * 2)}'; SET threads = {threads_of()}")
        reader = pa.RecordBatchReader.from_stream(connection.sql(_IN_RANK_ORDER, params=[spool]))
        waiting = reader.schema.empty_table()
        for batch in reader:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while waiting.num_rows >= rows:
                yield waiting.slice(0, rows)
                waiting = waiting.slice(rows)
        if waiting.num_rows:
            yield waiting
