"""Files of statistics: one beside each shard, written once, counted anew where it is out of date."""

from __future__ import annotations

import dataclasses
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.report.stats.counting import COUNTED, count_rows, version
from curate.report.stats.rows import rows_of
from curate.report.stats.table import HASHES
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered, prepare
from shards.core.errors import RunError
from shards.manifest import Manifest, ShardEntry, statistics_of
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ASIDE = "statistics"  # folder in a work folder for those of shards that are not ours, or cut
WARM = "curate.report.stats.warm"  # what workers are forked off with
SHARES = (1 / 64, 1 / 16, 1 / 4, 1)  # of all hashes: where the row groups of captions are cut


def path_of(manifest: Manifest, entry: ShardEntry) -> str:
    """Return where a shard's statistics lie: beside the shard, whichever set it belongs to."""
    return statistics_of(manifest.folder_of(entry), entry.name)


def write_statistics(path: str, table: pa.Table, counted: str = "") -> None:
    """Write a shard's statistics; equal ones give equal bytes.

    Args:
        table: from `count_rows` or `merged`: ordered. A row group holds one kind of one source, or a share of its captions:
            a reader skips the others.
        counted: the sha256 of what was counted; see the function of this name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    written = table.schema.with_metadata({"counted": counted, "version": version()})
    # Sorted text packs best as what it adds to the row before, sorted hashes byte by byte.
    coding: dict[str, Any] = {
        "use_dictionary": ["source", "kind", "count"],
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "value": "BYTE_STREAM_SPLIT"},
    }
    with pq.ParquetWriter(sink, written, compression="zstd", **coding) as writer:
        for start, stop in itertools.pairwise(_cuts(table).tolist()):
            writer.write_table(table.slice(start, stop - start).replace_schema_metadata(written.metadata))
    fs.write_bytes(path, sink.getvalue().to_pybytes())


def _cuts(table: pa.Table) -> NDArray[np.int64]:
    """Return where the row groups begin, and the end: at each kind of each source, and at SHARES of the hashes of its captions."""
    import numpy as np
    import pyarrow.compute as pc

    names = np.asarray(pc.binary_join_element_wise(table["kind"], table["source"], "\0"))
    of_captions = np.asarray(pc.equal(table["kind"], "caption"))
    part = np.where(of_captions, np.searchsorted([share * HASHES for share in SHARES], np.asarray(table["value"]), side="right"), 0)
    new = np.flatnonzero((names[1:] != names[:-1]) | (part[1:] != part[:-1])) + 1
    return np.unique([0, *new.tolist(), len(names)])


def read_statistics(path: str, counted: str = "") -> pa.Table | None:
    """Return a shard's statistics; None where there are none, or they are of another shard or version."""
    import pyarrow.parquet as pq

    if not is_current(path, counted):
        return None
    with fs.open_read(path) as file:
        return pq.ParquetFile(file).read().replace_schema_metadata(None)


def is_current(path: str, counted: str) -> bool:
    """Return whether a file has the statistics of what has this sha256, counted as they are today."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not fs.exists(path):
        return False
    try:
        with fs.open_read(path) as file:
            found = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid:  # torn: it is counted anew
        return False
    return (found.get(b"counted"), found.get(b"version")) == (counted.encode(), version().encode())


@dataclass(frozen=True)
class CountTask:
    """Count the samples in use of one shard, the only one of `manifest`, into a file."""

    manifest: Manifest
    target: str


def counted(entry: ShardEntry) -> str:
    """Return the sha256 of what is counted of a shard: of its sidecar, or where it has none, of the tar."""
    return entry.sidecar_sha256 or entry.sha256


def count_shard(task: CountTask) -> str:
    """Count one shard; runs in a worker. Returns where the statistics are."""
    entry = task.manifest.shards[0]
    with Shard(task.manifest, entry) as shard:
        write_statistics(task.target, count_rows(rows_of(shard, COUNTED)), counted(entry))
    return task.target


def parts(manifest: Manifest, aside: str, workers: int = 1, engine: str = "local", *, beside: bool = True) -> list[str]:
    """Return a file of statistics for each shard of a set, and count those that have none.

    Of the set's own whole shards they lie beside them; of cut shards, and of other sets' shards that have none, they go `aside`,
    under names that tell what was counted: the folder may be kept for the next time, and shared by sets.

    Args:
        beside: whether files may be written beside the shards.

    Raises:
        RunError: a shard cannot be counted.
    """
    paths, tasks = [], []
    own = beside and _is_writable(manifest.folder)
    for entry in manifest.shards:
        path = path_of(manifest, entry)
        if entry.use is not None or not ((entry.own and own) or is_current(path, counted(entry))):
            path = fs.join(aside, digest([counted(entry), entry.use])[:32] + ".parquet")
        if is_current(path, counted(entry)):
            paths.append(path)
        else:
            tasks.append(CountTask(dataclasses.replace(manifest, shards=(entry,)), path))
    for folder in {task.target.rpartition("/")[0] for task in tasks}:
        fs.make_dirs(folder)
    if not tasks:
        return paths
    prepare([WARM], engine=engine)
    with Progress("counted", len(tasks), "shards") as progress:
        for outcome in map_unordered(count_shard, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"{outcome.spec.manifest.shards[0].path}: {outcome.reason} while its samples were counted")
            paths.append(outcome.result)
            progress.add()
    return paths


def _is_writable(folder: str) -> bool:
    return fs.is_remote(folder) or os.access(folder, os.W_OK)
