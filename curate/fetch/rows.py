"""Every URL ends as a row with a status: a shard's account, and the pool's table over all rounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.fetch import state
from curate.fetch.normalise import shard_name
from curate.fetch.pool import TABLE, image_members
from shards.core import fs

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.fetch.state import State

RETRIED = ("failed_to_download", "failed_to_resize", "lost")
OPTED_OUT = "opted out"
_INPUT = ("source_id", "url", "url_index", "caption", "row")


def table_schema() -> pa.Schema:
    """Return the schema of fetch.parquet: the columns of `PoolRow` and what else is known. `tar` is relative to the pool."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    kinds: dict[str, pa.DataType] = dict.fromkeys(("source_id", "url", "url_index", "caption", "status", "detail", "tar"), text)
    kinds |= {"url_index": pa.int32(), "offset": number, "size": number, "row": number, "shard": pa.int32(), "key": text}
    kinds |= dict.fromkeys(("width", "height", "original_width", "original_height"), pa.int32())
    return pa.schema([*kinds.items(), ("sha256", text)])


def account(shard: int, rows: str, folder: str, samples_per_shard: int) -> pa.Table:
    """Return the status of every row of a shard that img2dataset has just written into `folder`.

    A row that it left out is lost; so is a success whose image is not in the tar.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = shard_name(shard)
    members, _ = image_members(fs.join(folder, name + ".tar"))
    first = shard * 10 ** math.ceil(math.log10(samples_per_shard))  # img2dataset's keys are first + place
    written = {int(row["key"]) - first: row for row in pq.read_table(fs.join(folder, name + ".parquet")).to_pylist()}
    result = []
    for place, given in enumerate(pq.read_table(rows).to_pylist()):
        row = blank(given, shard, "lost", "img2dataset left no row")
        if (found := written.get(place)) is not None:
            row |= {k: found[k] for k in ("key", "status", "width", "height", "original_width", "original_height", "sha256")}
            row["detail"] = found["error_message"] or ""
        if row["status"] == "success":
            row |= _bytes(name + ".tar", members.get(str(row["key"])))
        result.append(row)
    return pa.Table.from_pylist(result, table_schema())


def _bytes(tar: str, member: Any) -> dict[str, Any]:
    if member is None:
        return {"status": "lost", "detail": f"no image in {tar}"}
    return {"tar": tar, "offset": member.offset, "size": member.size}


def blank(given: dict[str, Any], shard: int, status: str, detail: str) -> dict[str, Any]:
    """Return the row of a URL without an image."""
    row: dict[str, Any] = {name: given[name] for name in _INPUT}
    return row | {"shard": shard, "status": status, "detail": detail, "tar": "", "offset": 0, "size": 0}


def statuses(pool: str, known: State, killed: dict[int, str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of every URL in rank order, shard by shard; of several rounds, the latest success or failure.

    Args:
        pool: the pool's folder.
        known: its state.
        killed: shards whose worker died, and how; their rows are lost.
    """
    later: dict[int, dict[str, Any]] = {}
    for number in range(1, len(known.rounds)):
        for shard in known.shards(number):
            for row in shard_rows(pool, shard, killed):
                if row["status"] != "image_missing":
                    later[row["row"]] = row
    for shard in known.shards(0):
        yield [later.get(row["row"], row) for row in shard_rows(pool, shard, killed)]


def shard_rows(pool: str, shard: int, killed: dict[int, str]) -> list[dict[str, Any]]:
    """Return a shard's rows with their status; of a shard that is not done, image_missing or lost."""
    import pyarrow.parquet as pq

    if state.is_done(pool, shard):
        return list(pq.read_table(state.rows_path(pool, shard)).to_pylist())
    status, detail = ("lost", killed[shard]) if shard in killed else ("image_missing", "not asked for yet")
    return [blank(given, shard, status, detail) for given in pq.read_table(state.input_path(pool, shard)).to_pylist()]


def write_table(pool: str, known: State, killed: dict[int, str]) -> tuple[Counter[str], Counter[str]]:
    """Write fetch.parquet; return the numbers of URLs by status and of failures by detail."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts, details = Counter[str](), Counter[str]()
    with fs.atomic_write(fs.join(pool, TABLE)) as file, pq.ParquetWriter(file, table_schema()) as writer:
        for rows in statuses(pool, known, killed):
            counts.update(row["status"] for row in rows)
            details.update(row["detail"] for row in rows if row["status"] in RETRIED)
            writer.write_table(pa.Table.from_pylist(rows, table_schema()))
    return counts, details
