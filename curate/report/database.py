"""DuckDB as reports use it: in little memory, over files of any file system."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from curate.listing import sql_text
from shards.core import fs
from shards.core.engines.local import threads_of

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GB"


@contextlib.contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection; what exceeds MEMORY_LIMIT goes to disk."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = {sql_text(spill)}; SET threads = {threads_of()}")
        yield con


def reach(con: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """Let a connection open remote files."""
    import fsspec

    for protocol in sorted({path.partition("://")[0] for path in paths if fs.is_remote(path)}):
        if not con.filesystem_is_registered(protocol):
            con.register_filesystem(fsspec.filesystem(protocol))
