"""Where samples lie and what they are called, a block at a time: byte ranges, names, captions and labels of consecutive samples."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from shards import layers, tar
from shards.core import fs
from shards.core.errors import RunError, UsageError, closest
from shards.header import header_size
from shards.manifest import Manifest, ShardEntry
from shards.member import check_member
from shards.sample import IMAGE_EXTENSIONS
from train.data.columns import TextColumn, TextListColumn
from train.data.noise import Noise
from train.data.order import identity

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

OPEN_TARS = 128
_TEXT = slice(2, 4)  # of the byte ranges of a sample: where its .txt is
CLASS = "class"  # the sidecar's column of class numbers, and what `.cls` members hold


class Record(NamedTuple):
    """One sample: its names, and the byte ranges of its members. A size is −1 where it has no such member."""

    uid: str
    identity: tuple[int, int]
    path: str
    image: tuple[int, int]
    text: tuple[int, int]
    label: tuple[int, int]
    row: int  # in its block


class TarFiles:
    """Positioned reads from tars, with the last `OPEN_TARS` kept open. Thread-safe."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a tar.

        Raises:
            RunError: the tar is gone or shorter, or cannot be read.
        """
        try:
            if fs.is_remote(path):
                content = fs.read_range(path, offset, length)
            else:
                content = os.pread(self._get(path).number, length, offset)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RunError(f"{path}: {reason}, while reading {length} bytes at {offset}", advice="shards verify") from error
        if len(content) != length:
            raise RunError(f"{path}: {len(content)} of {length} bytes at {offset}", advice="shards verify")
        return content

    def member(self, path: str, offset: int, size: int) -> bytes:
        """Return a member's content, together with proof that it is one: the header before it states this size.

        A tar that was written anew after indexing has other bytes at the old offsets. The proof takes 4 µs.

        Raises:
            RunError: as `read`, or the index is of another tar.
        """
        content = self.read(path, offset - tar.BLOCK, tar.BLOCK + size)
        header = content[: tar.BLOCK]
        if not tar.is_header(header) or header_size(header, path) != size:
            advice = "shards verify; or shards index --overwrite, if the tar was rewritten on purpose"
            raise RunError(f"{path}: no member of {size} bytes at {offset}", "the tar that was indexed", advice)
        return content[tar.BLOCK :]

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
class Columns:
    """Which columns of a source are read: captions of a layer, and labels of a column of the sidecar or of a layer."""

    captions: bool = True
    layer: str = ""
    labels: str = ""


@dataclass(frozen=True)
class Block:
    """What is known of consecutive samples: about 150 bytes a sample.

    Attributes:
        ranges: (n, 6) int64: offset and size of the image, of the .txt and of the .cls in the tar.
        identities: (n, 2) uint64: what a sample's random numbers depend on.
        caption, captions: the chosen caption and all of them; None where no sidecar has them.
        layer: captions of the layer.
        labels: of the labels' column; a number or a list of numbers for each sample.
    """

    path: str
    ranges: NDArray[np.int64]
    identities: NDArray[np.uint64]
    names: TextColumn
    caption: TextColumn | None = None
    captions: TextListColumn | None = None
    layer: TextListColumn | None = None
    labels: list[Any] | None = None

    def record(self, row: int) -> Record:
        """Return one sample."""
        first, second = self.identities[row].tolist()
        a, b, c, d, e, f = self.ranges[row].tolist()
        return Record(self.names[row] or "", (first, second), self.path, (a, b), (c, d), (e, f), row)


class Source:
    """One manifest's samples by position. The last `keep` blocks stay in memory. Thread-safe."""

    def __init__(
        self,
        manifest: Manifest,
        counts: list[int],
        starts: NDArray[np.int64],
        files: TarFiles,
        keep: int,
        columns: Columns | None = None,
        noise: Noise | None = None,
    ) -> None:
        """Take the samples in use of each shard and the positions where blocks begin (blocks never span shards)."""
        import numpy as np

        self.manifest, self.starts, self.files, self.keep = manifest, starts, files, keep
        self.columns, self.noise = columns or Columns(), noise or Noise()
        self.samples = sum(counts)
        self._digest = manifest.digest
        self._shard_starts = np.concatenate([[0], np.cumsum(counts)])
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, position: int) -> tuple[Block, Record]:
        """Return the sample at a position of the manifest's order, and the block it is in."""
        import numpy as np

        number = int(np.searchsorted(self.starts, position, "right")) - 1
        block = self._block(number)
        return block, block.record(position - int(self.starts[number]))

    def text(self, record: Record) -> str:
        """Return the caption in a sample's .txt member; empty where it has none."""
        if record.text[1] <= 0:
            return ""
        return self.files.member(record.path, *record.text).decode("utf-8", "replace")

    def class_member(self, record: Record) -> int:
        """Return the class number in a sample's .cls member, −1 where it has none.

        Raises:
            RunError: it holds something else.
        """
        if record.label[1] <= 0:
            return -1
        content = self.files.member(record.path, *record.label).strip()
        if not content.isdigit() or len(content) > 9:
            raise RunError(f"{record.path}: sample {record.uid}: .cls holds {content[:40]!r}", "a class number from 0 on")
        return int(content)

    def _block(self, number: int) -> Block:
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = self._load(number)
            self._blocks.move_to_end(number)
            while len(self._blocks) > self.keep:
                self._blocks.popitem(last=False)
            return self._blocks[number]

    def _load(self, number: int) -> Block:
        import numpy as np
        import pyarrow as pa

        first, stop = int(self.starts[number]), int(self.starts[number + 1])
        shard = int(np.searchsorted(self._shard_starts, first, "right")) - 1
        entry, base = self.manifest.shards[shard], int(self._shard_starts[shard])
        in_use = entry.positions()[: int(self._shard_starts[shard + 1]) - base]
        chosen = in_use[first - base : stop - base]
        path = self.manifest.path_of(entry)
        groups = _groups(self.manifest, entry, chosen.tolist())
        self._check_tar(path, groups)
        sidecar = self._sidecar(entry)
        if sidecar is not None:
            # take() copies: a slice would keep the whole shard's columns in memory.
            names = sidecar["uid"].take(pa.array(chosen))
            identities = [identity(uid) for uid in names.to_pylist()]
        else:
            # Keys of foreign tars may repeat; where a sample lies is its own.
            names = pa.array([group[0].key.encode("utf-8", "backslashreplace").decode() for group in groups], pa.string())
            identities = [identity(f"{self._digest}:{entry.path}:{position}") for position in chosen.tolist()]
        captioned = self._captioned(identities, chosen, in_use)
        ranges = np.array([_ranges_of(group) for group in groups], np.int64)
        if sidecar is None and captioned is not chosen:
            borrowed = _groups(self.manifest, entry, captioned.tolist())
            ranges[:, _TEXT] = [_ranges_of(group)[_TEXT] for group in borrowed]
        texts = {}
        if sidecar is not None:
            texts = {name: sidecar[name].take(pa.array(captioned)) for name in ("caption", "captions") if name in sidecar.column_names}
        return Block(
            path=path,
            ranges=ranges,
            identities=np.array(identities, np.uint64),
            names=TextColumn(names),
            caption=TextColumn(texts["caption"]) if "caption" in texts else None,
            captions=TextListColumn(texts["captions"]) if "captions" in texts else None,
            layer=self._layer(entry, captioned),
            labels=self._labels(entry, chosen, sidecar),
        )

    def _captioned(self, identities: list[tuple[int, int]], chosen: NDArray[np.int64], in_use: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return whose caption each sample has: its own, or as noise that of another sample of its shard."""
        import numpy as np

        if not self.noise.captions:
            return chosen
        rows = np.searchsorted(in_use, chosen).tolist()
        borrowed = [self.noise.caption_row(names, row, len(in_use)) for names, row in zip(identities, rows, strict=True)]
        return in_use[np.array(borrowed, np.int64)]

    def _check_tar(self, path: str, groups: list[list[tar.Member]]) -> None:
        """See that the index is that of the tar: a tar written anew after indexing would be read at the old offsets."""
        for group in (groups[0], groups[-1]):
            member = group[0]
            check_member(path, member.offset, member.size, member.name, lambda offset, length: self.files.read(path, offset, length))

    def _sidecar(self, entry: ShardEntry) -> pa.Table | None:
        """Return the sidecar's columns of a whole shard; None where there is no sidecar of ours."""
        import pyarrow.parquet as pq

        path = self.manifest.path_of(entry, ".parquet")
        if not entry.sidecar_sha256 or not fs.exists(path):  # a foreign set's .parquet is no sidecar
            return None
        wanted = ["uid"]
        wanted += ["caption", "captions"] if self.columns.captions else []
        wanted += [self.columns.labels] if self.columns.labels else []
        with fs.open_read(path) as file:
            parquet = pq.ParquetFile(file)
            known = parquet.schema_arrow.names
            table = parquet.read([name for name in wanted if name in known], use_threads=False)
        if table.num_rows != entry.samples:
            raise RunError(f"{path}: {table.num_rows} rows", f"{entry.samples}, as the manifest says", "shards verify")
        if "uid" not in known:
            raise RunError(f"{path}: no column 'uid'", ", ".join(known))
        return table

    def _layer(self, entry: ShardEntry, chosen: NDArray[np.int64]) -> TextListColumn | None:
        if not self.columns.layer:
            return None
        return TextListColumn(layers.captions_of(self.manifest, entry, self.columns.layer).take(chosen))

    def _labels(self, entry: ShardEntry, chosen: NDArray[np.int64], sidecar: pa.Table | None) -> list[Any] | None:
        """Return the labels of a column of the sidecar or of a layer; None where `.cls` members have to be read."""
        name = self.columns.labels
        if not name:
            return None
        if sidecar is not None and name in sidecar.column_names:
            return list(sidecar[name].take(chosen).to_pylist())
        column = layers.read_column(self.manifest, entry, name)
        if column is not None:
            return list(column.take(chosen).to_pylist())
        if name != CLASS:
            known = sorted({*layers.columns_of(self.manifest.folder_of(entry)), CLASS})
            raise UsageError(f"{self.manifest.folder}: no column {name!r} with labels", ", ".join(known), closest(name, known))
        return None


def _ranges_of(group: list[tar.Member]) -> tuple[int, ...]:
    """Return offset and size of a sample's image, .txt and .cls members."""
    places = []
    for extensions in (IMAGE_EXTENSIONS, ("txt",), ("cls",)):
        member = next((m for m in group if m.ext.lower() in extensions), None)
        places += [member.offset, member.size] if member else [0, -1]
    return tuple(places)


def _groups(manifest: Manifest, entry: ShardEntry, chosen: list[int]) -> list[list[tar.Member]]:
    """Return the members of some samples of a whole tar, parsing no more of its index than these."""
    path = manifest.path_of(entry)
    index = path.removesuffix(".tar") + ".idx"
    if not fs.exists(index):
        whole = tar.read_index(path)
        stated = len(whole)
        groups = [whole[i] for i in chosen if i < stated]
    else:
        head, *lines = fs.read_bytes(index).decode("utf-8", "surrogateescape").splitlines() or [""]
        stated = len(lines)
        part = [lines[i] for i in chosen if i < stated]
        version = head.partition(" ")[0]
        groups = tar.parse_index("\n".join([f"{version} {len(part)}", *part]), index)
    if stated != entry.samples:
        raise RunError(f"{path}: its index has {stated} samples", f"{entry.samples}, as the manifest says", "shards verify")
    return groups
