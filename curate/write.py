"""Pass 3, write: bytes go from where they lie into shards, in rank order.

The plan says which samples make which shard; a shard's name and its plan's digest decide whether it is there already.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.config import Recipe
from curate.decide import Decided
from curate.listing import scalar
from curate.measure import columns_of
from curate.table import POINTER
from shards import tar
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError
from shards.manifest import ShardEntry
from shards.schema import LEDGER, SIDECAR, arrow_schema
from shards.writer import finished, write_shard

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LEDGER_ROWS = 1_000_000
WRITER_VERSION = 1


@dataclasses.dataclass(frozen=True)
class WriteTask:
    """One shard: where its plan lies, what it is called, which members its samples have."""

    plan: str
    digest: str
    folder: str
    name: str
    members: tuple[str, ...]


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


def write(
    recipe: Recipe, decided: Decided, members: tuple[str, ...], work: str, output: str, workers: int, engine: str
) -> list[ShardEntry]:
    """Write all shards that are not there yet and return their entries in order."""
    tasks = plan(recipe, decided, work, output, members)
    entries: dict[str, ShardEntry] = {}
    with Progress("write", decided.kept) as progress:
        for outcome in map_unordered(write_one, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"shard {outcome.spec.name}: {outcome.reason}", advice="run the same command again: it resumes")
            entries[outcome.spec.name] = outcome.result
            progress.add(outcome.result.samples)
    return [entries[task.name] for task in tasks]


def plan(recipe: Recipe, decided: Decided, work: str, output: str, members: tuple[str, ...]) -> list[WriteTask]:
    """Cut the kept samples, in rank order, into shards; write each shard's rows to the work folder."""
    import pyarrow.parquet as pq

    size = shard_size(recipe, decided.kept)
    folder = fs.join(work, "plans")
    fs.make_dirs(folder)
    columns = ", ".join(f'd."{name}"' for name, _ in columns_of(recipe.filters))
    reader = decided.con.sql(f"""
        SELECT d.uid AS key, d.uid, d.source, d.source_id, d.url, d.caption, d.caption_raw, d.captions, d.width, d.height,
               d.original_width, d.original_height, d.original_format, d.bytes, d.sha256, d.original_sha256,
               lpad(lower(to_hex(d.phash)), 16, '0') AS phash, d.rank, d.class_index AS class, d.licence, d.class_name, d.meta,
               {columns + ", " if columns else ""} d.path, d."offset", d.size
        FROM decided d WHERE decision = 'kept' ORDER BY rank
    """).to_arrow_reader(size)
    tasks = []
    for number, rows in enumerate(_cut(reader, size, recipe.shards.bytes, members, columns_of(recipe.filters))):
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


def text_members(row: dict[str, Any], members: tuple[str, ...]) -> dict[str, bytes]:
    """Return a sample's members other than its image."""
    result = {"txt": row["caption"].encode()}
    if "cls" in members:
        result["cls"] = str(row["class"]).encode()
    if "json" in members:
        result["json"] = json.dumps(_json_row(row), ensure_ascii=False, sort_keys=True).encode()
    return result


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the sidecar row without nulls, which Hugging Face's reader cannot hold: unknown is "" or -1."""
    own = {k: v for k, v in row.items() if k not in {name for name, _ in POINTER}}
    return {k: (-1 if k in ("class", "rank") or "." in k else "") if v is None else v for k, v in own.items()}


def _name_shards(decided: Decided, tasks: list[WriteTask]) -> None:
    """Note in the table `decided` which shard each kept sample is in."""
    for task in tasks:
        decided.con.execute(
            "UPDATE decided SET shard = ? FROM read_parquet(?) p WHERE decided.uid = p.uid AND decided.decision = 'kept'",
            [task.name, task.plan],
        )


def write_one(task: WriteTask) -> ShardEntry:
    """Write one shard unless it is there already; runs in a worker.

    Raises:
        RunError: the bytes of an image are not those that were measured.
    """
    import pyarrow.parquet as pq

    if entry := finished(task.folder, task.name, task.digest):
        return entry
    with fs.open_read(task.plan) as file:
        rows = pq.read_table(file)
    sidecar = rows.drop_columns([*(name for name, _ in POINTER), "class_name", "meta"])
    return write_shard(task.folder, task.name, _samples(rows.to_pylist(), task.members), sidecar, task.digest)


def _samples(rows: list[dict[str, Any]], members: tuple[str, ...]) -> Iterator[tuple[str, dict[str, bytes]]]:
    import hashlib

    for row in rows:
        content = fs.read_range(row["path"], row["offset"], row["size"])
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise RunError(
                f"{row['path']}: the bytes of {row['source_id']!r} (uid {row['uid']}) are not those that were measured",
                advice="the file changed since: run the same command again, it measures anew what changed",
            )
        yield row["key"], {"jpg": content, **text_members(row, members)}


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
