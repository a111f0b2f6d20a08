"""Where samples lie and what they are called, a block at a time: byte ranges, uids and captions of consecutive samples."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from shards import layers, tar
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, ShardEntry
from shards.sample import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPEN_TARS = 128


class Record(NamedTuple):
    """One sample: its names and captions, and the byte range of its image. `size` is −1 where it has none."""

    uid: str
    caption: str
    captions: list[str]
    path: str
    offset: int
    size: int


class TarFiles:
    """Positioned reads from tars, with the last `OPEN_TARS` kept open. Thread-safe."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a tar.

        Raises:
            RunError: the tar is shorter.
        """
        content = fs.read_range(path, offset, length) if fs.is_remote(path) else os.pread(self._get(path).number, length, offset)
        if len(content) != length:
            raise RunError(f"{path}: {len(content)} of {length} bytes at {offset}", advice="shards verify")
        return content

    def _get(self, path: str) -> _Descriptor:
        with self._lock:
            if path not in self._open:
                self._open[path] = _Descriptor(path)
            self._open.move_to_end(path)
            while len(self._open) > OPEN_TARS:
                self._open.popitem(last=False)
            return self._open[path]


class _Descriptor:
    """A file descriptor that closes with its last user, who may still be reading when the cache lets it go."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def used(manifest: Manifest, samples: int | None = None) -> list[int]:
    """Return how many samples of each shard are in use, of all or of the first `samples` of the manifest.

    Raises:
        UsageError: there are fewer.
    """
    total = sum(entry.used for entry in manifest.shards)
    if samples is not None and not 0 < samples <= total:
        raise UsageError(f"the first {samples:,} samples of {manifest.folder}", f"1 to {total:,}: what the build has")
    left = total if samples is None else samples
    counts = []
    for entry in manifest.shards:
        counts.append(min(entry.used, left))
        left -= counts[-1]
    return counts


@dataclass(frozen=True)
class _Block:
    """A block's rows as arrays: about a hundred bytes a sample."""

    path: str
    ranges: NDArray[np.int64]  # offset and size of the image, then of the .txt
    names: Any  # pyarrow table: uid and, where there is a sidecar, caption and captions


class Source:
    """One manifest's samples by position. The last `keep` blocks stay in memory. Thread-safe."""

    def __init__(
        self, manifest: Manifest, counts: list[int], starts: NDArray[np.int64], files: TarFiles, keep: int, layer: str = ""
    ) -> None:
        """Take the samples in use of each shard and the positions where blocks begin (blocks never span shards).

        Captions come from `layer`, where one is named and has some; else from the sidecar, else from the `.txt`.
        """
        import numpy as np

        self.manifest, self.starts, self.files, self.keep, self.layer = manifest, starts, files, keep, layer
        self.samples = sum(counts)
        self._shard_starts = np.concatenate([[0], np.cumsum(counts)])
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, position: int) -> Record:
        """Return the sample at a position of the manifest's order."""
        import numpy as np

        number = int(np.searchsorted(self.starts, position, "right")) - 1
        block, row = self._block(number), position - int(self.starts[number])
        offset, size, text_offset, text_size = block.ranges[row].tolist()
        names = {name: block.names[name][row].as_py() for name in block.names.column_names}
        if names.get("caption") is None:
            text = self.files.read(block.path, text_offset, text_size) if text_size > 0 else b""
            names["caption"] = text.decode("utf-8", "replace")
        return Record(names["uid"], names["caption"], names.get("captions") or [], block.path, offset, size)

    def _block(self, number: int) -> _Block:
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = self._load(number)
            self._blocks.move_to_end(number)
            while len(self._blocks) > self.keep:
                self._blocks.popitem(last=False)
            return self._blocks[number]

    def _load(self, number: int) -> _Block:
        import numpy as np

        first, stop = int(self.starts[number]), int(self.starts[number + 1])
        shard = int(np.searchsorted(self._shard_starts, first, "right")) - 1
        entry, base = self.manifest.shards[shard], int(self._shard_starts[shard])
        chosen = entry.positions()[first - base : stop - base]
        groups = _groups(self.manifest, entry, chosen.tolist())
        ranges = np.array([(*_range(g, IMAGE_EXTENSIONS), *_range(g, ("txt",))) for g in groups], np.int64)
        names = _names(self.manifest, entry, chosen, [g[0].key for g in groups])
        if self.layer:
            names = _with_layer(names, layers.captions_of(self.manifest, entry, self.layer).take(chosen).to_pylist())
        return _Block(self.manifest.path_of(entry), ranges, names)


def _range(group: list[tar.Member], extensions: tuple[str, ...]) -> tuple[int, int]:
    found = next((m for m in group if m.ext.lower() in extensions), None)
    return (found.offset, found.size) if found else (0, -1)


def _groups(manifest: Manifest, entry: ShardEntry, chosen: list[int]) -> list[list[tar.Member]]:
    """Return the members of some samples of a whole tar, parsing no more of its index than these."""
    path = manifest.path_of(entry)
    index = path.removesuffix(".tar") + ".idx"
    if not fs.exists(index):
        found = tar.read_index(path)
        stated, groups = len(found), [found[i] for i in chosen if i < len(found)]
    else:
        head, *lines = fs.read_bytes(index).decode("utf-8", "surrogateescape").splitlines() or [""]
        part = [lines[i] for i in chosen if i < len(lines)]
        stated, groups = len(lines), tar.parse_index("\n".join([f"{head.partition(' ')[0]} {len(part)}", *part]), index)
    if stated != entry.samples:
        raise RunError(f"{path}: its index has {stated} samples", f"{entry.samples}, as the manifest says", "shards verify")
    return groups


def _names(manifest: Manifest, entry: ShardEntry, chosen: NDArray[np.int64], keys: list[str]) -> Any:
    """Return uid, caption and captions of some samples of a whole shard; a shard without sidecar has its keys."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = manifest.path_of(entry, ".parquet")
    if not entry.sidecar_sha256 or not fs.exists(path):  # a foreign set's .parquet is no sidecar
        return pa.table({"uid": keys})
    with fs.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        columns = [c for c in ("uid", "caption", "captions") if c in parquet.schema_arrow.names]
        table = parquet.read(columns, use_threads=False)
    if table.num_rows != entry.samples:
        raise RunError(f"{path}: {table.num_rows} rows", f"{entry.samples}, as the manifest says", "shards verify")
    if "uid" not in columns:
        raise RunError(f"{path}: no column 'uid'", ", ".join(parquet.schema_arrow.names))
    # take() copies: a slice would keep the whole shard's columns in memory.
    return table.take(pa.array(chosen)).combine_chunks()


def _with_layer(names: Any, captions: list[list[str] | None]) -> Any:
    """Return the names with a layer's captions in place of a sample's own, where it has some."""
    import pyarrow as pa

    rows = [own | {"caption": said[0], "captions": said} if said else own for own, said in zip(names.to_pylist(), captions, strict=True)]
    kinds = [("uid", pa.string()), ("caption", pa.string()), ("captions", pa.list_(pa.string()))]
    return pa.Table.from_pylist(rows, pa.schema(kinds))
