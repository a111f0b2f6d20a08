"""A folder that img2dataset has filled (webdataset output): tars, and the parquet tables with each URL's status.

A sample's id is its URL, a line feed, and its caption; a pool of `curate fetch` brings its source's own ids.
URLs that gave no image are records with their status, so that the ledger counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curate.fetch.pool import read_pool
from curate.sources.base import Input, Pointer, Record, storable
from shards.core import fs
from shards.core.errors import UsageError

VERSION = 1
IMAGES = "inline"


@dataclass(frozen=True)
class Options:
    """No options."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the one input: the folder."""
    if not fs.is_dir(pattern):
        raise UsageError(f"{pattern!r} is no folder", "img2dataset's output folder (00000.tar, 00000.parquet, …)", "--source webdataset")
    next(read_pool(pattern), None)  # refuses a folder that is no pool
    return [Input(pattern.rstrip("/"), ".")]


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per URL of the folder's tables."""
    for row, entry in enumerate(read_pool(input.path)):
        caption = storable(entry.caption)
        source_id = entry.source_id or f"{entry.url}\n{caption}"
        fetched = entry.status == "success"
        image = Pointer(entry.tar, entry.offset, entry.size) if fetched else None
        status = "" if fetched else entry.status
        yield Record(source_id, (caption,) if caption else (), row, (entry.url,), image, status=status, detail=storable(entry.detail))
