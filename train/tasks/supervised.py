"""Train a classifier on images and their class numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from shards.core.config import option
from shards.core.errors import UsageError
from train.config import TrainConfig
from train.data.augment.mixup import Mix
from train.data.batch import Batch, Needs
from train.tasks import base
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config(TrainConfig):
    """Flags of `train supervised`."""

    TASK: ClassVar[str] = "supervised"
    AUGMENT: ClassVar[str] = "supervised"

    classes: int | None = option(None, "how many classes there are (default: as many as the manifests name)", above=1)
    smoothing: float = option(0.0, "label smoothing", least=0, below=1)
    multi_label: bool = option(False, "a sample may have several labels: a binary decision per class")
    mix: Mix = field(default_factory=Mix)


class SupervisedTask(base.Task):
    """An image tower and a linear classifier, trained with cross entropy."""

    def __init__(self, config: Config, data: Data) -> None:
        """Build the tower and the classifier.

        Raises:
            UsageError: nobody says how many classes there are, or several labels are to be mixed or smoothed.
        """
        from torch import nn

        from train.models.heads import linear_classifier
        from train.models.towers import build_tower

        classes = config.classes or len(data.classes)
        if not classes:
            raise UsageError("the data do not say how many classes they have", "--classes N")
        if config.multi_label and (config.mix.active or config.smoothing):
            raise UsageError("--multi-label with Mixup or label smoothing", "one of them")
        self.config = config
        self.mix = config.mix if config.mix.active else None
        self.smoothing = config.smoothing
        self.classes = data.classes
        tower = build_tower(config.model, config.image_size, **config.tower_options())
        self.model, self.image_size = tower, tower.image_size
        self.heads = nn.ModuleDict({"classifier": linear_classifier(tower.width, classes, "normal")})
        self.needs = Needs(views=(config.augment,), classes=classes, multi_label=config.multi_label)

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return the classifier's logits, (n, classes)."""
        return {"logits": self.heads["classifier"](self.model(views[0]))}

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return the cross entropy of the samples that have a label, and the share of them that is classified rightly."""
        from train.losses.classification import multi_label_loss

        logits = features["logits"]
        if self.config.multi_label:
            if batch.labels is None:
                raise UsageError("a batch without labels", "a loader whose needs have classes")
            labels = batch.labels.to(logits.device, non_blocking=True)
            losses = multi_label_loss(logits, labels)
            return Losses({"supervised_loss": losses.values}, losses.counts)
        return classification_losses(logits, batch, self.config.smoothing, "supervised_loss")


def classification_losses(logits: torch.Tensor, batch: Batch, smoothing: float, name: str) -> Losses:
    """Return the cross entropy of each labelled or mixed sample under a name, and the share that is classified rightly as `acc1`.

    Args:
        logits: (n, classes).
        batch: with labels, (n,), or soft labels, (n, classes).
    """
    from train.losses.classification import cross_entropy, soft_cross_entropy

    if batch.labels is None:
        raise UsageError("a batch without labels", "a loader whose needs have classes")
    if batch.soft_labels is not None:
        targets = batch.soft_labels.to(logits.device, non_blocking=True)
        mixed = soft_cross_entropy(logits, targets)
        return Losses({name: mixed.values}, mixed.counts)
    labels = batch.labels.to(logits.device, non_blocking=True)
    right = (logits.detach().argmax(1) == labels).float().sum()  # never at -1, which stands for no label
    share = right / (labels >= 0).sum().clamp(min=1)
    losses = cross_entropy(logits, labels, smoothing)
    return Losses({name: losses.values}, losses.counts, {"acc1": share})


def build(config: Config, data: Data) -> SupervisedTask:
    """Return the task of a configuration."""
    return SupervisedTask(config, data)
