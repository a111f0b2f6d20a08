"""Where samples lie and what they are called, a block at a time: byte ranges, names, captions and labels of consecutive samples."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from shards import layers, tar
from shards.clip_bpe import clip_bpe
from shards.core import fs
from shards.core.errors import RunError, UsageError, closest
from shards.manifest import Manifest, ShardEntry
from shards.member import check_member
from shards.sample import UID_RULE
from shards.tables.values import caption_in
from shards.weights import no_column, numbers_of
from train.data.columns import IdsColumn, TextColumn, TextListColumn
from train.data.noise import Noise
from train.data.order import identities_of, name_of
from train.data.tars import TEXT, TarFiles, TarIndex

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

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
    """Which columns of a source are read: layers of captions and of tokens; labels and weights of the sidecar or of a layer.

    `every_caption` asks for all captions of a sample beside the chosen one.
    """

    captions: bool = True
    every_caption: bool = False
    layers: tuple[str, ...] = ()
    tokens: str = ""
    labels: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Block:
    """What is known of consecutive samples: about 150 bytes a sample.

    Attributes:
        ranges: (n, 6) int64: offset and size of the image, of the .txt and of the .cls in the tar.
        identities: (n, 2) uint64: what a sample's random numbers depend on.
        names: uids or keys; None where they are the identities in hexadecimal, as all uids of ours are.
        caption, captions: the chosen caption and all of them; None where no sidecar has them.
        layers: captions of each layer.
        tokens: packed ids of the chosen caption; None where no layer has them.
        labels: of the labels' column; a number or a list of numbers for each sample.
        weights: (n,) float64, NaN for null; None where no column was asked for.
    """

    path: str
    ranges: NDArray[np.int64]
    identities: NDArray[np.uint64]
    names: TextColumn | None = None
    caption: TextColumn | None = None
    captions: TextListColumn | None = None
    layers: tuple[TextListColumn, ...] = ()
    tokens: IdsColumn | None = None
    labels: list[Any] | None = None
    weights: NDArray[np.float64] | None = None

    def record(self, row: int) -> Record:
        """Return one sample."""
        first, second = self.identities[row].tolist()
        a, b, c, d, e, f = self.ranges[row].tolist()
        name = name_of(first, second) if self.names is None else self.names[row]
        return Record(name or "", (first, second), self.path, (a, b), (c, d), (e, f), row)


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
        self._blocks: OrderedDict[int, Future[Block]] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, position: int) -> tuple[Block, Record]:
        """Return the sample at a position of the manifest's order, and the block it is in."""
        import numpy as np

        number = int(np.searchsorted(self.starts, position, "right")) - 1
        block = self._block(number)
        return block, block.record(position - int(self.starts[number]))

    def caption(self, block: Block, record: Record) -> str:
        """Return a sample's chosen caption: the sidecar's, else the .txt member; empty where it has none."""
        caption = block.caption[record.row] if block.caption is not None else None
        return self.text(record) if caption is None else caption

    def text(self, record: Record) -> str:
        """Return the caption in a sample's .txt member; empty where it has none. What reading changed is noted (`shards.tables.notes`)."""
        if record.text[1] <= 0:
            return ""
        return caption_in(self.files.member(record.path, *record.text))

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
        """Return a block; the first thread that asks for it loads it, and others that ask for the same one wait."""
        with self._lock:
            known = self._blocks.get(number)
            block: Future[Block] = Future() if known is None else known
            self._blocks[number] = block
            self._blocks.move_to_end(number)
            while len(self._blocks) > self.keep:
                self._blocks.popitem(last=False)
        if known is None:
            self._fill(block, number)
        return block.result()

    def _fill(self, block: Future[Block], number: int) -> None:
        """Load a block; one that cannot be loaded is tried anew when it is asked for again."""
        try:
            block.set_result(self._load(number))
        except BaseException as error:  # noqa: BLE001  all that wait for it raise it
            with self._lock:
                if self._blocks.get(number) is block:
                    del self._blocks[number]
            block.set_exception(error)

    def _load(self, number: int) -> Block:
        import numpy as np
        import pyarrow as pa

        first, stop = int(self.starts[number]), int(self.starts[number + 1])
        shard = int(np.searchsorted(self._shard_starts, first, "right")) - 1
        entry, base = self.manifest.shards[shard], int(self._shard_starts[shard])
        in_use = entry.positions()[: int(self._shard_starts[shard + 1]) - base]
        chosen = in_use[first - base : stop - base]
        path = self.manifest.path_of(entry)
        index = TarIndex(path)
        if len(index) != entry.samples:
            raise RunError(f"{path}: its index has {len(index)} samples", f"{entry.samples}, as the manifest says", "shards verify")
        rows = chosen.tolist()
        self._check_tar(path, index.members([rows[0], rows[-1]]))
        sidecar = self._sidecar(entry)
        if sidecar is not None:
            # take() copies: a slice would keep the whole shard's columns in memory.
            names = sidecar["uid"].take(pa.array(chosen)).to_pylist()
            identities = identities_of(names)
        else:
            # Keys of foreign tars may repeat; where a sample lies is its own.
            names = [members[0].key.encode("utf-8", "backslashreplace").decode() for members in index.members(rows)]
            identities = identities_of([f"{self._digest}:{entry.path}:{position}" for position in rows])
        captioned = self._captioned(identities, chosen, in_use)
        ranges = index.ranges(rows)
        if sidecar is None and captioned is not chosen:
            ranges[:, TEXT] = index.ranges(captioned.tolist())[:, TEXT]
        texts = {}
        if sidecar is not None:
            texts = {name: sidecar[name].take(pa.array(captioned)) for name in ("caption", "captions") if name in sidecar.column_names}
        named_by_identity = sidecar is not None and all(map(UID_RULE.fullmatch, names))
        block = Block(
            path=path,
            ranges=ranges,
            identities=identities,
            names=None if named_by_identity else TextColumn(pa.array(names, pa.string())),
            caption=TextColumn(texts["caption"]) if "caption" in texts else None,
            captions=TextListColumn(texts["captions"]) if "captions" in texts else None,
            layers=tuple(TextListColumn(layers.captions_of(self.manifest, entry, name).take(captioned)) for name in self.columns.layers),
            tokens=self._tokens(entry, captioned),
            labels=self._labels(entry, chosen, sidecar),
            weights=self._weights(entry, chosen, sidecar),
        )
        self._check_tokens(block)
        return block

    def _captioned(self, identities: NDArray[np.uint64], chosen: NDArray[np.int64], in_use: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return whose caption each sample has: its own, or as noise that of another sample of its shard."""
        import numpy as np

        if not self.noise.captions:
            return chosen
        rows = np.searchsorted(in_use, chosen).tolist()
        names = [(first, second) for first, second in identities.tolist()]
        borrowed = [self.noise.caption_row(name, row, len(in_use)) for name, row in zip(names, rows, strict=True)]
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
        wanted += ["caption"] if self.columns.captions else []
        wanted += ["captions"] if self.columns.every_caption else []
        wanted += [name for name in (self.columns.labels, self.columns.weights) if name]
        with fs.open_read(path) as file:
            parquet = pq.ParquetFile(file)
            known = parquet.schema_arrow.names
            table = parquet.read([name for name in wanted if name in known], use_threads=False)
        if table.num_rows != entry.samples:
            raise RunError(f"{path}: {table.num_rows} rows", f"{entry.samples}, as the manifest says", "shards verify")
        if "uid" not in known:
            raise RunError(f"{path}: no column 'uid'", ", ".join(known))
        return table

    def _tokens(self, entry: ShardEntry, chosen: NDArray[np.int64]) -> IdsColumn | None:
        if not self.columns.tokens:
            return None
        return IdsColumn(layers.tokens_of(self.manifest, entry, self.columns.tokens).take(chosen))

    def _check_tokens(self, block: Block) -> None:
        """See that a layer's ids are those of the captions: a layer that lies there from other captions would train on these.

        Raises:
            RunError: the ids of the first or the last sample are others.
        """
        if block.tokens is None:
            return
        for row in (0, len(block.identities) - 1):
            ids, record = block.tokens[row], block.record(row)
            if ids is not None and ids != clip_bpe().packed(self.caption(block, record)):
                raise RunError(
                    f"{block.path}: sample {record.uid}: the ids in the layer {self.columns.tokens!r} are of another caption",
                    "the layer that was laid for these captions",
                    "curate layer tokens BUILD NAME --overwrite",
                )

    def _column(self, name: str, entry: ShardEntry, chosen: NDArray[np.int64], sidecar: pa.Table | None) -> Any:
        """Return a column of the sidecar or of a layer for some samples; None where neither has it."""
        if sidecar is not None and name in sidecar.column_names:
            return sidecar[name].take(chosen)
        column = layers.read_column(self.manifest, entry, name)
        return None if column is None else column.take(chosen)

    def _weights(self, entry: ShardEntry, chosen: NDArray[np.int64], sidecar: pa.Table | None) -> NDArray[np.float64] | None:
        """Return the weights of some samples, NaN for null; None where none were asked for."""
        name = self.columns.weights
        if not name:
            return None
        column = self._column(name, entry, chosen, sidecar)
        if column is None:
            raise no_column(self.manifest, entry, name)
        return numbers_of(column, f"{self.manifest.folder}: the column {name!r}")

    def _labels(self, entry: ShardEntry, chosen: NDArray[np.int64], sidecar: pa.Table | None) -> list[Any] | None:
        """Return the labels of a column of the sidecar or of a layer; None where `.cls` members have to be read."""
        name = self.columns.labels
        if not name:
            return None
        column = self._column(name, entry, chosen, sidecar)
        if column is not None:
            return list(column.to_pylist())
        if name != CLASS:
            known = sorted({*layers.columns_of(self.manifest.folder_of(entry)), CLASS})
            raise UsageError(f"{self.manifest.folder}: no column {name!r} with labels", ", ".join(known), closest(name, known))
        return None
