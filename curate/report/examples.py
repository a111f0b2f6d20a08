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
POINTER = (("path", "string"), ("offset", "int64"), ("size", "int64"))

# A total order on the rows of `decided`: lowest rank first; a uid that is given twice stands in table order.
_ORDER = "rank NULLS LAST, uid, place"

# Chosen among narrow rows; captions and pointers are looked up for the chosen ones alone.
_CHOOSE = f"""
WITH decided AS (
    SELECT place, uid, source::VARCHAR AS source, reason::VARCHAR AS reason, decision::VARCHAR AS decision, detail, rank,
           nullif(duplicate_of::VARCHAR, '') AS survivor
    FROM {{decided}}),
dropped AS (
    SELECT *, row_number() OVER (PARTITION BY source, reason ORDER BY {_ORDER}) - 1 AS position
    FROM decided WHERE decision = 'dropped' QUALIFY position < {PER_REASON}),
kept AS (
    SELECT *, row_number() OVER (ORDER BY {_ORDER}) - 1 AS position
    FROM (FROM decided WHERE decision = 'kept' ORDER BY {_ORDER} LIMIT {KEPT})),
copies AS (FROM decided WHERE survivor IS NOT NULL AND survivor <> uid::VARCHAR AND reason <> 'duplicate_id'),
numbered AS (
    SELECT survivor, count(*) + 1 AS group_size, row_number() OVER (ORDER BY group_size DESC, survivor) - 1 AS "group"
    FROM copies GROUP BY survivor QUALIFY "group" < {GROUPS}),
members AS (
    SELECT copies.*, "group", group_size, 1 AS is_copy FROM copies JOIN numbered USING (survivor)
    UNION ALL
    SELECT decided.*, "group", group_size, 0 AS is_copy
    FROM (FROM decided WHERE reason <> 'duplicate_id') decided JOIN numbered ON uid::VARCHAR = numbered.survivor),
grouped AS (
    SELECT *, row_number() OVER (PARTITION BY "group" ORDER BY is_copy, {_ORDER}) - 1 AS position
    FROM members QUALIFY position < {PER_GROUP}),
twins AS (
    SELECT dropped.source, dropped.reason, dropped.position, kept.detail, kept.place
    FROM dropped JOIN decided kept ON kept.uid::VARCHAR = dropped.survivor
    WHERE dropped.survivor <> dropped.uid::VARCHAR AND dropped.reason <> 'duplicate_id' AND kept.reason <> 'duplicate_id')
SELECT 0 AS nr, 'dropped' AS kind, -1 AS "group", 0 AS group_size, source, reason, detail, position, place FROM dropped
UNION ALL SELECT 1, 'group', "group", group_size, source, reason, detail, position, place FROM grouped
UNION ALL SELECT 2, 'kept', -1, 0, source, '', detail, position, place FROM kept
UNION ALL SELECT 3, 'twin', -1, 0, source, reason, detail, position, place FROM twins
"""

_SHOW = """
SELECT {columns} FROM picked JOIN (
    SELECT place, uid, caption, caption_raw, path, "offset", size FROM {measured} SEMI JOIN picked USING (place)) USING (place)
ORDER BY nr, "group", if(nr IN (0, 3), source, ''), if(nr IN (0, 3), reason, ''), position
"""

# Whose picture another row repeats. A repeated id is no picture's copy.
DUPLICATE = "coalesce(duplicate_of, '') NOT IN ('', uid) AND reason <> 'duplicate_id'"


def choose_examples(con: duckdb.DuckDBPyConnection, decided: str = "decided", measured: str = "measured") -> pa.Table:
    """Choose the rows that a report illustrates; rank decides, so the choice is a random one, and always the same.

    Args:
        decided: a table or view with place, uid, source, reason, detail, decision, duplicate_of, rank.
        measured: one with place, uid, caption, caption_raw and the pointer path, offset, size ("" where there is no image;
            size -1 means the whole file).

    Returns:
        At most 12 rows per source and reason, 8 of each of the 20 largest duplicate groups (survivor first;
        `group_size` counts all members), and the first 50 kept; columns `COLUMNS` and the pointer. Of each dropped copy the sample that
        stayed is there, too: a `twin` with the copy's source, reason and position.
    """
    columns = COLUMNS + POINTER
    types = {"string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT"}
    selected = ", ".join(f'CAST("{name}" AS {types[kind]}) AS "{name}"' for name, kind in columns)
    con.execute("CREATE OR REPLACE TEMP TABLE picked AS " + _CHOOSE.format(decided=_quoted(decided)))
    return con.sql(_SHOW.format(columns=selected, measured=_quoted(measured))).to_arrow_table().cast(arrow_schema(columns))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write_examples(out: str, picks: pa.Table, *, workers: int = 1, engine_name: str = "local") -> None:
    """Write OUT/examples/examples.parquet: the chosen rows with a thumbnail each, null where there is no picture.

    Images are decoded in worker processes, so that bytes that crash a decoder cost one thumbnail.
    """
    import pyarrow as pa

    keys = list(zip(*(picks[name].to_pylist() for name, _ in POINTER), strict=True))
    pictures = dict(thumbnails(sorted({k for k in keys if k[0]}), workers, engine_name))
    table = picks.select([name for name, _ in COLUMNS]).cast(arrow_schema(COLUMNS))
    column = pa.array([pictures.get(key) for key in keys], pa.binary())
    fs.make_dirs(fs.join(out, "examples"))
    write_sidecar(fs.join(out, PATH), table.append_column("thumbnail", column))


Pointer = tuple[str, int, int]


def thumbnails(pointers: list[Pointer], workers: int = 1, engine_name: str = "local") -> Iterator[tuple[Pointer, bytes | None]]:
    """Yield each (path, offset, size) with its thumbnail, None where there is no picture; workers decode."""
    batches = [pointers[i : i + BATCH] for i in range(0, len(pointers), BATCH)]
    for outcome in engine.map_unordered(read_thumbnails, batches, workers=workers, engine=engine_name, split=split, timeout=SECONDS):
        if isinstance(outcome, engine.Done):
            yield from zip(outcome.spec, outcome.result, strict=True)


def split(batch: list[Pointer]) -> list[list[Pointer]]:
    """Halve a batch whose worker died."""
    half = len(batch) // 2
    return [part for part in (batch[:half], batch[half:]) if part]


def read_thumbnails(pointers: list[Pointer]) -> list[bytes | None]:
    """Return the thumbnail of each (path, offset, size); None where the file is gone or no picture."""
    return [_one(*pointer) for pointer in pointers]


def _one(path: str, offset: int, size: int) -> bytes | None:
    try:
        content = fs.read_range(path, offset, size)
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
        return pq.ParquetFile(file).read().to_pylist()
