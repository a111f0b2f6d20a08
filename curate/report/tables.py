"""A build's ledger and sidecars as two views in DuckDB, streamed from parquet: memory stays flat in the number of samples."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import UsageError
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard
from shards.schema import LEDGER, SIDECAR, arrow_schema

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "2GB"
_LEDGER = ("uid", "source", "decision", "reason", "duplicate_of")
_KEPT = ("source", "caption")


@contextlib.contextmanager
def open_tables(manifest: Manifest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the views `ledger` (one row per input) and `kept` (one row per sample in the shards).

    Raises:
        UsageError: the folder has no ledger: it is a subset or a foreign set, not a build.
    """
    import duckdb
    import pyarrow as pa

    folder = fs.join(manifest.folder, "ledger")
    ledger = [fs.join(folder, name) for name in fs.names(folder) if name.endswith(".parquet")]
    if not ledger:
        raise UsageError(f"no ledger in {manifest.folder!r}", "the folder of a finished build", "the build this set was cut from")
    sidecars = [manifest.path_of(entry, ".parquet") for entry in manifest.shards if entry.use is None]
    cut = [entry for entry in manifest.shards if entry.use is not None]  # samples taken down are no part of the build any more
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        con.execute(f"SET temp_directory = '{spill.replace(chr(39), chr(39) * 2)}'")
        con.register("ledger", _dataset(ledger, LEDGER, _LEDGER))
        con.register("whole", _dataset(sidecars, SIDECAR, _KEPT))
        con.register("cut", pa.concat_tables([_rows(manifest, entry) for entry in cut] or [_dataset([], SIDECAR, _KEPT)]))
        con.execute("CREATE TEMP VIEW kept AS SELECT * FROM whole UNION ALL BY NAME SELECT * FROM cut")
        yield con


def _rows(manifest: Manifest, entry: ShardEntry) -> Any:
    with Shard(manifest, entry) as shard:
        return shard.sidecar(_KEPT)


def _dataset(paths: list[str], columns: tuple[tuple[str, str], ...], wanted: tuple[str, ...]) -> Any:
    import fsspec
    import pyarrow.dataset as ds

    schema = arrow_schema(tuple(column for column in columns if column[0] in wanted))
    if not paths:
        return schema.empty_table()
    filesystem, _ = fsspec.core.url_to_fs(paths[0])
    return ds.dataset([fsspec.core.url_to_fs(path)[1] for path in paths], schema, format="parquet", filesystem=filesystem)
