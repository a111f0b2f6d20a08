"""Between deciding and writing: which kept samples make which shard, in rank order, and the ledger of all inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.decide import Decided
from curate.listing import scalar
from curate.measure import columns_of
from curate.recipe import Recipe
from curate.table import POINTER
from curate.write import WriteTask, text_members
from shards import tar
from shards.core import fs
from shards.core.config import digest
from shards.schema import LEDGER, SIDECAR, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LEDGER_ROWS = 1_000_000
WRITER_VERSION = 1


def shard_size(recipe: Recipe, kept: int) -> int:
    """Return the samples of a shard: the recipe's, or kept/512 within 1,000 and 10,000."""
    return recipe.shards.samples or min(10_000, max(1_000, kept // 512))


def members_of(recipe: Recipe, decided: Decided) -> tuple[str, ...]:
    """Return the members that every sample gets: jpg, txt; cls where all are labelled; json on request."""
    labelled = scalar(decided.con, "SELECT count(*) FROM decided WHERE decision = 'kept' AND class_index < 0") == 0
    return ("jpg", "txt", *(("cls",) if labelled else ()), *(("json",) if recipe.json else ()))


def class_names(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Return the class names by index, of labelled sets."""
    rows = con.execute("SELECT class_index, min(class_name) FROM decided WHERE class_index >= 0 GROUP BY 1 ORDER BY 1").fetchall()
    names = dict(rows)
    return tuple(names.get(i, str(i)) for i in range(max(names, default=-1) + 1))


def plan(recipe: Recipe, decided: Decided, work: str, output: str, members: tuple[str, ...]) -> list[WriteTask]:
    """Cut the kept samples, in rank order, into shards; write each shard's rows to the work folder."""
    import pyarrow.parquet as pq

    size = shard_size(recipe, decided.kept)
    folder = fs.join(work, "plans")
    fs.make_dirs(folder)
    columns = ", ".join(f'd."{name}"' for name, _ in columns_of(recipe))
    reader = decided.con.sql(f"""
        SELECT d.uid AS key, d.uid, d.source, d.source_id, d.url, d.caption, d.caption_raw, d.captions, d.width, d.height,
               d.original_width, d.original_height, d.original_format, d.bytes, d.sha256, d.original_sha256,
               lpad(lower(to_hex(d.phash)), 16, '0') AS phash, d.rank, d.class_index AS class, d.licence, d.class_name, d.meta,
               {columns + ", " if columns else ""} d.path, d."offset", d.size
        FROM decided d WHERE decision = 'kept' ORDER BY rank
    """).to_arrow_reader(size)
    tasks = []
    for number, rows in enumerate(_cut(reader, size, recipe.shards.bytes, members, columns_of(recipe))):
        without = rows.drop_columns([name for name, _ in POINTER])
        key = digest([WRITER_VERSION, list(members), [list(r.items()) for r in without.to_pylist()]])
        path = fs.join(folder, f"{key}.parquet")
        with fs.atomic_write(path) as file:
            pq.write_table(rows, file, compression="zstd")
        tasks.append(WriteTask(path, key, output, f"{number:05d}", members))
    _name_shards(decided, tasks)
    return tasks


def _cut(reader: Any, size: int, most: int | None, members: tuple[str, ...], columns: tuple[tuple[str, str], ...]) -> Iterator[pa.Table]:
    """Yield the rows of one shard after the other: `size` samples, fewer where the tar would pass `most` bytes."""
    import pyarrow as pa

    wanted = arrow_schema((*SIDECAR, ("class_name", "string"), ("meta", "string"), *columns, *POINTER))
    left: pa.Table | None = None
    for batch in reader:
        piece = pa.Table.from_batches([batch]).cast(wanted)
        left = piece if left is None else pa.concat_tables([left, piece])
        while left.num_rows >= size:
            count = _fit(left.slice(0, size), most, members)
            yield left.slice(0, count).combine_chunks()
            left = left.slice(count)
    while left is not None and left.num_rows:
        count = _fit(left.slice(0, size), most, members)
        yield left.slice(0, count).combine_chunks()
        left = left.slice(count)


def _fit(rows: pa.Table, most: int | None, members: tuple[str, ...]) -> int:
    """Return how many of the rows a tar of at most `most` bytes holds: exactly, before anything is written."""
    if most is None:
        return rows.num_rows
    total = len(tar.END)
    for count, row in enumerate(rows.to_pylist()):
        sizes = [row["bytes"], *(len(c) for name, c in text_members(row, members).items() if name != "jpg")]
        total += sum(tar.padded(s) for s in sizes)
        if total > most and count:
            return count
    return rows.num_rows


def _name_shards(decided: Decided, tasks: list[WriteTask]) -> None:
    """Note in the table `decided` which shard each kept sample is in."""
    for task in tasks:
        decided.con.execute(
            "UPDATE decided SET shard = ? FROM read_parquet(?) p WHERE decided.uid = p.uid AND decided.decision = 'kept'",
            [task.name, task.plan],
        )


def write_ledger(con: duckdb.DuckDBPyConnection, output: str) -> None:
    """Write the ledger: one row per input sample, sorted by uid, in parts."""
    import pyarrow.parquet as pq

    folder = fs.join(output, "ledger")
    fs.make_dirs(folder)
    schema = arrow_schema(LEDGER)
    columns = ", ".join(f'"{name}"' for name, _ in LEDGER)
    reader = con.sql(f"SELECT {columns} FROM decided ORDER BY uid, source, input, row").to_arrow_reader(65536)
    for number, part in enumerate(_ledger_parts(reader, schema)):
        with fs.atomic_write(fs.join(folder, f"{number:05d}.parquet")) as file:
            pq.write_table(part, file, compression="zstd", row_group_size=65536)


def _ledger_parts(reader: Any, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the ledger in tables of about LEDGER_ROWS rows; an empty ledger is one empty table."""
    import pyarrow as pa

    pending = [schema.empty_table()]
    for batch in reader:
        pending.append(pa.Table.from_batches([batch]).cast(schema))
        if sum(t.num_rows for t in pending) >= LEDGER_ROWS:
            yield pa.concat_tables(pending).combine_chunks()
            pending = []
    if pending:
        yield pa.concat_tables(pending).combine_chunks()
