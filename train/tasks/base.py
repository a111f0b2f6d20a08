"""What a training task is: a file that turns batches into loss terms. It becomes a verb of `train` by being there.

A task module has

    Config(TrainConfig)        its flags; TASK is the file's name, AUGMENT the preset that it augments by
    build(config, data) -> Task

The first line of its docstring is its help. torch is imported inside functions, so that `train --help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from train.config import TrainConfig
from train.data.batch import Batch, Needs

if TYPE_CHECKING:
    import torch

    from train.data.augment.mixup import Mix

Terms = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Data:
    """What a task may know of its data before it is built.

    Attributes:
        samples: of each source, in order.
        classes: names of the classes, where the manifests state them.
    """

    samples: tuple[int, ...]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """Where a training is: the step, how many there are, and the passes over the data so far."""

    step: int
    steps: int
    epoch: float


class Task:
    """From a batch of the loader to the terms of a loss.

    Attributes:
        needs: what the loader has to deliver.
        model: what is exported, an nn.Module: a CLIP, or an image tower.
        heads: an nn.ModuleDict of what is trained, or kept, beside it and dropped for transfer: projections, a classifier,
            a teacher, queues.
        image_size: S, the side of the crops.
        mix: how neighbours are mixed, for tasks with labels.
        smoothing: of the labels that are mixed.
    """

    mix: Mix | None = None
    smoothing: float = 0.0
    needs: Needs
    model: Any
    heads: Any
    image_size: int

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return what the loss compares, one row for each of the n samples.

        Args:
            views: (n, 3, S, S) normalised images on the device, one entry for each of the task's views.
            batch: the rest of the batch, on the host.
        """
        raise NotImplementedError

    def loss(self, features: Terms, batch: Batch, at: Step) -> Terms:
        """Return the terms of the loss, scalars whose names end in `_loss` (their sum is minimised), and other numbers to log."""
        raise NotImplementedError

    def after_step(self, at: Step) -> None:
        """Change weights after the optimiser's step: clamp a temperature, move a teacher."""

    def gauges(self) -> Terms:
        """Return what the log shows beside the loss."""
        return {}


class Module(Protocol):
    """The shape of a task's module."""

    Config: type[TrainConfig]

    def build(self, config: Any, data: Data) -> Task:
        """Return the task of a configuration, its first weights a function of torch's seed."""
        ...
