"""Read the samples of a manifest, in order or by position, a shard at a time: memory is one shard's index."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shards import layers, tar
from shards.core import fs
from shards.core.errors import RunError
from shards.manifest import Manifest, ShardEntry
from shards.sample import Sample

if TYPE_CHECKING:
    import pyarrow as pa


class Shard:
    """One open shard: its index in memory, its bytes on demand. Only the samples in use are there, counted from 0.

    Reading is thread-safe (positioned reads on one descriptor).
    """

    def __init__(self, manifest: Manifest, entry: ShardEntry) -> None:
        self.manifest, self.entry = manifest, entry
        self.path = manifest.path_of(entry)
        self._descriptor: int | None = None
        self._opening = threading.Lock()

    @functools.cached_property
    def groups(self) -> list[list[tar.Member]]:
        """The members of each sample in use. Sidecar and layers are read without them.

        Raises:
            RunError: the tar holds another number of samples than the manifest says.
        """
        whole = tar.read_index(self.path)
        self._check(self.path, len(whole))
        return [group for start, stop in self.entry.ranges for group in whole[start:stop]]

    def _check(self, path: str, samples: int) -> None:
        if samples != self.entry.samples:
            raise RunError(f"{path}: {samples} samples", f"{self.entry.samples}, as the manifest says", "shards verify")

    def __len__(self) -> int:
        return self.entry.used

    def key(self, i: int) -> str:
        """Return the key of sample i."""
        return self.groups[i][0].key

    def read(self, i: int, ext: str) -> bytes:
        """Return one member's bytes.

        Raises:
            RunError: the sample has no such member, or the tar is shorter than its index says.
        """
        member = next((m for m in self.groups[i] if m.ext == ext), None)
        if member is None:
            extensions = ", ".join(m.ext for m in self.groups[i])
            raise RunError(f"{self.path}: sample {self.key(i)} has no .{ext}", extensions)
        return self.read_range(member.offset, member.size)

    def read_range(self, offset: int, length: int) -> bytes:
        """Return bytes of the tar by position."""
        file = self._opened()
        content = fs.read_range(self.path, offset, length) if file is None else os.pread(file, length, offset)
        if len(content) != length:
            raise RunError(f"{self.path}: {len(content)} of {length} bytes at {offset}", advice="shards verify")
        return content

    def _opened(self) -> int | None:
        """Return the tar's descriptor, None if it is remote; the first who reads a member opens it, for sidecars need no tar."""
        with self._opening:
            if self._descriptor is None and not fs.is_remote(self.path):
                if kind := tar.special(self.path):  # opening a pipe would wait for ever
                    raise RunError(f"{self.path}: {kind}", "the tar that the manifest lists", "shards verify")
                self._descriptor = os.open(self.path, os.O_RDONLY)
            return self._descriptor

    def sidecar(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the sidecar rows of the samples in use: all columns, or some of the sidecar's and of its layers' (`LAYER.column`).

        A shard without a sidecar has no columns; of the columns asked for, those that are not there are left out.
        """
        import pyarrow as pa

        table = self._whole_sidecar(columns)
        if columns is not None:
            for name in (c for c in columns if c not in table.column_names):
                column = layers.read_column(self.manifest, self.entry, name)
                table = table if column is None else _with(table, name, column)
            table = table.select([c for c in columns if c in table.column_names])
        ranges = self.entry.ranges
        if self.entry.use is None or not table.num_columns:
            return table
        return table.slice(ranges[0][0], self.entry.used) if len(ranges) == 1 else table.take(pa.array(self.entry.positions()))

    def _whole_sidecar(self, columns: Sequence[str] | None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.manifest.path_of(self.entry, ".parquet")
        # A foreign set's .parquet (img2dataset's) has a row per attempted URL: only a sidecar of ours is one.
        if not self.entry.sidecar_sha256 or not fs.exists(path):
            return pa.table({})
        try:
            with fs.open_read(path) as file:
                parquet = pq.ParquetFile(file)
                self._check(path, parquet.metadata.num_rows)
                return parquet.read(None if columns is None else [c for c in columns if c in parquet.schema_arrow.names])
        except pa.ArrowException as error:
            raise RunError(f"{path}: no whole parquet file: {error}", advice="shards verify") from error

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


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    import pyarrow as pa

    return table.append_column(name, column) if table.num_columns else pa.table({name: column})
