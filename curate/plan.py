"""Between deciding and writing: which kept samples make which shard, in rank order, and the ledger of all inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from curate.decide import Decided
from curate.listing import scalar
from curate.measure import columns_of
from curate.recipe import Recipe
from curate.sorting import BATCH_ROWS, sorted_batches
from curate.table import POINTER, table_sha256
from curate.write import WriteTask, as_json, text_members
from shards import tar
from shards.core import fs
from shards.core.config import digest
from shards.schema import LEDGER, SIDECAR, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LEDGER_ROWS = 1_000_000
WRITER_VERSION = 3


def shard_size(recipe: Recipe, kept: int) -> int:
    """Return the samples of a shard: the recipe's, or kept/512 within 1,000 and 10,000."""
    return recipe.shards.samples or min(10_000, max(1_000, kept // 512))


# Samples of a build, with their ranks in it. Held-out ones have none in the ledger: among themselves they stand by rank key.
_RANKED = {
    "kept": "(SELECT place, rank FROM decided WHERE decision = 'kept')",
    "holdout": "(SELECT place, row_number() OVER (ORDER BY rank_key, uid) - 1 AS rank FROM decided WHERE decision = 'holdout')",
}


def members_of(recipe: Recipe, decided: Decided, decision: str = "kept") -> tuple[str, ...]:
    """Return the members that every sample gets: jpg, txt; cls where all are labelled; json on request."""
    labelled = scalar(decided.con, f"SELECT count(*) FROM decided WHERE decision = '{decision}' AND class_index < 0") == 0
    return ("jpg", "txt", *(("cls",) if labelled else ()), *(("json",) if recipe.json else ()))


def class_names(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Return the class names by index, of labelled sets."""
    rows = con.execute("SELECT class_index, min(class_name) FROM measured WHERE class_index >= 0 GROUP BY 1 ORDER BY 1").fetchall()
    names = dict(rows)
    return tuple(names.get(i, str(i)) for i in range(max(names, default=-1) + 1))


def plan(recipe: Recipe, decided: Decided, work: str, output: str, members: tuple[str, ...], decision: str = "kept") -> list[WriteTask]:
    """Cut the kept samples, or the held-out ones, in rank order, into shards; write each shard's rows to the work folder.

    The table `shards` (start, name) says at which rank each shard of kept samples begins.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows_planned = decided.kept if decision == "kept" else decided.held
    size = shard_size(recipe, rows_planned)
    folder = fs.join(work, "plans")
    fs.make_dirs(folder)
    pointer = ", ".join(f'"{name}"' for name, _ in POINTER)
    plugin_columns = "".join(f', "{name}"' for name, _ in columns_of(recipe))
    query = f"""
        SELECT uid AS key, uid, source, source_id, url, caption, caption_raw, coalesce(merged.captions, m.captions) AS captions,
               width, height, original_width, original_height, original_format, bytes, sha256, original_sha256,
               lpad(lower(to_hex(phash)), 16, '0') AS phash, information, rank, class_index AS class, licence, class_name, meta
               {plugin_columns}, {pointer}
        FROM measured m JOIN {_RANKED[decision]} d USING (place) LEFT JOIN merged USING (place)
    """
    batches = sorted_batches(decided.con, query, "rank", f"rank / {max(1, rows_planned)}", rows_planned, work)
    tasks, starts = [], [0]
    for number, rows in enumerate(_cut(batches, size, recipe.shards.bytes, members, columns_of(recipe))):
        key = digest([WRITER_VERSION, list(members), table_sha256(rows.drop_columns([name for name, _ in POINTER]))])
        path = fs.join(folder, f"{key}.parquet")
        with fs.atomic_write(path) as file:
            pq.write_table(rows, file, compression="zstd")
        tasks.append(WriteTask(path, key, output, f"{number:05d}", members))
        starts.append(starts[-1] + rows.num_rows)
    if decision != "kept":
        return tasks
    decided.con.register("planned", pa.table({"start": starts[:-1], "name": [task.name for task in tasks]}))
    decided.con.execute("CREATE OR REPLACE TABLE shards AS FROM planned")
    decided.con.unregister("planned")
    return tasks


def _cut(
    batches: Iterable[pa.RecordBatch], size: int, most: int | None, members: tuple[str, ...], columns: tuple[tuple[str, str], ...]
) -> Iterator[pa.Table]:
    """Yield the rows of one shard after the other: `size` samples, fewer where the tar would pass `most` bytes."""
    import pyarrow as pa

    wanted = arrow_schema((*SIDECAR, ("class_name", "string"), ("meta", "string"), *columns, *POINTER))
    left = wanted.empty_table()
    for batch in batches:
        left = pa.concat_tables([left, pa.Table.from_batches([batch]).cast(wanted)])
        while left.num_rows >= size:
            count = _fit(left.slice(0, size), most, members)
            yield left.slice(0, count)
            left = left.slice(count)
    while left.num_rows:
        count = _fit(left.slice(0, size), most, members)
        yield left.slice(0, count)
        left = left.slice(count)


def _fit(rows: pa.Table, most: int | None, members: tuple[str, ...]) -> int:
    """Return how many of the rows a tar of at most `most` bytes holds, one at least: exactly, before anything is written."""
    import numpy as np

    if most is None:
        return rows.num_rows
    total = len(tar.END) + np.cumsum(np.sum([tar.padded(sizes) for sizes in _sizes(rows, members)], axis=0))
    return max(1, int(np.searchsorted(total, most, side="right")))


def _sizes(rows: pa.Table, members: tuple[str, ...]) -> list[Any]:
    """Return the bytes of each member of each row, an array per member."""
    import numpy as np
    import pyarrow.compute as pc

    byte_counts = [rows["bytes"].to_numpy(), pc.binary_length(rows["caption"]).to_numpy()]
    if "cls" in members:
        byte_counts.append(pc.binary_length(rows["class"].cast("string")).to_numpy())
    if "json" in members:
        byte_counts.append(np.array([len(text_members(row, members)["json"]) for row in as_json(rows).to_pylist()]))
    return [sizes.astype(np.int64) for sizes in byte_counts]


def write_ledger(con: duckdb.DuckDBPyConnection, output: str, work: str) -> None:
    """Write the ledger: one row per input sample, sorted by uid, in parts. It names shards: plan first."""
    import pyarrow.parquet as pq

    folder = fs.join(output, "ledger")
    fs.make_dirs(folder)
    shards = con.sql("FROM shards ORDER BY start").to_arrow_table()
    query = """
        SELECT m.uid, m.source, source_id, input, row, decision::VARCHAR AS decision, reason::VARCHAR AS reason, d.detail,
               coalesce(replace(duplicate_of::VARCHAR, '-', ''), '') AS duplicate_of, rank, caption_raw
        FROM measured m JOIN decided d USING (place)
    """
    rows = scalar(con, "SELECT count(*) FROM decided")
    batches = sorted_batches(con, query, "uid, source, input, row", "('0x' || left(uid, 8))::BIGINT / 4294967296", rows, work)
    for number, part in enumerate(_ledger_parts(batches, shards)):
        with fs.atomic_write(fs.join(folder, f"{number:05d}.parquet")) as file:
            pq.write_table(part, file, compression="zstd", row_group_size=BATCH_ROWS)


def _ledger_parts(batches: Iterable[pa.RecordBatch], shards: pa.Table) -> Iterator[pa.Table]:
    """Yield the ledger in tables of about LEDGER_ROWS rows; an empty ledger is one empty table."""
    import pyarrow as pa

    schema = arrow_schema(LEDGER)
    starts, names = shards["start"].to_numpy(), shards["name"].combine_chunks()
    pending, rows = [schema.empty_table()], 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        table = table.append_column("shard", _shards_of(table, starts, names))
        pending.append(table.select(schema.names).cast(schema))
        rows += table.num_rows
        if rows >= LEDGER_ROWS:
            yield pa.concat_tables(pending)
            pending, rows = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _shards_of(table: pa.Table, starts: NDArray[np.int64], names: pa.Array) -> pa.Array:
    """Return the name of the shard that each row is in, "" for one that is not kept."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    number = np.searchsorted(starts, table["rank"].to_numpy(), side="right") - 1
    kept = pc.equal(table["decision"], "kept").to_numpy()
    return names.take(pa.array(number, mask=~kept)).fill_null("")
