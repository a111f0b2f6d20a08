"""Train BYOL: predict a slowly moving teacher's features of another view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from shards.core.config import option
from train.config import TrainConfig
from train.data.augment.params import Augment
from train.data.augment.presets import preset
from train.data.batch import Batch, Needs
from train.tasks import base
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config(TrainConfig):
    """Flags of `train byol`."""

    TASK: ClassVar[str] = "byol"
    AUGMENT: ClassVar[str] = "byol-1"
    AUGMENT_SECOND: ClassVar[str] = "byol-2"

    augment_second: Augment = option(preset("byol-2"), "augmentation of the second view, by name; YAML may change single keys")
    teacher_momentum: float = option(0.996, "the teacher's momentum at the start; a cosine takes it to 1", least=0, most=1)
    mlp_hidden: int = option(4096, "width of the hidden layers of projection and prediction", above=0)
    mlp_out: int = option(256, "width of their outputs", above=0)


class ByolTask(base.Task):
    """BYOL (Grill et al. 2020). The teacher, an average of tower and projection, is kept among the heads."""

    def __init__(self, config: Config) -> None:
        """Build tower, projection, prediction and teacher."""
        from torch import nn

        from train.models.ema import Ema
        from train.models.heads import byol_mlp
        from train.models.towers import build_tower

        self.config = config
        tower = build_tower(config.model, config.image_size, **config.tower_options())
        self.model, self.image_size = tower, tower.image_size
        projection = byol_mlp(tower.width, config.mlp_hidden, config.mlp_out)
        prediction = byol_mlp(config.mlp_out, config.mlp_hidden, config.mlp_out)
        self.heads = nn.ModuleDict({"projection": projection, "prediction": prediction})
        self.heads["teacher"] = Ema(nn.Sequential(tower, projection), config.teacher_momentum, buffers="own")
        self.needs = Needs(views=(config.augment, config.augment_second))

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return the predictions of both views and what the teacher makes of them."""
        import torch

        projection, prediction, teacher = self.heads["projection"], self.heads["prediction"], self.heads["teacher"]
        terms = {}
        for name, view in zip(("first", "second"), views, strict=True):
            terms[f"{name}_prediction"] = prediction(projection(self.model(view)))
            with torch.no_grad():
                terms[f"{name}_target"] = teacher(view)
        return terms

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return the regression of each view's prediction to the teacher's features of the other one."""
        from train.losses.byol import byol_loss

        first, second = features["first_prediction"], features["second_prediction"]
        return Losses({"byol_loss": byol_loss(first, second, features["first_target"], features["second_target"])})

    def after_step(self, at: Step) -> None:
        """Move the teacher towards the student."""
        from torch import nn

        from train.models.ema import byol_momentum

        student = nn.Sequential(self.model, self.heads["projection"])
        momentum = byol_momentum(at.step, at.steps, self.config.teacher_momentum)
        self.heads["teacher"].update(student, momentum)  # type: ignore[operator]


def build(config: Config, data: Data) -> ByolTask:
    """Return the task of a configuration."""
    return ByolTask(config)
