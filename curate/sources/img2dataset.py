"""A folder that img2dataset has filled (its webdataset or files output): images, and the parquet tables with each URL's status.

A sample's id is its URL, a line feed, and its caption; a pool of `curate fetch` brings its source's own ids.
URLs that gave no image are records with their status, so that the ledger counts them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from curate.fetch.pool import TABLE, is_files, kept_columns, read_pool, tables
from curate.sources.base import Input, Pointer, Record, base_of, expand
from shards.caption_files import LICENCE_COLUMNS
from shards.core import fs
from shards.core.console import counted
from shards.core.errors import UsageError
from shards.tables.values import captions_of, label_of, storable

VERSION = 3
IMAGES = "inline"
_EXPECTED = "img2dataset's output (00000.tar or 00000/, and 00000.parquet, …), or a pool of curate fetch"


@dataclass(frozen=True)
class Options:
    """No options."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the folder, or each of several."""
    paths = expand(pattern) if re.search(r"[*?\[{]", pattern) else [pattern]
    base = base_of(pattern)
    files = []
    for path in paths:
        if not fs.is_dir(path):
            raise UsageError(f"{path!r} is no folder", _EXPECTED, "--source webdataset")
        folder = path.rstrip("/")
        if not fs.exists(fs.join(folder, TABLE)):
            _refuse_other_outputs(folder)
        next(read_pool(folder), None)  # refuses a folder that is no pool
        files.append(Input(folder, fs.relative(folder, base) if path != pattern else "."))
    return files


def layout(input: Input, options: Options) -> str:
    """Return who filled the folder, and how many tables it has."""
    if fs.exists(fs.join(input.path, TABLE)):
        return "pool of curate fetch: one table of all URLs with their status"
    names = tables(input.path)
    form = "files" if is_files(fs.join(input.path, names[0])) else "webdataset"
    return f"img2dataset's {form} output: {counted(len(names), 'table')} with each URL's status"


def columns(input: Input, options: Options) -> list[str]:
    """Return the columns that img2dataset was told to keep (`save_additional_columns`)."""
    if fs.exists(fs.join(input.path, TABLE)):
        return []
    return kept_columns(fs.join(input.path, tables(input.path)[0]))


def _refuse_other_outputs(folder: str) -> None:
    """Refuse what img2dataset writes with another `output_format`, naming the source that reads it."""
    import pyarrow.parquet as pq

    names = tables(folder)
    if not names:
        source = "webdataset" if any(name.endswith(".tar") for name in fs.names(folder)) else ""
        raise UsageError(f"{folder}: no pool: no tables (00000.parquet, …)", _EXPECTED, f"--source {source}" if source else "")
    stem = fs.join(folder, names[0].removesuffix(".parquet"))
    if fs.exists(stem + ".tar") or is_files(fs.join(folder, names[0])):
        return
    with fs.open_read(stem + ".parquet") as file:
        columns = pq.read_schema(file).names
    if {"jpg", "png", "webp"} & set(columns):
        raise UsageError(f"{folder}: written with output_format=parquet", _EXPECTED, "--source huggingface")
    if fs.exists(stem + ".tfrecord"):
        raise UsageError(f"{folder}: written with output_format=tfrecord", _EXPECTED)


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per URL of the folder's tables."""
    for row, entry in enumerate(read_pool(input.path)):
        caption, url = storable(entry.caption), entry.url.strip()
        source_id = entry.source_id or entry.uid or f"{url}\n{caption}"
        fetched = entry.status == "success"
        image = Pointer(entry.tar, entry.offset, entry.size) if fetched else None
        status = "" if fetched else entry.status
        detail, meta = storable(entry.detail), entry.meta
        licence = label_of(next((value for name, value in json.loads(meta).items() if name.lower() in LICENCE_COLUMNS), "")) if meta else ""
        yield Record(source_id, tuple(captions_of(caption)), row, (url,), image, licence=licence, status=status, detail=detail, meta=meta)
