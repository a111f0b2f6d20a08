"""A build's ledger as a table in DuckDB, streamed from parquet: memory stays flat in the number of inputs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.listing import sql_list
from shards.core import fs
from shards.manifest import Manifest

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GB"
_COLUMNS = ("uid", "source", "decision", "reason", "detail", "duplicate_of")


def has_ledger(manifest: Manifest) -> bool:
    """Say whether a set has a ledger: a build has one; subsets, merged and foreign sets have none."""
    return bool(_files(manifest))


def _files(manifest: Manifest) -> list[str]:
    folder = fs.join(manifest.folder, "ledger")
    return [fs.join(folder, name) for name in fs.names(folder) if name.endswith(".parquet")]


def ledger(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> str:
    """Return SQL for a build's ledger, one row per input. DuckDB reads the files itself: a pyarrow dataset reads a gigabyte ahead."""
    import fsspec

    files = _files(manifest)
    protocol = files[0].partition("://")[0] if fs.is_remote(files[0]) else ""
    if protocol and protocol not in con.list_filesystems():
        con.register_filesystem(fsspec.filesystem(protocol))
    return f"read_parquet({sql_list(files)})"


@contextlib.contextmanager
def open_ledger(manifest: Manifest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the view `ledger`, one row per input."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = '{spill.replace(chr(39), chr(39) * 2)}'")
        con.execute(f"CREATE TEMP VIEW ledger AS SELECT {', '.join(_COLUMNS)} FROM {ledger(con, manifest)}")
        yield con
