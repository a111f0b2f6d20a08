"""Pass 3, write: bytes go from where they lie into shards, in rank order; a shard's statistics go beside it.

A shard's name and its plan's digest decide whether it is there already.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.report import stats
from curate.table import POINTER
from shards.core import fs
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError
from shards.manifest import STATISTICS, ShardEntry, statistics_of
from shards.writer import finished, write_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from shards.tar import Stored


@dataclasses.dataclass(frozen=True)
class WriteTask:
    """One shard: where its plan lies, what it is called, which members its samples have."""

    plan: str
    digest: str
    folder: str
    name: str
    members: tuple[str, ...]


def write(tasks: list[WriteTask], samples: int, workers: int, engine: str) -> list[ShardEntry]:
    """Write all shards that are not there yet and return their entries in order."""
    entries: dict[str, ShardEntry] = {}
    for folder in {task.folder for task in tasks}:
        fs.make_dirs(fs.join(folder, STATISTICS))
    with Progress("write", samples) as progress:
        for outcome in map_unordered(write_one, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"shard {outcome.spec.name}: {outcome.reason}", advice="run the same command again: it resumes")
            entries[outcome.spec.name] = outcome.result
            progress.add(outcome.result.samples)
    return [entries[task.name] for task in tasks]


def text_members(row: dict[str, Any], members: tuple[str, ...]) -> dict[str, bytes]:
    """Return a sample's members other than its image."""
    result = {"txt": row["caption"].encode()}
    if "cls" in members:
        result["cls"] = str(row["class"]).encode()
    if "json" in members:
        result["json"] = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
    return result


def as_json(rows: pa.Table) -> pa.Table:
    """Return rows as `.json` holds them: no pointers, and no nulls, since Hugging Face's reader takes a column's type from
    a few samples. Unknown is "", -1 or an empty list; truth is 1, 0, or -1 for unknown."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns, rows = [], rows.drop_columns([name for name, _ in POINTER])
    for column in rows.columns:
        kind = column.type
        if pa.types.is_boolean(kind):
            column, kind = column.cast(pa.int8()), pa.int8()
        unknown: Any = [] if pa.types.is_list(kind) else "" if pa.types.is_string(kind) else -1
        columns.append(pc.if_else(pc.is_null(column), pa.scalar(unknown, kind), column))
    return pa.table(columns, rows.column_names)


def write_one(task: WriteTask) -> ShardEntry:
    """Write one shard, and its statistics, unless they are there already; runs in a worker.

    Raises:
        RunError: the bytes of an image are not those that were measured.
    """
    import pyarrow.parquet as pq

    counts = statistics_of(task.folder, task.name)
    entry = finished(task.folder, task.name, task.digest)
    if entry and stats.is_current(counts, entry.sidecar_sha256):
        return entry
    with fs.open_read(task.plan) as file:
        rows = pq.ParquetFile(file).read()
    sidecar = rows.drop_columns([*(name for name, _ in POINTER), "class_name", "meta"])
    entry = entry or write_shard(task.folder, task.name, _samples(rows, task.members), sidecar, task.digest)
    stats.write_statistics(counts, stats.count_rows(sidecar.select(stats.COUNTED)), entry.sidecar_sha256)
    return entry


def _samples(rows: pa.Table, members: tuple[str, ...]) -> Iterator[tuple[str, dict[str, bytes | Stored]]]:
    """Yield a shard's samples. Few of a plan's columns are looked at, unless `.json` holds them all."""
    words = as_json(rows) if "json" in members else rows.select(["caption", "class"])
    pointers = (rows[name].to_pylist() for name in ("key", "source_id", "path", "offset", "size", "xxh3"))
    with fs.Ranges() as ranges:
        for key, source_id, path, offset, size, xxh3, row in zip(*pointers, words.to_pylist(), strict=True):
            yield key, {"jpg": _Image(ranges, source_id, path, offset, size, xxh3), **text_members(row, members)}


@dataclasses.dataclass(slots=True)
class _Image:
    """An image where it was measured; what is read there now must be the same."""

    ranges: fs.Ranges
    source_id: str
    path: str
    offset: int
    size: int
    xxh3: int

    def __len__(self) -> int:
        return self.size

    def read_into(self, place: memoryview) -> None:
        """Read the image's bytes into their place in a shard.

        Raises:
            RunError: they are gone, or are not those that were measured.
        """
        import xxhash

        try:
            self.ranges.read_into(place, self.path, self.offset)
        except OSError as error:
            advice = "bring it back, or remove the work folder and run again: what is there is measured anew"
            raise RunError(f"{self.path}: {error.strerror or error}: {self.source_id!r} was measured there", advice=advice) from error
        if xxhash.xxh3_64_intdigest(place) != self.xxh3:
            raise RunError(
                f"{self.path}: the bytes of {self.source_id!r} are not those that were measured",
                advice="the file changed since: run the same command again, it measures anew what changed",
            )
