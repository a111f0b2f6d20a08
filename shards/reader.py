"""Read the samples of a manifest, in order or by position, a shard at a time: memory is one shard's index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shards import tar
from shards.core import fs
from shards.core.errors import RunError
from shards.manifest import Manifest, ShardEntry
from shards.sample import Sample

if TYPE_CHECKING:
    import pyarrow as pa


class Shard:
    """One open shard: its index in memory, its bytes on demand. Honours the entry's `use` window.

    Reading is thread-safe (positioned reads on one descriptor).
    """

    def __init__(self, manifest: Manifest, entry: ShardEntry) -> None:
        self.manifest, self.entry = manifest, entry
        self.path = manifest.path_of(entry)
        start, stop = entry.window
        whole = tar.read_index(self.path)
        if entry.samples != len(whole):
            raise RunError(f"{self.path}: {len(whole)} samples", f"{entry.samples}, as the manifest says", "shards verify")
        self.groups = whole[start:stop]
        self._descriptor = None if fs.is_remote(self.path) else os.open(self.path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.groups)

    def key(self, i: int) -> str:
        """Return the key of sample i of the window."""
        return self.groups[i][0].key

    def read(self, i: int, ext: str) -> bytes:
        """Return one member's bytes.

        Raises:
            RunError: the sample has no such member, or the tar is shorter than its index says.
        """
        member = next((m for m in self.groups[i] if m.ext == ext), None)
        if member is None:
            found = ", ".join(m.ext for m in self.groups[i])
            raise RunError(f"{self.path}: sample {self.key(i)} has no .{ext}", found)
        return self.read_range(member.offset, member.size)

    def read_range(self, offset: int, length: int) -> bytes:
        """Return bytes of the tar by position."""
        file = self._descriptor
        content = fs.read_range(self.path, offset, length) if file is None else os.pread(file, length, offset)
        if len(content) != length:
            raise RunError(f"{self.path}: {len(content)} of {length} bytes at {offset}", advice="shards verify")
        return content

    def sidecar(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the sidecar rows of the window, all columns or some. A shard without one has no columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.manifest.path_of(self.entry, ".parquet")
        # A foreign set's .parquet (img2dataset's) has a row per attempted URL: only a sidecar of ours is one.
        if not self.entry.sidecar_sha256 or not fs.exists(path):
            return pa.table({})
        with fs.open_read(path) as file:
            table = pq.read_table(file, columns=list(columns) if columns else None)
        return table.slice(self.entry.window[0], self.entry.used)

    def close(self) -> None:
        """Close the tar."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_samples(manifest: Manifest, extensions: Sequence[str] | None = None, columns: Sequence[str] = ()) -> Iterator[Sample]:
    """Yield every sample of a manifest in order.

    Args:
        extensions: members to read; all where none are named.
        columns: sidecar columns to hand along in `Sample.row`.
    """
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            rows: list[dict[str, Any]] = shard.sidecar(columns).to_pylist() if columns else []
            for i, group in enumerate(shard.groups):
                wanted = [m for m in group if extensions is None or m.ext in extensions]
                members = {m.ext: shard.read_range(m.offset, m.size) for m in wanted}
                yield Sample(shard.key(i), members, rows[i] if rows else {})
