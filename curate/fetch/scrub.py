"""What was listed after it had been fetched is taken out of the pool: out of the tars, their tables, and the accounts of rows."""

from __future__ import annotations

import os
import tarfile
from typing import Any

from curate.fetch import state
from curate.fetch.normalise import shard_name
from curate.fetch.secrecy import Barred, hide, is_secret
from shards import tar
from shards.core import fs
from shards.header import BLOCK

REMOVED = "__removed__"  # webdataset passes over names of this form


def scrub(pool: str, shards: range, barred: Barred, source_name: str) -> int:
    """Take what stands on a list out of all shards that are done; return the number of rows.

    Each step may be repeated: the account of rows, which says what is there, changes last.
    """
    count = 0
    for shard in shards if barred.is_any else ():
        if state.is_done(pool, shard):
            count += _scrub_shard(pool, shard, barred, source_name)
    return count


def _scrub_shard(pool: str, shard: int, barred: Barred, source_name: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = state.rows_path(pool, shard)
    table = pq.read_table(path)
    rows = table.to_pylist()
    whys: dict[int, str] = {}
    for place, row in enumerate(rows):
        if not is_secret(row["detail"]) and (why := barred.why_row(row, source_name)):
            whys[place] = why
    if not whys:
        return 0
    name = fs.join(pool, shard_name(shard))
    _blank(name + ".tar", [rows[place]["offset"] for place in whys if rows[place]["tar"]])
    _rewrite(name + ".parquet", {rows[place]["key"]: why for place, why in whys.items()})
    gone = {"status": "failed_to_download", "tar": "", "offset": 0, "size": 0, "sha256": None}
    for place, why in whys.items():
        rows[place] |= gone | {"detail": why}
        hide(rows[place])
    with fs.atomic_write(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    return len(whys)


def _blank(path: str, offsets: list[int]) -> None:
    """Overwrite samples, each known by where its picture's bytes begin, with one member of zeros; all other places stay."""
    if not offsets:
        return
    places: dict[int, str] = {}
    ends: dict[str, int] = {}
    with fs.open_read(path) as file:
        for member in tar.walk(file, path):
            places[member.offset] = member.key
            ends[member.key] = member.offset + -(-member.size // BLOCK) * BLOCK
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for offset in offsets:
            if offset not in places or places[offset] == REMOVED:
                continue
            header = tarfile.TarInfo(REMOVED)
            header.size = ends[places[offset]] - offset
            os.pwrite(descriptor, header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size), offset - BLOCK)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rewrite(path: str, whys: dict[str, str]) -> None:
    """Leave of rows in img2dataset's own table, known by their keys, the key and why."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        if row["key"] in whys:
            row |= {"status": "failed_to_download", "error_message": whys[row["key"]], "sha256": None}
            hide(row)
    with fs.atomic_write(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
