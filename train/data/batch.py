"""What the loader is asked for, and what it gives: `Needs` of a task, `Batch` of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from train.data.augment.params import Augment, AugmentParams, Window

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Needs:
    """What a task wants of each sample.

    Attributes:
        views: the augmentation of each view of an image; one entry for one crop per image.
        captions: whether captions are needed. A set without any is then refused.
        context_length: tokens per caption, for tasks that read text; 0 leaves captions as they are.
        classes: how many classes labels are drawn from; 0 where no labels are needed.
        multi_label: whether a sample may have several labels.
    """

    views: tuple[Augment, ...] = (Augment(),)
    captions: bool = False
    context_length: int = 0
    classes: int = 0
    multi_label: bool = False


class BadSample(NamedTuple):
    """A sample that cannot be used: where it is (source number, position in its manifest's order), its name, and why."""

    source: int
    position: int
    uid: str
    why: str


@dataclass(frozen=True)
class View:
    """One crop of each of n images.

    Attributes:
        images: (n, 3, S, S) uint8, channels last in memory; not yet flipped, coloured or normalised.
        params: what remains to be done to them.
        windows: what was cropped, in pixels of the stored images.
    """

    images: torch.Tensor
    params: AugmentParams
    windows: list[Window]


@dataclass(frozen=True)
class Batch:
    """A rank's part of a global batch: n samples.

    A batch of a loader that runs in a process of its own lies in shared memory: it is valid until the next one is asked for.
    Copies to a GPU that are then queued on its current stream still get this batch.

    Attributes:
        step: the global step, from 0.
        epoch: how often the sample's source was gone through before, (n,) int64.
        sources: the number of the sample's source, (n,) int64.
        positions: where the sample stands in its manifest's order, (n,) int64. (source, position) is its identity.
        uids: what the samples are called.
        views: one entry for each of the task's views.
        captions: as text; empty texts where a sample has none. An empty list where the task needs none.
        tokens: (n, context length) int32 ids, or None.
        labels: (n,) int64 class numbers, −1 for unknown; or (n, classes) float32 of 0 and 1; or None.
        soft_labels: (n, classes) float32 targets that add up to 1 (to the weight, with weights), where Mixup has mixed the labels; or None.
        weights: (n,) float32, by how much each sample's loss counts; or None, where all count alike.
        replaced: how many of the samples stand in for samples that cannot be decoded.
        bad: samples found to be undecodable while this batch was made.
        recoded: how many captions are no UTF-8 and were read as cp1252.
    """

    step: int
    epoch: NDArray[np.int64]
    sources: NDArray[np.int64]
    positions: NDArray[np.int64]
    uids: list[str]
    views: tuple[View, ...]
    captions: list[str] = field(default_factory=list)
    tokens: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    soft_labels: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    replaced: int = 0
    bad: tuple[BadSample, ...] = ()
    recoded: int = 0

    def __len__(self) -> int:
        return len(self.uids)

    def part(self, rows: slice) -> Batch:
        """Return the batch of some of its samples, without the pixels; `bad` and `recoded` stay with the whole."""
        return Batch(
            step=self.step,
            epoch=self.epoch[rows],
            sources=self.sources[rows],
            positions=self.positions[rows],
            uids=self.uids[rows],
            views=(),
            captions=self.captions[rows],
            tokens=None if self.tokens is None else self.tokens[rows],
            labels=None if self.labels is None else self.labels[rows],
            soft_labels=None if self.soft_labels is None else self.soft_labels[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    @property
    def images(self) -> torch.Tensor:
        """The crops of view 0, (n, 3, S, S) uint8."""
        return self.views[0].images

    @property
    def params(self) -> AugmentParams:
        """The photometric parameters of view 0."""
        return self.views[0].params

    @property
    def windows(self) -> list[Window]:
        """What view 0 cropped, in pixels of the stored images."""
        return self.views[0].windows

    @property
    def empty_captions(self) -> int:
        """How many samples have a caption of white space or none."""
        return sum(not caption.strip() for caption in self.captions)
