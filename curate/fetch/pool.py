"""A pool of fetched images, read back: one row per URL with its status, and where its bytes lie.

A pool is an img2dataset webdataset folder. One that `curate fetch` made also has `fetch.parquet`, which is read
alone; a plain one is read from its `NNNNN.parquet` files and the headers of the tars beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.sample import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "fetch.parquet"
OWN = "_fetch"  # the folder of what only a fetch needs
_SHARD = re.compile(r"\d+\.parquet")
_BATCH = 10_000


class PoolRow(NamedTuple):
    """One URL of a pool. `tar`, `offset` and `size` say where the bytes lie; empty, 0 and 0 unless it succeeded.

    `source_id` is empty in a pool that img2dataset alone has made. `status` is success, failed_to_download,
    failed_to_resize, lost, torn_input (the tar is cut off before these bytes), or image_missing (not asked for yet).
    """

    source_id: str
    url: str
    url_index: int
    caption: str
    status: str
    detail: str
    tar: str
    offset: int
    size: int


def read_pool(path: str) -> Iterator[PoolRow]:
    """Yield every URL of the pool at `path`, in rank order for one that `curate fetch` made, else shard by shard.

    Raises:
        UsageError: the folder is no pool.
        TornFileError: a table of the pool cannot be read.
    """
    return _read_fetched(path) if fs.exists(fs.join(path, TABLE)) else _read_plain(path)


def pool_table(path: str) -> pa.Table:
    """Return the rows of `read_pool` as one table with the columns of `PoolRow`."""
    import pyarrow as pa

    batches, rows = [], read_pool(path)
    schema = pool_schema()
    while chunk := [row for row, _ in zip(rows, range(_BATCH), strict=False)]:
        columns = [pa.array(column, kind) for column, kind in zip(zip(*chunk, strict=True), schema.types, strict=True)]
        batches.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(batches, schema)


def pool_schema() -> pa.Schema:
    """Return the schema of `pool_table`."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    kinds = {"url_index": pa.int32(), "offset": number, "size": number}
    return pa.schema([(name, kinds.get(name, text)) for name in PoolRow._fields])


def image_members(path: str) -> tuple[dict[str, tar.Member], str]:
    """Return the images of a tar by key, and why the walk ended early (empty if it did not)."""
    found: dict[str, tar.Member] = {}
    try:
        with fs.open_read(path) as file:
            for member in tar.walk(file, path):
                if member.ext.lower() in IMAGE_EXTENSIONS:
                    found[member.key] = member
    except TornFileError as error:
        return found, error.found
    except FileNotFoundError:
        return found, f"{path}: no such file"
    return found, ""


def _read_fetched(path: str) -> Iterator[PoolRow]:
    sizes: dict[str, int] = {}
    for batch in _batches(fs.join(path, TABLE), PoolRow._fields):
        for row in map(PoolRow._make, zip(*(batch[name] for name in PoolRow._fields), strict=True)):
            if row.status != "success":
                yield row
                continue
            name = fs.join(path, row.tar)
            if name not in sizes:
                sizes[name] = fs.size(name) if fs.exists(name) else 0
            if row.offset + row.size > sizes[name]:
                yield _without_image(row, "torn_input", f"{row.tar} ends at byte {sizes[name]}")
            else:
                yield row._replace(tar=name)


def _read_plain(path: str) -> Iterator[PoolRow]:
    tables = [fs.join(path, name) for name in fs.walk(path) if _SHARD.fullmatch(name)] if fs.is_dir(path) else []
    if not tables:
        raise UsageError(f"{path}: no pool", "a folder of img2dataset's webdataset output (00000.tar, 00000.parquet, …)", "curate fetch")
    for table in tables:
        yield from _read_shard(table, table.removesuffix(".parquet") + ".tar")


def _read_shard(table: str, tar_path: str) -> Iterator[PoolRow]:
    members, torn = image_members(tar_path)
    wanted = ("source_id", "url", "url_index", "caption", "status", "error_message", "key")
    for batch in _batches(table, wanted):
        for source_id, url, url_index, caption, status, detail, key in zip(*(batch[name] for name in wanted), strict=True):
            row = PoolRow(source_id or "", url or "", url_index or 0, caption or "", status or "lost", detail or "", tar_path, 0, 0)
            member = members.get(key)
            if row.status != "success":
                yield _without_image(row, row.status, row.detail)
            elif member is not None:
                yield row._replace(offset=member.offset, size=member.size)
            else:
                yield _without_image(row, "torn_input" if torn else "lost", torn or f"{key} is not in {tar_path}")


def _without_image(row: PoolRow, status: str, detail: str) -> PoolRow:
    return row._replace(status=status, detail=detail, tar="", offset=0, size=0)


def _batches(path: str, columns: tuple[str, ...]) -> Iterator[dict[str, list[Any]]]:
    """Yield a parquet file in pieces as lists by column; a column that is not there is all None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
            there = [name for name in columns if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH, columns=there):
                values = batch.to_pydict()
                yield {name: values.get(name, [None] * batch.num_rows) for name in columns}
    except (pa.ArrowInvalid, OSError) as error:
        raise TornFileError(
            f"{path}: cannot be read: {error}", "a whole parquet file", "fetch again: unfinished shards are redone"
        ) from error
