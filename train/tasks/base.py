"""What a training task is: a file that turns batches into loss terms. It becomes a verb of `train` by being there.

A task module has

    Config(TrainConfig)        its flags; TASK is the file's name, AUGMENT the preset that it augments by
    build(config, data) -> Task

The first line of its docstring is its help. torch is imported inside functions, so that `train --help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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


class Losses(NamedTuple):
    """What a task makes of a batch: the losses of each of this rank's n samples, with gradient.

    The sum of the terms' means over the global batch is minimised; means and weights are the step's business.

    Attributes:
        terms: (n,) each, by names that end in `_loss`.
        counts: how much each sample counts in the means beside its weight, (n,): 0 without a label; None: all alike.
        numbers: scalars to log.
    """

    terms: Terms
    counts: torch.Tensor | None = None
    numbers: Terms | None = None


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
        classes: names of the classes that a classifier tells apart, in its order; empty where there is none, or no names.
        unit_features: whether that classifier sees features of unit length.
    """

    mix: Mix | None = None
    smoothing: float = 0.0
    classes: tuple[str, ...] = ()
    unit_features: bool = False
    needs: Needs
    model: Any
    heads: Any
    image_size: int

    def started(self) -> None:
        """Change the model once its first weights are there, those of `--from` or fresh ones: freeze parts, add adapters."""

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return what the loss compares, one row for each of the n samples.

        Args:
            views: (n, 3, S, S) normalised images on the device, one entry for each of the task's views.
            batch: the rest of the batch, on the host.
        """
        raise NotImplementedError

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return the losses of the n samples of `features`."""
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
