"""A folder that img2dataset has filled (webdataset output): tars, and the parquet tables with each URL's status.

A sample's id is its URL, a line feed, and its caption; a pool of `curate fetch` brings its source's own ids.
URLs that gave no image are records with their status, so that the ledger counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from curate.fetch.pool import TABLE, read_pool
from curate.sources.base import Input, Pointer, Record, storable
from shards.core import fs
from shards.core.errors import UsageError

VERSION = 1
IMAGES = "inline"
_TABLE = re.compile(r"\d+\.parquet")
_EXPECTED = "img2dataset's webdataset output (00000.tar, 00000.parquet, …), or a pool of curate fetch"


@dataclass(frozen=True)
class Options:
    """No options."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the one input: the folder."""
    if not fs.is_dir(pattern):
        raise UsageError(f"{pattern!r} is no folder", "img2dataset's output folder (00000.tar, 00000.parquet, …)", "--source webdataset")
    folder = pattern.rstrip("/")
    if not fs.exists(fs.join(folder, TABLE)):
        _refuse_other_outputs(folder)
    next(read_pool(folder), None)  # refuses a folder that is no pool
    return [Input(folder, ".")]


def layout(input: Input, options: Options) -> str:
    """Return who filled the folder, and how many tables it has."""
    if fs.exists(fs.join(input.path, TABLE)):
        return "pool of curate fetch: one table of all URLs with their status"
    count = len(_tables(input.path))
    return f"img2dataset's webdataset output: {count:,} table{'s' if count > 1 else ''} with each URL's status"


def _tables(folder: str) -> list[str]:
    return [name for name in fs.walk(folder) if _TABLE.fullmatch(name)]


def _refuse_other_outputs(folder: str) -> None:
    """Refuse what img2dataset writes with another `output_format`, naming the source that reads it."""
    import pyarrow.parquet as pq

    tables = _tables(folder)
    if not tables:
        source = "webdataset" if any(name.endswith(".tar") for name in fs.names(folder)) else ""
        raise UsageError(f"{folder}: no pool: no tables (00000.parquet, …)", _EXPECTED, f"--source {source}" if source else "")
    stem = fs.join(folder, tables[0].removesuffix(".parquet"))
    if fs.exists(stem + ".tar"):
        return
    if fs.is_dir(stem):
        raise UsageError(f"{folder}: written with output_format=files", _EXPECTED, "--source folder")
    with fs.open_read(stem + ".parquet") as file:
        columns = pq.read_schema(file).names
    if {"jpg", "png", "webp"} & set(columns):
        raise UsageError(f"{folder}: written with output_format=parquet", _EXPECTED, "--source huggingface")
    if fs.exists(stem + ".tfrecord"):
        raise UsageError(f"{folder}: written with output_format=tfrecord", _EXPECTED)


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per URL of the folder's tables."""
    for row, entry in enumerate(read_pool(input.path)):
        caption = storable(entry.caption)
        source_id = entry.source_id or f"{entry.url}\n{caption}"
        fetched = entry.status == "success"
        image = Pointer(entry.tar, entry.offset, entry.size) if fetched else None
        status = "" if fetched else entry.status
        yield Record(source_id, (caption,) if caption else (), row, (entry.url,), image, status=status, detail=storable(entry.detail))
