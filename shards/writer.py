"""Write one shard: the tar, its DALI index and its sidecar, each appearing whole or not at all.

The sidecar is renamed last, so a shard whose `.parquet` is there is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING

from shards import tar
from shards.core import fs
from shards.core.errors import UsageError
from shards.manifest import ShardEntry
from shards.sample import KEY_RULE

if TYPE_CHECKING:
    import pyarrow as pa

PLAN_KEY = b"plan"


class _Hashing:
    """A file that counts and hashes what is written through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.bytes = file, hashlib.sha256(), 0

    def write(self, content: bytes | memoryview) -> int:
        self.sha256.update(content)
        self.bytes += len(content)
        return self.file.write(content)


def write_shard(
    folder: str, name: str, samples: Iterable[tuple[str, Mapping[str, bytes | tar.Stored]]], sidecar: pa.Table, plan: str = ""
) -> ShardEntry:
    """Write `name.tar`, `name.idx` and `name.parquet` and return the manifest's entry.

    Args:
        samples: (key, {extension: content}) in order; every sample has the same extensions, jpg first.
        sidecar: one row per sample, in the same order.
        plan: digest of what the shard should hold, kept in the sidecar so that a resumed build knows it.

    Raises:
        UsageError: a key that some reader could not read, or members that differ from sample to sample.
    """
    stem = fs.join(folder, name)
    lines: list[str] = []
    with fs.atomic_write(stem + ".tar") as file:
        out = _Hashing(file)
        writer = tar.TarWriter(out)  # type: ignore[arg-type]
        extensions: tuple[str, ...] | None = None
        for key, members in samples:
            if not KEY_RULE.fullmatch(key):
                raise UsageError(f"{name}: key {key!r}", "letters, digits, '_' and '-', at most 90")
            if extensions is not None and tuple(members) != extensions:
                raise UsageError(f"{name}: sample {key} has members {tuple(members)}", f"{extensions}, as the others")
            extensions = tuple(members)
            lines.append(" ".join(_add(writer, extension, f"{key}.{extension}", content) for extension, content in members.items()))
        writer.close()
    if len(lines) != sidecar.num_rows:
        raise UsageError(f"{name}: {len(lines)} samples", f"{sidecar.num_rows}, as the sidecar says")
    index = tar.index_text(lines)
    fs.write_text(stem + ".idx", index)
    sidecar_sha256 = write_sidecar(stem + ".parquet", sidecar, plan)
    return ShardEntry(
        path=f"{name}.tar",
        samples=len(lines),
        bytes=out.bytes,
        sha256=out.sha256.hexdigest(),
        index_sha256=hashlib.sha256(index.encode()).hexdigest(),
        sidecar_sha256=sidecar_sha256,
    )


def _add(writer: tar.TarWriter, extension: str, name: str, content: bytes | tar.Stored) -> str:
    """Append a member; returns what the index says of it."""
    return f"{extension} {writer.add(name, content)} {len(content)} {name}"


def write_sidecar(path: str, table: pa.Table, plan: str = "") -> str:
    """Write a sidecar and return its sha256. Equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), PLAN_KEY: plan.encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", row_group_size=16384)
    content = sink.getvalue()
    with fs.atomic_write(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def finished(folder: str, name: str, plan: str) -> ShardEntry | None:
    """Return the entry of a shard that is whole and was written for this plan, else None."""
    import pyarrow.parquet as pq

    stem = fs.join(folder, name)
    if not all(fs.exists(stem + suffix) for suffix in (".tar", ".idx", ".parquet")):
        return None
    with fs.open_read(stem + ".parquet") as file:
        parquet = pq.ParquetFile(file)
        if (parquet.schema_arrow.metadata or {}).get(PLAN_KEY) != plan.encode():
            return None
        rows = parquet.metadata.num_rows
    return ShardEntry(
        path=f"{name}.tar",
        samples=rows,
        bytes=fs.size(stem + ".tar"),
        sha256=fs.sha256(stem + ".tar"),
        index_sha256=fs.sha256(stem + ".idx"),
        sidecar_sha256=fs.sha256(stem + ".parquet"),
    )
