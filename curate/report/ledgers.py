"""A build's ledger as a table in DuckDB, streamed from parquet: memory stays flat in the number of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.listing import sql_list
from curate.report.database import connected, reach
from shards.core import fs
from shards.manifest import Manifest

if TYPE_CHECKING:
    import duckdb

_COLUMNS = ("uid", "source", "decision", "reason", "detail", "duplicate_of")


def has_ledger(manifest: Manifest) -> bool:
    """Say whether a set has a ledger: a build has one; subsets, merged and foreign sets have none."""
    return bool(_files(manifest))


def _files(manifest: Manifest) -> list[str]:
    folder = fs.join(manifest.folder, "ledger")
    return [fs.join(folder, name) for name in fs.names(folder) if name.endswith(".parquet")]


def ledger(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> str:
    """Return SQL for a build's ledger, one row per input. DuckDB reads the files itself: a pyarrow dataset reads a gigabyte ahead."""
    files = _files(manifest)
    reach(con, files)
    return f"read_parquet({sql_list(files)})"


@contextlib.contextmanager
def open_ledger(manifest: Manifest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the view `ledger`, one row per input."""
    with connected() as con:
        con.execute(f"CREATE TEMP VIEW ledger AS SELECT {', '.join(_COLUMNS)} FROM {ledger(con, manifest)}")
        yield con
