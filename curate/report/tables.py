"""A build's ledger as a table in DuckDB, streamed from parquet: memory stays flat in the number of inputs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shards.core import fs
from shards.manifest import Manifest
from shards.schema import LEDGER, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds

MEMORY_LIMIT = "1GB"
_COLUMNS = ("uid", "source", "decision", "reason", "detail", "duplicate_of")


def has_ledger(manifest: Manifest) -> bool:
    """Say whether a set has a ledger: a build has one; subsets, merged and foreign sets have none."""
    return bool(_files(manifest))


def _files(manifest: Manifest) -> list[str]:
    folder = fs.join(manifest.folder, "ledger")
    return [fs.join(folder, name) for name in fs.names(folder) if name.endswith(".parquet")]


def ledger(manifest: Manifest) -> ds.Dataset:
    """Return a build's ledger, one row per input, for DuckDB to stream."""
    import fsspec
    import pyarrow.dataset as ds

    schema = arrow_schema(tuple(column for column in LEDGER if column[0] in _COLUMNS))
    files = _files(manifest)
    filesystem, _ = fsspec.core.url_to_fs(files[0])
    return ds.dataset([fsspec.core.url_to_fs(path)[1] for path in files], schema, format="parquet", filesystem=filesystem)


@contextlib.contextmanager
def open_ledger(manifest: Manifest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the view `ledger`, one row per input."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = '{spill.replace(chr(39), chr(39) * 2)}'")
        con.register("ledger", ledger(manifest))
        yield con
