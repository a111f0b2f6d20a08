"""The loaders whose resuming is compared, each with the way to save and restore that its own documentation gives.

A feed yields batches as lists of (epoch, key), and after each batch its `state()` is what a checkpoint of that step would
hold. It decodes each image, as a training would. Heavy imports stand inside, since a process opens one feed alone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

Keys = list[tuple[int, str]]
SIDE = 64  # pixels of the decoded crops


@dataclass(frozen=True)
class Job:
    """What is loaded, and how.

    Attributes:
        data: folder of the shards and their manifest.
        converted: folder for a peer's own format.
        samples: of the whole set.
        epochs: to go through.
        batch_size: samples a step.
        workers: processes, or threads for ours.
        seed: of the shuffling.
        buffer: samples of a shuffle buffer, where a loader has one to set.
    """

    data: str
    converted: str
    samples: int
    epochs: int
    batch_size: int
    workers: int
    seed: int
    buffer: int

    @property
    def tars(self) -> list[str]:
        """The shards' paths in order."""
        return [str(path) for path in sorted(Path(self.data).glob("*.tar"))]

    @property
    def steps(self) -> int:
        """Batches of an epoch, the last one of them perhaps smaller."""
        return -(-self.samples // self.batch_size)


class Feed:
    """A loader: subclasses give `epoch_batches`, and `state` and `restore` where the library can save."""

    packages: ClassVar[tuple[str, ...]] = ()
    method = ""
    has_workers = True

    def __init__(self, job: Job) -> None:
        """Import the library and open the data."""
        self.job = job

    @classmethod
    def prepare(cls, job: Job) -> None:
        """Write the data in the library's own format, where it needs one."""

    def run(self, epoch: int, done: int) -> Iterator[tuple[int, Keys]]:
        """Yield (epoch, batch) from an epoch on.

        Args:
            epoch: the epoch to start in.
            done: batches of this epoch that were consumed before.
        """
        for number in range(epoch, self.job.epochs):
            for keys in self.epoch_batches(number, done if number == epoch else 0):
                yield number, [(number, key) for key in keys]

    def epoch_batches(self, epoch: int, done: int) -> Iterable[list[str]]:
        """Yield the batches of an epoch that are still to come, as keys."""
        raise NotImplementedError

    def state(self) -> Any:
        """Return what a checkpoint holds of the loader."""
        return None

    def restore(self, state: Any) -> None:
        """Take what `state` returned in an earlier process."""


def pixels(source: bytes | Any) -> Any:
    """Decode a JPEG, or take a picture that the library decoded, and return (3, SIDE, SIDE) uint8."""
    import numpy as np
    import torch
    from PIL import Image

    image = Image.open(io.BytesIO(source), formats=["JPEG"]) if isinstance(source, bytes) else source
    return torch.from_numpy(np.array(image.convert("RGB").resize((SIDE, SIDE)))).permute(2, 0, 1)


def collate(samples: list[tuple[str, Any]]) -> tuple[list[str], Any]:
    """Return the keys and the stacked images of a batch."""
    import torch

    return [key for key, _ in samples], torch.stack([image for _, image in samples])


def plain(sample: dict[str, Any]) -> tuple[str, Any]:
    """Return key and image of a sample with WebDataset's names."""
    return sample["__key__"], pixels(sample["jpg"])


def named(sample: dict[str, Any]) -> tuple[str, Any]:
    """Return key and image of a sample in a converted set."""
    return sample["key"], pixels(sample["jpg"])


def collate_plain(samples: list[dict[str, Any]]) -> tuple[list[str], Any]:
    """Return a batch of samples with WebDataset's names."""
    return collate([plain(sample) for sample in samples])


def collate_named(samples: list[dict[str, Any]]) -> tuple[list[str], Any]:
    """Return a batch of samples of a converted set."""
    return collate([named(sample) for sample in samples])


def members(job: Job) -> Iterator[tuple[str, bytes]]:
    """Yield (key, JPEG) of all shards in order."""
    for path in job.tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    yield member.name.removesuffix(".jpg"), tar.extractfile(member).read()  # type: ignore[union-attr]
