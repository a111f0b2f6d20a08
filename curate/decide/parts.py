"""The measured parts as one table: the view `measured`.

The measure pass leaves a file for every 512 rows. To open one costs as much as to read its rows, and decisions read them
several times, so that many are merged into files of 131,072 rows once: files of the work folder, keyed by their parts.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from curate.listing import sql_list, sql_text
from curate.measure import Part, columns_of, native_columns
from curate.recipe import Recipe
from curate.table import measured_schema
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress

if TYPE_CHECKING:
    import duckdb

ROW_BITS = 32  # of a place, for the row in the part
MERGED = 256  # parts in one file
SMALL = 2048  # rows of a part that is worth merging

_SQL_TYPES = {
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "list<string>": "VARCHAR[]",
}


def show_measured(con: duckdb.DuckDBPyConnection, recipe: Recipe, parts: list[Part], work: str = "") -> None:
    """Make the view `measured`: all measured columns, and `place`, (number of the part << ROW_BITS) | row in the part.

    A column that only some sources measure is NULL in the others.
    """
    if not parts:
        con.register("nothing", measured_schema(columns_of(recipe)).empty_table())
        con.execute("CREATE VIEW measured AS SELECT *, 0::BIGINT AS place FROM nothing")
        return
    unlike = len({native_columns(spec) for spec in recipe.sources}) > 1
    merged = _merge(con, parts, work, unlike)
    rest = [part.path for part in parts[len(merged) * MERGED :]]
    tables = []
    if merged:
        place = f"(((file_index::BIGINT * {MERGED}) + part_number) << {ROW_BITS}) | part_row"
        tables.append(f"SELECT * EXCLUDE (part_number, part_row), {place} AS place FROM {_read(merged, unlike)}")
    if rest:
        place = f"((file_index::BIGINT + {len(merged) * MERGED}) << {ROW_BITS}) | file_row_number"
        tables.append(f"SELECT *, {place} AS place FROM {_read(rest, unlike)}")
    every = f"({' UNION ALL BY NAME '.join(tables)})"
    found = {name for name, *_ in con.execute(f"DESCRIBE FROM {every}").fetchall()}
    absent = [f', NULL::{_SQL_TYPES.get(kind, "VARCHAR")} AS "{name}"' for name, kind in columns_of(recipe) if name not in found]
    con.execute(f"CREATE VIEW measured AS SELECT *{''.join(absent)} FROM {every}")


def _read(files: list[str], unlike: bool) -> str:
    return f"read_parquet({sql_list(files)}, union_by_name = {unlike})"


def _merge(con: duckdb.DuckDBPyConnection, parts: list[Part], work: str, unlike: bool) -> list[str]:
    """Return the files that hold the first parts, MERGED in each; what is on disk already is not written again."""
    if not work or fs.is_remote(work):
        return []
    groups = [parts[i : i + MERGED] for i in range(0, len(parts) - MERGED + 1, MERGED)]
    groups = list(itertools.takewhile(lambda group: sum(part.rows for part in group) <= SMALL * MERGED, groups))
    if not groups:
        return []
    targets = []
    with Progress("merge", len(groups) * MERGED, "parts") as progress:
        for group in groups:
            paths = [part.path for part in group]
            target = fs.join(work, "merged", digest(["merged-1", [os.path.basename(path) for path in paths]]) + ".parquet")
            if not fs.exists(target):
                fs.make_dirs(fs.join(work, "merged"))
                new = f"{target}.tmp-{os.getpid()}"
                rows = f"SELECT file_index::INTEGER AS part_number, file_row_number AS part_row, * FROM {_read(paths, unlike)}"
                con.execute(f"COPY ({rows}) TO {sql_text(new)} (FORMAT parquet, COMPRESSION zstd)")
                os.replace(new, target)
            targets.append(target)
            progress.add(MERGED)
    return targets
