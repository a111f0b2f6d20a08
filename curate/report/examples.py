"""The examples a report shows: which rows, chosen by SQL, and their thumbnails, made while the bytes are still there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.report.thumbnail import thumbnail
from shards.core import engine, fs
from shards.schema import arrow_schema
from shards.writer import write_sidecar

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

PATH = "examples/examples.parquet"
PER_REASON, GROUPS, PER_GROUP, KEPT = 12, 20, 8, 50
BATCH, SECONDS = 64, 60.0

COLUMNS = (
    ("kind", "string"),
    ("group", "int32"),
    ("group_size", "int64"),
    ("source", "string"),
    ("reason", "string"),
    ("uid", "string"),
    ("caption", "string"),
    ("caption_raw", "string"),
    ("detail", "string"),
    ("position", "int32"),
)
_POINTER = (("path", "string"), ("offset", "int64"), ("size", "int64"))

# A total order on the rows of `decided`: lowest rank first, then by everything that tells two rows apart.
_ORDER = 'rank NULLS LAST, uid, path, "offset", caption_raw, detail'

_CHOOSE = f"""
WITH decided AS (SELECT * FROM {{relation}}),
dropped AS (
    SELECT *, row_number() OVER (PARTITION BY source, reason ORDER BY {_ORDER}) - 1 AS position
    FROM decided WHERE decision = 'dropped' QUALIFY position < {PER_REASON}),
kept AS (
    SELECT *, row_number() OVER (ORDER BY {_ORDER}) - 1 AS position
    FROM decided WHERE decision = 'kept' QUALIFY position < {KEPT}),
largest AS (
    SELECT duplicate_of AS survivor, count(*) + 1 AS group_size
    FROM decided WHERE {{duplicate}} GROUP BY survivor ORDER BY group_size DESC, survivor LIMIT {GROUPS}),
numbered AS (SELECT *, row_number() OVER (ORDER BY group_size DESC, survivor) - 1 AS "group" FROM largest),
members AS (
    SELECT decided.*, numbered."group", group_size, 1 AS is_copy
    FROM decided JOIN numbered ON duplicate_of = survivor WHERE {{duplicate}}
    UNION ALL
    SELECT decided.*, numbered."group", group_size, 0 AS is_copy
    FROM decided JOIN numbered ON uid = survivor WHERE reason <> 'duplicate_id'),
grouped AS (
    SELECT *, row_number() OVER (PARTITION BY "group" ORDER BY is_copy, {_ORDER}) - 1 AS position
    FROM members QUALIFY position < {PER_GROUP}),
picked AS (
    SELECT 0 AS nr, 'dropped' AS kind, -1 AS "group", 0 AS group_size, source, reason, uid, caption, caption_raw, detail,
           position, path, "offset", size FROM dropped
    UNION ALL
    SELECT 1, 'group', "group", group_size, source, reason, uid, caption, caption_raw, detail, position, path, "offset", size FROM grouped
    UNION ALL
    SELECT 2, 'kept', -1, 0, source, '', uid, caption, caption_raw, detail, position, path, "offset", size FROM kept)
SELECT {{columns}} FROM picked ORDER BY nr, "group", if(nr = 0, source, ''), if(nr = 0, reason, ''), position
"""

# Whose picture another row repeats. A repeated id is no picture's copy.
DUPLICATE = "coalesce(duplicate_of, '') NOT IN ('', uid) AND reason <> 'duplicate_id'"


def choose_examples(con: duckdb.DuckDBPyConnection, relation: str) -> pa.Table:
    """Choose the rows that a report illustrates; rank decides, so the choice is a random one, and always the same.

    Args:
        relation: a table or view with uid, source, reason, detail, decision, duplicate_of, rank, caption, caption_raw and
            the pointer path, offset, size ("" where there is no image; size -1 means the whole file).

    Returns:
        At most 12 rows per source and reason, 8 of each of the 20 largest duplicate groups (survivor first;
        `group_size` counts all members), and the first 50 kept; columns `COLUMNS` and the pointer.
    """
    columns = COLUMNS + _POINTER
    types = {"string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT"}
    selected = ", ".join(f'CAST("{name}" AS {types[kind]}) AS "{name}"' for name, kind in columns)
    quoted = '"' + relation.replace('"', '""') + '"'
    query = _CHOOSE.format(relation=quoted, duplicate=DUPLICATE, columns=selected)
    return con.sql(query).to_arrow_table().cast(arrow_schema(columns))


def write_examples(out: str, picks: pa.Table, *, workers: int = 1, engine_name: str = "local") -> None:
    """Write OUT/examples/examples.parquet: the chosen rows with a thumbnail each, null where there is no picture.

    Images are decoded in worker processes, so that bytes that crash a decoder cost one thumbnail.
    """
    import pyarrow as pa

    keys = list(zip(*(picks[name].to_pylist() for name, _ in _POINTER), strict=True))
    pictures = dict(_thumbnails(sorted({k for k in keys if k[0]}), workers, engine_name))
    table = picks.select([name for name, _ in COLUMNS]).cast(arrow_schema(COLUMNS))
    column = pa.array([pictures.get(key) for key in keys], pa.binary())
    fs.make_dirs(fs.join(out, "examples"))
    write_sidecar(fs.join(out, PATH), table.append_column("thumbnail", column))


_Pointer = tuple[str, int, int]


def _thumbnails(pointers: list[_Pointer], workers: int, engine_name: str) -> Iterator[tuple[_Pointer, bytes | None]]:
    batches = [pointers[i : i + BATCH] for i in range(0, len(pointers), BATCH)]
    for outcome in engine.map_unordered(read_thumbnails, batches, workers=workers, engine=engine_name, split=split, timeout=SECONDS):
        if isinstance(outcome, engine.Done):
            yield from zip(outcome.spec, outcome.result, strict=True)


def split(batch: list[_Pointer]) -> list[list[_Pointer]]:
    """Halve a batch whose worker died."""
    half = len(batch) // 2
    return [part for part in (batch[:half], batch[half:]) if part]


def read_thumbnails(pointers: list[_Pointer]) -> list[bytes | None]:
    """Return the thumbnail of each (path, offset, size); None where the file is gone or no picture."""
    return [_one(*pointer) for pointer in pointers]


def _one(path: str, offset: int, size: int) -> bytes | None:
    try:
        content = fs.read_bytes(path) if size < 0 else fs.read_range(path, offset, size)
    except (OSError, ValueError):  # the picture has gone since it was measured
        return None
    return thumbnail(content)


def read_examples(out: str) -> list[dict[str, Any]]:
    """Return the rows of OUT/examples/examples.parquet; none where the build kept no examples."""
    import pyarrow.parquet as pq

    path = fs.join(out, PATH)
    if not fs.exists(path):
        return []
    with fs.open_read(path) as file:
        return pq.read_table(file).to_pylist()
