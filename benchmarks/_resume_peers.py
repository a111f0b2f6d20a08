"""The loaders by name: ours and webdataset's here, those with a saved state in `_resume_stateful`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import ClassVar

from _resume_feed import SIDE, Feed, Job, Keys, collate, pixels, plain
from _resume_stateful import (
    Datasets,
    DatasetsShards,
    LitData,
    Mosaic,
    StatefulDatasets,
    StatefulDatasetsMixed,
    StatefulDatasetsShards,
    StatefulMap,
)


class Ours(Feed):
    """The project's loader: the state is the step."""

    packages: ClassVar[tuple[str, ...]] = ()
    method = "Loader.batches(step)"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from shards.manifest import read_manifest
        from train.data.loader import Loader

        manifest = read_manifest(job.data)
        self.loader = Loader([(manifest, None)], batch_size=job.batch_size, image_size=SIDE, seed=job.seed, workers=job.workers)
        self.step = 0

    def run(self, epoch: int, done: int) -> Iterator[tuple[int, Keys]]:
        """Yield batches: one may hold the end of an epoch and the beginning of the next.

        Its sequence is endless, so of the batch in which the last epoch ends only that epoch's samples count.
        """
        with contextlib.closing(self.loader.batches(self.step)) as batches:  # type: ignore[type-var]
            for batch in batches:
                self.step = batch.step + 1
                epochs = batch.epoch.tolist()
                deliveries = list(zip(epochs, batch.uids, strict=True))
                yield epochs[0], [delivery for delivery in deliveries if delivery[0] < self.job.epochs]
                if self.step * self.job.batch_size >= self.job.epochs * self.job.samples:
                    break

    def state(self) -> int:
        """Return the next step."""
        return self.step

    def restore(self, state: int) -> None:
        """Go on at a step."""
        self.step = state


class OpenClip(Feed):
    """open_clip's training loader over webdataset: no state; a resumed run begins the epoch again."""

    packages: ClassVar[tuple[str, ...]] = ("webdataset", "open_clip_torch")
    method = "open_clip_train.data.get_wds_dataset, no state: the epoch again"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import argparse

        import torch
        from open_clip_train.data import get_wds_dataset

        torch.manual_seed(job.seed)
        arguments = argparse.Namespace(
            train_data="::".join(job.tars),
            train_num_samples=job.samples,
            train_data_upsampling_factors=None,
            dataset_resampled=False,
            seed=job.seed,
            batch_size=job.batch_size,
            workers=job.workers,
            world_size=1,
        )
        # The caption is the key, and this tokenizer leaves it as it is.
        self.info = get_wds_dataset(arguments, pixels, is_train=True, tokenizer=lambda text: [text])

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield all batches of the epoch, whatever was done of it."""
        self.info.set_epoch(epoch)
        for _, texts in self.info.dataloader:
            yield list(texts)


class WebDatasetResampled(Feed):
    """webdataset, resampled: shards are drawn with replacement, and a resumed run draws for the rest of the steps."""

    packages: ClassVar[tuple[str, ...]] = ("webdataset",)
    method = "WebDataset(resampled=True), no state: as many steps as remain"

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield as many batches as are missing of an epoch's number."""
        import webdataset

        dataset = webdataset.WebDataset(self.job.tars, resampled=True)
        dataset = dataset.shuffle(self.job.buffer).map(plain).batched(self.job.batch_size, collation_fn=collate)
        loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=self.job.workers)
        for keys, _ in itertools.islice(loader, self.job.steps - done):
            yield keys


class WebDatasetSkip(Feed):
    """webdataset with seeded shuffles: a resumed run reads the epoch again and throws away what was consumed."""

    packages: ClassVar[tuple[str, ...]] = ("webdataset",)
    method = "seeded shuffles, no state: the batches before the kill are read again and dropped"

    def epoch_batches(self, epoch: int, done: int) -> Iterator[list[str]]:
        """Yield the batches behind the first `done` of the epoch."""
        import webdataset

        seed = self.job.seed + epoch
        dataset = webdataset.DataPipeline(
            webdataset.SimpleShardList(self.job.tars),
            webdataset.detshuffle(100, 100, seed),
            webdataset.split_by_worker,
            webdataset.tarfile_to_samples(),
            webdataset.detshuffle(self.job.buffer, self.job.buffer, seed),
            webdataset.map(plain),
            webdataset.batched(self.job.batch_size, collation_fn=collate),
        )
        loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=self.job.workers)
        for keys, _ in itertools.islice(loader, done, None):
            yield keys


PEERS: dict[str, type[Feed]] = {
    "ours": Ours,
    "open_clip": OpenClip,
    "webdataset-resampled": WebDatasetResampled,
    "webdataset-skip": WebDatasetSkip,
    "datasets": Datasets,
    "datasets-shards": DatasetsShards,
    "torchdata-datasets-default": StatefulDatasetsMixed,
    "torchdata-datasets": StatefulDatasets,
    "torchdata-datasets-shards": StatefulDatasetsShards,
    "torchdata-map": StatefulMap,
    "litdata": LitData,
    "mosaic": Mosaic,
}
