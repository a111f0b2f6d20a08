"""The random sample of a report: which samples, from how few shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.report.stats.rows import rows_of
from shards.core import fs
from shards.manifest import Manifest
from shards.reader import Shard

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 5_000
COLUMNS = ("source", "uid", "caption", "width", "height", "bytes")
BY_RANK = "rank: the shards of a build are in the order of a random number of each sample, and the first ones are read"
BY_HASH = "hash: whole shards by the sha256 of their names, the samples in them by that of their keys; no finer draw than by shards"
BY_UID = "rank: the records whose random number, of seed 0 and the uid, is lowest"


@dataclass(frozen=True)
class Drawn:
    """Rows of the sample (COLUMNS with labels for sources, and `at`), how they were drawn, in words, and from which labels."""

    rows: pa.Table
    order: str
    labels: tuple[str, ...]


def schema() -> pa.Schema:
    """Return the columns of a sample."""
    import pyarrow as pa

    kinds = {"width": pa.int32(), "height": pa.int32(), "bytes": pa.int64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*COLUMNS, "at")])


def draw_shards(manifest: Manifest, at: int, labels: Mapping[str, str], counts: Mapping[str, int], most: int) -> Drawn:
    """Draw at most `most` samples of each source, from no more shards than needed.

    Args:
        at: the set's number in the names of pictures, SET/SHARD/POSITION.
        labels: of the set's sources; `counts`: how many samples each label has.
    """
    import pyarrow as pa

    left = {label: min(most, counts.get(label, 0)) for label in labels.values()}
    ranked = any(entry.sidecar_sha256 for entry in manifest.shards)
    found = [schema().empty_table()]
    for number in _in_ranks(manifest) if ranked else _in_hashes(manifest):
        if not any(left.values()):
            break
        rows = _of_shard(manifest, number, at, labels, left, ranked)
        for label, n in Counter(rows["source"].to_pylist()).items():
            left[label] -= n
        found.append(rows)
    return Drawn(pa.concat_tables(found), BY_RANK if ranked else BY_HASH, tuple(labels.values()))


def _of_shard(manifest: Manifest, number: int, at: int, labels: Mapping[str, str], left: Mapping[str, int], ranked: bool) -> pa.Table:
    """Return the first rows of a shard, of each source no more than are `left` to be drawn."""
    import pyarrow as pa

    with Shard(manifest, manifest.shards[number]) as shard:
        names = rows_of(shard, ("source",))["source"].to_pylist()
        order = range(len(shard)) if ranked else sorted(range(len(shard)), key=lambda i: _hash(shard.key(i)))
        taken, positions = Counter[str](), []
        for i in order:
            label = labels[names[i] or ""]
            if taken[label] < left[label]:
                taken[label] += 1
                positions.append(i)
        rows = rows_of(shard, COLUMNS, positions)
    sources = [labels[name or ""] for name in rows["source"].to_pylist()]
    columns = {name: rows[name] for name in rows.column_names} | {
        "source": pa.array(sources, pa.string()),
        "at": pa.array([f"{at}/{number}/{i}" for i in positions], pa.string()),
    }
    whole = {field.name: columns.get(field.name, pa.nulls(len(positions), field.type)) for field in schema()}
    return pa.table(whole).cast(schema())


def _in_ranks(manifest: Manifest) -> list[int]:
    """Return the shards in rank order; those of several builds take turns, by how far they are through their own."""
    folders = [manifest.folder_of(entry) for entry in manifest.shards]
    total, seen = Counter(folders), Counter[str]()
    through = []
    for folder in folders:
        through.append((seen[folder] + 0.5) / total[folder])
        seen[folder] += 1
    return sorted(range(len(folders)), key=lambda i: (through[i], i))


def _in_hashes(manifest: Manifest) -> list[int]:
    return sorted(range(len(manifest.shards)), key=lambda i: _hash(manifest.shards[i].path))


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def draw_native(paths: Sequence[str], labels: Mapping[str, str], most: int) -> Drawn:
    """Return the records of the lowest ranks among those that were drawn of each file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shards.sample import rank_key

    tables = []
    for path in paths:
        with fs.open_read(path) as file:
            tables.append(pq.read_table(file))
    rows = [row for table in tables for row in table.to_pylist()]
    rows.sort(key=lambda row: (rank_key(0, row["uid"]), row["uid"]))
    drawn = pa.Table.from_pylist([row | {"source": labels[row["source"]]} for row in rows[:most]], schema=schema())
    return Drawn(drawn, BY_UID, tuple(labels.values()))


def joined(parts: Sequence[Drawn], most: int) -> tuple[pa.Table, dict[str, object]]:
    """Return the sample of all parts, and how it was drawn, for the JSON."""
    import pyarrow as pa

    rows = pa.concat_tables([schema().empty_table(), *(part.rows for part in parts)])
    orders: dict[str, list[str]] = {}
    for part in parts:
        orders.setdefault(part.order, []).extend(part.labels)
    said = [order if len(orders) == 1 else f"{', '.join(labels)}: {order}" for order, labels in orders.items()]
    return rows, {"most": most, "rows": rows.num_rows, "order": "; ".join(said)}
