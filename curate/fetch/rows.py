"""Every URL ends as a row with a status: a shard's account, and the pool's table over all rounds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.fetch import state
from curate.fetch.normalise import shard_name
from curate.fetch.pool import TABLE, image_members
from curate.fetch.secrecy import Barred, hide, is_secret
from shards.core import fs
from shards.sample import uid_of

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.fetch.state import State

RETRIED = ("failed_to_download", "failed_to_resize", "lost")
_HTTP = re.compile(r"HTTP \d+")
_SPECIFIC = re.compile(r"(?<!opted out)[:,]| after \d")
_INPUT = ("source_id", "url", "url_index", "caption", "row")


def table_schema() -> pa.Schema:
    """Return the schema of fetch.parquet: the columns of `PoolRow` and what else is known. `tar` is relative to the pool."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    kinds: dict[str, pa.DataType] = dict.fromkeys(("source_id", "url", "url_index", "caption", "status", "detail", "tar"), text)
    kinds |= {"url_index": pa.int32(), "offset": number, "size": number, "row": number, "shard": pa.int32(), "key": text}
    kinds |= dict.fromkeys(("width", "height", "original_width", "original_height"), pa.int32())
    return pa.schema([*kinds.items(), ("sha256", text), ("uid", text)])


def first_key(shard: int, samples_per_shard: int) -> int:
    """Return the number that img2dataset gives the first sample of a shard as its key."""
    return shard * 10 ** math.ceil(math.log10(samples_per_shard))


def account(shard: int, rows: list[dict[str, Any]], folder: str, samples_per_shard: int, source_name: str) -> pa.Table:
    """Return the status of every row of a shard that img2dataset has just written into `folder`.

    A row that it left out is lost; so is a success whose image is not in the tar. What must stay secret keeps its uid alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = shard_name(shard)
    members, _ = image_members(fs.join(folder, name + ".tar"))
    first = first_key(shard, samples_per_shard)
    written = {int(row["key"]) - first: row for row in pq.read_table(fs.join(folder, name + ".parquet")).to_pylist()}
    result = []
    for place, asked in enumerate(rows):
        row = blank(asked, shard, "lost", "img2dataset left no row")
        row["uid"] = uid_of(source_name, asked["source_id"])
        if (sample := written.get(place)) is not None:
            row |= {k: sample[k] for k in ("key", "status", "width", "height", "original_width", "original_height", "sha256")}
            row["detail"] = sample["error_message"] or ""
        if row["status"] == "success":
            row |= _bytes(name + ".tar", members.get(str(row["key"])))
        if is_secret(row["detail"]):
            hide(row)
        result.append(row)
    return pa.Table.from_pylist(result, table_schema())


def _bytes(tar: str, member: Any) -> dict[str, Any]:
    if member is None:
        return {"status": "lost", "detail": f"no image in {tar}"}
    return {"tar": tar, "offset": member.offset, "size": member.size}


def blank(asked: dict[str, Any], shard: int, status: str, detail: str) -> dict[str, Any]:
    """Return the row of a URL without an image."""
    row: dict[str, Any] = {name: asked[name] for name in _INPUT}
    return row | {"shard": shard, "status": status, "detail": detail, "tar": "", "offset": 0, "size": 0}


def statuses(pool: str, known: State, killed: dict[int, str], barred: Barred) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of every URL in rank order, shard by shard; of several rounds, the latest success or failure.

    Args:
        pool: the pool's folder.
        known: its state.
        killed: shards whose worker died, and how; their rows are lost.
        barred: what is not to be asked for, nor to be named before anybody would ask.
    """
    source_name = str(known.settings["name"])
    later: dict[int, dict[str, Any]] = {}
    for number in range(1, len(known.rounds)):
        for shard in known.shards(number):
            for row in shard_rows(pool, shard, killed, barred, source_name):
                if row["status"] != "image_missing":
                    later[row["row"]] = row
    for shard in known.shards(0):
        yield [later.get(row["row"], row) for row in shard_rows(pool, shard, killed, barred, source_name)]


def shard_rows(pool: str, shard: int, killed: dict[int, str], barred: Barred, source_name: str) -> list[dict[str, Any]]:
    """Return a shard's rows with their status; of a shard that is not done, image_missing or lost, or why it will not be asked for."""
    import pyarrow.parquet as pq

    if state.is_done(pool, shard):
        return list(pq.read_table(state.rows_path(pool, shard)).to_pylist())
    status, detail = ("lost", killed[shard]) if shard in killed else ("image_missing", "not asked for yet")
    rows = [blank(asked, shard, status, detail) for asked in pq.read_table(state.input_path(pool, shard)).to_pylist()]
    for row in rows:
        row["uid"] = uid_of(source_name, row["source_id"])
        if why := barred.why_row(row, source_name):
            row |= {"status": "failed_to_download", "detail": why}
            hide(row)
    return rows


def write_table(pool: str, known: State, killed: dict[int, str], barred: Barred) -> tuple[Counter[str], Counter[str]]:
    """Write fetch.parquet; return the numbers of URLs by status, and of those without an image by kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts, kinds = Counter[str](), Counter[str]()
    with fs.atomic_write(fs.join(pool, TABLE)) as file, pq.ParquetWriter(file, table_schema()) as writer:
        for rows in statuses(pool, known, killed, barred):
            counts.update(row["status"] for row in rows)
            kinds.update(kind_of(row["detail"]) for row in rows if row["status"] in RETRIED)
            writer.write_table(pa.Table.from_pylist(rows, table_schema()))
    return counts, kinds


def kind_of(detail: str) -> str:
    """Return what a detail has in common with others: `HTTP 404`, or what stands before its first colon, comma, or time."""
    match = _HTTP.match(detail)
    return match[0] if match else _SPECIFIC.split(detail, maxsplit=1)[0]
