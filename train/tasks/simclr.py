"""Train SimCLR: two views of an image agree, views of other images do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from shards.core.config import option
from train.config import TrainConfig
from train.data.batch import Batch, Needs
from train.tasks import base
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config(TrainConfig):
    """Flags of `train simclr`."""

    TASK: ClassVar[str] = "simclr"
    AUGMENT: ClassVar[str] = "simclr"

    temperature: float = option(0.1, "temperature of NT-Xent", above=0)
    mlp_hidden: int = option(4096, "width of the projection's hidden layers", above=0)
    mlp_out: int = option(256, "width of the projection's output", above=0)
    beta2: float = option(0.98, "AdamW's beta 2", least=0, below=1)


class SimclrTask(base.Task):
    """SimCLR (Chen et al. 2020, as in SLIP): an image tower, a projection MLP, NT-Xent over the global batch."""

    def __init__(self, config: Config) -> None:
        """Build the tower and the projection."""
        from torch import nn

        from train.models.heads import projection_mlp
        from train.models.towers import build_tower

        self.config = config
        tower = build_tower(config.model, config.image_size, **config.tower_options())
        self.model, self.image_size = tower, tower.image_size
        self.heads = nn.ModuleDict({"projection": projection_mlp(tower.width, config.mlp_hidden, config.mlp_out)})
        self.needs = Needs(views=(config.augment, config.augment))

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return the projections of both views, (n, d) each."""
        return project(self.model, self.heads["projection"], views)

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return NT-Xent."""
        from train.losses.nt_xent import nt_xent

        return Losses({"simclr_loss": nt_xent(features["first"], features["second"], self.config.temperature)})


def project(tower: torch.nn.Module, projection: torch.nn.Module, views: list[torch.Tensor]) -> Terms:
    """Return the projections of two views.

    The views go through the network one after the other, as in SLIP: BatchNorm never mixes them.
    """
    first, second = (projection(tower(view)) for view in views)
    return {"first": first, "second": second}


def build(config: Config, data: Data) -> SimclrTask:
    """Return the task of a configuration."""
    return SimclrTask(config)
