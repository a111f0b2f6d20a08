"""A pool of fetched images, read back: one row per URL with its status, and where its bytes lie.

A pool is a folder of img2dataset's webdataset or files output. One that `curate fetch` made also has `fetch.parquet`, which is
read alone; a plain one is read from its `NNNNN.parquet` files and, beside them, the headers of the tars, or the folders of images.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.sample import IMAGE_EXTENSIONS
from shards.tables.values import plain, storable

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "fetch.parquet"
OWN = "_fetch"  # the folder of what only a fetch needs
_SHARD = re.compile(r"\d+\.parquet")
_BATCH = 10_000
_WANTED = ("source_id", "url", "url_index", "caption", "status", "error_message", "key")
# What img2dataset itself writes into a table; its other columns are those that its user had it keep (`save_additional_columns`).
_MEASURED = ("width", "height", "original_width", "original_height", "exif", "md5", "sha256", "sha512")


class PoolRow(NamedTuple):
    """One URL of a pool. `tar`, `offset` and `size` say where the bytes lie; empty, 0 and 0 unless it succeeded. An image that is a
    file of its own has its path as `tar`, offset 0, and size -1.

    `source_id` is empty in a pool that img2dataset alone has made, `uid` in one that this program has not made; of a row that
    may not be known (opted out, blocked, taken down) the uid alone is there, with status and detail.
    `meta` holds, as a JSON object, the further columns that img2dataset was told to keep; empty where there are none.
    `status` is success, failed_to_download, failed_to_resize, lost, torn_input (the tar is cut off before these bytes), or
    image_missing (not asked for yet).
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
    uid: str = ""
    meta: str = ""


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
    members: dict[str, tar.Member] = {}
    try:
        with fs.open_read(path) as file:
            for member in tar.walk(file, path):
                if member.ext.lower() in IMAGE_EXTENSIONS:
                    members[member.key] = member
    except TornFileError as error:
        return members, error.found
    except FileNotFoundError:
        return members, f"{path}: no such file"
    return members, ""


def _read_fetched(path: str) -> Iterator[PoolRow]:
    sizes: dict[str, int] = {}
    for batch in _batches(fs.join(path, TABLE), PoolRow._fields):
        for pool_row in map(PoolRow._make, zip(*(batch[name] for name in PoolRow._fields), strict=True)):
            row = pool_row._replace(url=pool_row.url.strip(), uid=pool_row.uid or "", meta=pool_row.meta or "")
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
    names = tables(path) if fs.is_dir(path) else []
    if not names:
        raise UsageError(f"{path}: no pool", "a folder of img2dataset's output (00000.tar or 00000/, 00000.parquet, …)", "curate fetch")
    for name in names:
        yield from _read_shard(fs.join(path, name))


def tables(path: str) -> list[str]:
    """Return the names of the tables `NNNNN.parquet` of an img2dataset folder, in order."""
    return [name for name in fs.names(path) if _SHARD.fullmatch(name)]


def is_files(table: str) -> bool:
    """Return whether the images of a table `NNNNN.parquet` are files in the folder `NNNNN` beside it."""
    stem = table.removesuffix(".parquet")
    return not fs.exists(stem + ".tar") and fs.is_dir(stem)


def stored_columns(table: str) -> list[str]:
    """Return the columns of a table, those of bytes aside.

    Raises:
        TornFileError: the table cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _whole(table), fs.open_read(table) as file:
        return [field.name for field in pq.read_schema(file) if not pa.types.is_binary(field.type)]


def kept_columns(table: str) -> list[str]:
    """Return the columns of a table that img2dataset was told to keep, those of bytes aside.

    Raises:
        TornFileError: the table cannot be read.
    """
    names = stored_columns(table)
    # `row` beside these two is `curate fetch`'s.
    ours = ("row",) if {"source_id", "url_index"} <= set(names) else ()
    return [name for name in names if name not in (*_WANTED, *_MEASURED, *ours)]


def _read_shard(table: str) -> Iterator[PoolRow]:
    stem = table.removesuffix(".parquet")
    held_in = stem if is_files(table) else stem + ".tar"
    places, torn = _image_files(held_in) if held_in == stem else _image_ranges(held_in)
    kept = kept_columns(table)
    for batch in _batches(table, (*_WANTED, *kept)):
        rows = zip(*(batch[name] for name in _WANTED), strict=True)
        for at, (source_id, url, url_index, caption, status, detail, key) in enumerate(rows):
            texts = source_id or "", (url or "").strip(), url_index or 0, caption or "", status or "lost", detail or ""
            meta = json.dumps(plain({name: batch[name][at] for name in kept}), ensure_ascii=False) if kept else ""
            row = PoolRow(*texts, "", 0, 0, meta=storable(meta))
            if row.status != "success":
                yield row
            elif key in places:
                path, offset, size = places[key]
                yield row._replace(tar=path, offset=offset, size=size)
            else:
                yield _without_image(row, "torn_input" if torn else "lost", torn or f"{key} is not in {held_in}")


def _image_ranges(path: str) -> tuple[dict[str, tuple[str, int, int]], str]:
    """Return where the images of a tar lie by key, and why the walk ended early (empty if it did not)."""
    members, torn = image_members(path)
    return {key: (path, member.offset, member.size) for key, member in members.items()}, torn


def _image_files(folder: str) -> tuple[dict[str, tuple[str, int, int]], str]:
    """Return the images of a folder by key, and no reason for a torn one."""
    stems = ((name.rpartition("."), fs.join(folder, name)) for name in fs.names(folder))
    return {key: (path, 0, -1) for (key, _, ending), path in stems if ending.lower() in IMAGE_EXTENSIONS}, ""


def _without_image(row: PoolRow, status: str, detail: str) -> PoolRow:
    return row._replace(status=status, detail=detail, tar="", offset=0, size=0)


def _batches(path: str, columns: tuple[str, ...]) -> Iterator[dict[str, list[Any]]]:
    """Yield a parquet file in pieces as lists by column; a column that is not there is all None."""
    import pyarrow.parquet as pq

    with _whole(path), fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
        there = [name for name in columns if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(_BATCH, columns=there):
            values = batch.to_pydict()
            yield {name: values.get(name, [None] * batch.num_rows) for name in columns}


@contextlib.contextmanager
def _whole(path: str) -> Iterator[None]:
    """Raise what reading a parquet file raises as a torn file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        advice = "fetch again: unfinished shards are redone"
        raise TornFileError(f"{path}: cannot be read: {error}", "a whole parquet file", advice) from error
