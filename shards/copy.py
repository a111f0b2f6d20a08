"""Write the samples in use of some shards as shards of their own: what other readers, and a take-down, need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards import layers
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Lost, map_unordered
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard
from shards.sample import KEY_RULE
from shards.writer import finished, write_shard

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1


@dataclass(frozen=True)
class CopyTask:
    """One shard to write: from which shards (a manifest of one shard each), where, and under which name.

    `keys`: the samples' keys there, in order; empty where they keep theirs.
    """

    pieces: tuple[Manifest, ...]
    folder: str
    name: str
    keys: tuple[str, ...] = ()


def piece(manifest: Manifest, entry: ShardEntry) -> Manifest:
    """Return a manifest of one shard, small enough to be part of a task."""
    return dataclasses.replace(manifest, shards=(entry,), sources={}, parents=(), licences={}, classes=(), notes={})


def copy_shards(tasks: Sequence[CopyTask], workers: int, engine: str) -> list[ShardEntry]:
    """Write shards and return their entries in order; those that a killed try has written are not written again."""
    made: dict[str, ShardEntry] = {}
    with Progress("copied", len(tasks), "shards") as progress:
        for outcome in map_unordered(copy_shard, tasks, workers=max(1, min(workers, len(tasks))), engine=engine):
            if isinstance(outcome, Lost):
                raise RunError(f"shard {outcome.spec.name}: {outcome.reason}", advice="run the same command again: it resumes")
            made[outcome.spec.name] = outcome.result
            progress.add()
    for folder in dict.fromkeys(task.folder for task in tasks):
        sources = [m.folder_of(m.shards[0]) for task in tasks if task.folder == folder for m in task.pieces]
        layers.copy_infos(list(dict.fromkeys(sources)), folder)
    return [made[task.name] for task in tasks]


def copy_shard(task: CopyTask) -> ShardEntry:
    """Write one shard, with its sidecar and its layers' rows; runs in a worker.

    A shard without a sidecar gets one of its keys.

    Raises:
        UsageError: a key, or a set of members, that a shard of ours cannot have.
    """
    import pyarrow as pa

    plan = digest([VERSION, [[dataclasses.replace(e, path=e.name, index=None) for e in m.shards] for m in task.pieces], *task.keys])
    if entry := finished(task.folder, task.name, plan):
        return entry
    opened = [Shard(m, m.shards[0]) for m in task.pieces]
    try:
        keys = task.keys or tuple(shard.key(i) for shard in opened for i in range(len(shard)))
        if wrong := next((key for key in keys if not KEY_RULE.fullmatch(key)), ""):
            raise UsageError(f"{task.name}: key {fs.printable(wrong)!r}", "letters, digits, '_' and '-', at most 90")
        rows = pa.concat_tables([_rows(shard) for shard in opened], promote_options="default")
        if task.keys:
            rows = rows.set_column(rows.column_names.index("key"), "key", pa.array(keys, pa.string()))
        fs.make_dirs(task.folder)
        layers.copy_layers([(s.manifest, s.entry) for s in opened], task.folder, task.name)
        return write_shard(task.folder, task.name, _samples(opened, keys), rows, plan)
    finally:
        for shard in opened:
            shard.close()


def _samples(opened: Sequence[Shard], keys: Sequence[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    names = iter(keys)
    for shard in opened:
        for group in shard.groups:
            yield next(names), {m.ext: shard.read_range(m.offset, m.size) for m in group}


def _rows(shard: Shard) -> pa.Table:
    import pyarrow as pa

    table = shard.sidecar()
    return table if table.num_columns else pa.table({"key": [shard.key(i) for i in range(len(shard))]})
