"""Loaders with a saved state: `datasets`, torchdata's StatefulDataLoader, litdata, mosaicml-streaming."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from _resume_feed import Feed, Job, collate, collate_named, collate_plain, members, pixels


class Datasets(Feed):
    """`datasets`, streaming, in the training's own process: state_dict of its IterableDataset."""

    packages: ClassVar[tuple[str, ...]] = ("datasets",)
    method = "IterableDataset.state_dict, one process, shuffle(buffer_size)"
    has_workers = False
    buffered = True
    mixed_shards = 10  # the default

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import datasets

        datasets.disable_progress_bars()
        stream = datasets.load_dataset("webdataset", data_files={"train": job.tars}, split="train", streaming=True)
        buffer = job.buffer if self.buffered else 1
        self.stream = stream.shuffle(seed=job.seed, buffer_size=buffer, max_buffer_input_shards=self.mixed_shards)
        self.saved: Any = None

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield batches of consecutive samples of the stream."""
        self.stream.set_epoch(epoch)
        samples = iter(self.stream)
        while batch := list(itertools.islice(samples, self.job.batch_size)):
            self.saved = self.stream.state_dict()
            yield collate_plain(batch)[0]

    def state(self) -> Any:
        """Return the stream's state behind the batch."""
        return self.saved

    def restore(self, state: Any) -> None:
        """Hand the state to the stream."""
        self.stream.load_state_dict(state)


class DatasetsShards(Datasets):
    """`datasets` as above, with the order of the shards shuffled and no buffer."""

    method = "IterableDataset.state_dict, one process, only shards shuffled"
    buffered = False
    mixed_shards = 1


class StatefulDatasetsMixed(Datasets):
    """`datasets`, streaming, under torchdata's StatefulDataLoader: what both documentations advise for workers."""

    packages: ClassVar[tuple[str, ...]] = ("datasets", "torchdata")
    has_workers = True
    method = "StatefulDataLoader.state_dict over IterableDataset, shuffle(buffer_size)"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from torchdata.stateful_dataloader import StatefulDataLoader

        self.loader = StatefulDataLoader(self.stream, batch_size=job.batch_size, num_workers=job.workers, collate_fn=collate_plain)

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield what the loader has left of the epoch."""
        self.stream.set_epoch(epoch)
        for keys, _ in self.loader:
            yield keys

    def state(self) -> Any:
        """Return the loader's state."""
        return self.loader.state_dict()

    def restore(self, state: Any) -> None:
        """Hand the state to the loader."""
        self.loader.load_state_dict(state)


class StatefulDatasets(StatefulDatasetsMixed):
    """As above, a shard after the other.

    With the default of ten shards at a time, datasets 5.2.0 cannot take its own state back in a worker (IndexError in
    `_inner_load_state_dict`).
    """

    method = "StatefulDataLoader.state_dict over IterableDataset, shuffle(buffer_size, max_buffer_input_shards=1)"
    mixed_shards = 1


class StatefulDatasetsShards(StatefulDatasetsMixed):
    """As above, with the order of the shards shuffled and no buffer."""

    method = "StatefulDataLoader.state_dict over IterableDataset, only shards shuffled"
    buffered = False
    mixed_shards = 1


class TarIndex:
    """A map-style set: sample i is a byte range of a tar."""

    def __init__(self, tars: list[str]) -> None:
        """List the images of all tars."""
        self.places: list[tuple[str, str, int, int]] = []
        for path in tars:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        self.places.append((path, member.name.removesuffix(".jpg"), member.offset_data, member.size))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        path, key, offset, size = self.places[index]
        with open(path, "rb") as file:
            file.seek(offset)
            return key, pixels(file.read(size))


class StatefulMap(Feed):
    """torchdata's StatefulDataLoader over a map-style set with `shuffle=True`: its own sampler keeps the place."""

    packages: ClassVar[tuple[str, ...]] = ("torchdata",)
    method = "StatefulDataLoader.state_dict over a map-style set, shuffle=True"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import torch
        from torchdata.stateful_dataloader import StatefulDataLoader

        self.loader = StatefulDataLoader(
            TarIndex(job.tars),  # type: ignore[arg-type]
            batch_size=job.batch_size,
            shuffle=True,
            num_workers=job.workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(job.seed),
        )

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield what the loader has left of the epoch."""
        for keys, _ in self.loader:
            yield keys

    def state(self) -> Any:
        """Return the loader's state."""
        return self.loader.state_dict()

    def restore(self, state: Any) -> None:
        """Hand the state to the loader."""
        self.loader.load_state_dict(state)


def as_item(pair: tuple[str, bytes]) -> dict[str, Any]:
    """Return a sample as litdata and mosaicml-streaming store it."""
    return {"key": pair[0], "jpg": pair[1]}


class LitData(Feed):
    """litdata: its chunks, StreamingDataset(shuffle=True) and StreamingDataLoader.state_dict.

    A run that litdata 0.2.76 resumed in its second epoch saves `dataset.current_epoch` 1 instead of 2, so that a second resume
    in that epoch goes on in the first epoch's order. One resume an epoch is exact.
    """

    packages: ClassVar[tuple[str, ...]] = ("litdata",)
    method = "StreamingDataLoader.state_dict, shuffle=True"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from litdata import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(job.converted, shuffle=True, seed=job.seed, drop_last=False)
        self.loader = StreamingDataLoader(dataset, batch_size=job.batch_size, num_workers=job.workers, collate_fn=collate_named)

    @classmethod
    def prepare(cls, job: Job) -> None:
        """Write chunks of a tenth of the set."""
        import litdata

        litdata.optimize(
            fn=as_item,
            inputs=list(members(job)),
            output_dir=job.converted,
            chunk_size=max(1, job.samples // 10),
            num_workers=1,
            start_method="fork",
        )

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield what the loader has left of the epoch."""
        for keys, _ in self.loader:
            yield keys

    def state(self) -> Any:
        """Return the loader's state."""
        return self.loader.state_dict()

    def restore(self, state: Any) -> None:
        """Hand the state to the loader."""
        self.loader.load_state_dict(state)


class Mosaic(LitData):
    """mosaicml-streaming: MDS shards, StreamingDataset(shuffle=True) and StreamingDataLoader.state_dict."""

    packages: ClassVar[tuple[str, ...]] = ("mosaicml-streaming",)

    def __init__(self, job: Job) -> None:
        Feed.__init__(self, job)
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()  # a killed run leaves its shared memory behind
        dataset = StreamingDataset(local=job.converted, shuffle=True, shuffle_seed=job.seed, batch_size=job.batch_size)
        self.loader = StreamingDataLoader(dataset, batch_size=job.batch_size, num_workers=job.workers, collate_fn=collate_named)

    @classmethod
    def prepare(cls, job: Job) -> None:
        """Write MDS shards."""
        from streaming import MDSWriter

        size = sum(Path(path).stat().st_size for path in job.tars) // 10
        with MDSWriter(out=job.converted, columns={"key": "str", "jpg": "bytes"}, size_limit=size) as writer:
            for pair in members(job):
                writer.write(as_item(pair))
