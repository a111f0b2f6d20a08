"""Files of statistics: one beside each shard, written once, counted anew where it is out of date."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.report.stats.counting import COUNTED, count_rows, version
from curate.report.stats.table import HASHES
from shards.core import fs
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FOLDER = "stats"
SHARES = (1 / 64, 1 / 16, 1 / 4, 1)  # of all hashes: where the row groups of captions are cut


def path_of(manifest: Manifest, entry: ShardEntry) -> str:
    """Return where a shard's statistics lie: beside the shard, whichever set it belongs to."""
    return fs.join(manifest.folder_of(entry), FOLDER, entry.name.removesuffix(".tar") + ".parquet")


def write_statistics(path: str, table: pa.Table, sidecar: str = "") -> None:
    """Write a shard's statistics; equal ones give equal bytes.

    Args:
        table: from `count_rows` or `merged`: ordered. A row group holds one kind of one source, or a share of its captions:
            a reader skips the others.
        sidecar: sha256 of the sidecar that was counted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    written = table.schema.with_metadata({"sidecar": sidecar, "version": version()})
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


def read_statistics(path: str, sidecar: str = "") -> pa.Table | None:
    """Return a shard's statistics; None where there are none, or they are of another sidecar or version."""
    import pyarrow.parquet as pq

    if not is_current(path, sidecar):
        return None
    with fs.open_read(path) as file:
        return pq.ParquetFile(file).read().replace_schema_metadata(None)


def is_current(path: str, sidecar: str) -> bool:
    """Return whether a file has the statistics of a sidecar (its sha256), counted as they are today."""
    import pyarrow.parquet as pq

    if not fs.exists(path):
        return False
    with fs.open_read(path) as file:
        found = pq.read_schema(file).metadata or {}
    return (found.get(b"sidecar"), found.get(b"version")) == (sidecar.encode(), version().encode())


@dataclass(frozen=True)
class CountTask:
    """Count the samples in use of one shard, the only one of `manifest`, into a file."""

    manifest: Manifest
    target: str


def rows_of(manifest: Manifest, entry: ShardEntry) -> pa.Table:
    """Return the columns COUNTED of a shard's samples in use. A foreign shard has no sidecar: its captions are read from
    the tar, and its source is the set's only one, else ""."""
    import pyarrow as pa

    with Shard(manifest, entry) as shard:
        rows = shard.sidecar(COUNTED)
        if rows.num_columns:
            return rows
        captions = [
            shard.read(i, "txt").decode("utf-8", "replace") if any(m.ext == "txt" for m in group) else None
            for i, group in enumerate(shard.groups)
        ]
    source = next(iter(manifest.sources)) if len(manifest.sources) == 1 else ""
    return pa.table({"source": pa.repeat(source, len(captions)), "caption": pa.array(captions, pa.string())})


def count_shard(task: CountTask) -> str:
    """Count one shard; runs in a worker. Returns where the statistics are."""
    entry = task.manifest.shards[0]
    write_statistics(task.target, count_rows(rows_of(task.manifest, entry)), entry.sidecar_sha256)
    return task.target


def parts(manifest: Manifest, aside: str, workers: int = 1, engine: str = "local") -> list[str]:
    """Return a file of statistics for each shard of a set, and count those that have none.

    What is counted of the set's own whole shards stays beside them; of cut shards, and of other sets' shards, it goes `aside`.

    Raises:
        RunError: a shard cannot be counted.
    """
    paths, tasks = [], []
    for number, entry in enumerate(manifest.shards):
        path = path_of(manifest, entry)
        if entry.use is None and is_current(path, entry.sidecar_sha256):
            paths.append(path)
            continue
        keep = entry.own and entry.use is None and bool(entry.sidecar_sha256)
        alone = dataclasses.replace(manifest, shards=(entry,))
        tasks.append(CountTask(alone, path if keep else fs.join(aside, f"{number:05d}.parquet")))
    for folder in {task.target.rpartition("/")[0] for task in tasks}:
        fs.make_dirs(folder)
    for outcome in map_unordered(count_shard, tasks, workers=min(workers, len(tasks)), engine=engine):
        if not isinstance(outcome, Done):
            raise RunError(f"{outcome.spec.manifest.shards[0].path}: {outcome.reason} while its captions were counted")
        paths.append(outcome.result)
    return paths
