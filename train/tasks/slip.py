"""Train SLIP: CLIP on one view and its caption, SimCLR on two other views, with one image tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from shards.core.config import option
from train.data.augment.params import Augment
from train.data.augment.presets import preset
from train.data.batch import Batch, Needs
from train.tasks import clip
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config(clip.Config):
    """Flags of `train slip`."""

    TASK: ClassVar[str] = "slip"
    AUGMENT: ClassVar[str] = "slip"
    AUGMENT_SSL: ClassVar[str] = "simclr"

    augment_ssl: Augment = option(preset("simclr"), "augmentation of the two views of SimCLR, by name; YAML may change single keys")
    ssl_scale: float = option(1.0, "weight of SimCLR's loss beside CLIP's", least=0)
    ssl_temp: float = option(0.1, "temperature of NT-Xent", above=0)
    ssl_mlp_dim: int = option(4096, "width of the projection's hidden layers", above=0)
    ssl_emb_dim: int = option(256, "width of the projection's output", above=0)
    beta2: float = option(0.98, "AdamW's beta 2", least=0, below=1)


class SlipTask(clip.ClipTask):
    """SLIP (Mu et al. 2021). `model` is the CLIP; the projection stands beside it."""

    config: Config

    def __init__(self, config: Config, data: Data) -> None:
        """Build CLIP, and a projection of its image features.

        The published SLIP takes a ViT's features before CLIP's own linear projection; open_clip's towers end in it, and for
        RN50 both are the 1,024 features of the attention pooling.
        """
        super().__init__(config, data)
        from train.models.heads import projection_mlp

        width = feature_width(self.model, self.image_size)
        self.heads["projection"] = projection_mlp(width, config.ssl_mlp_dim, config.ssl_emb_dim)
        self.needs = Needs(
            (config.augment, config.augment_ssl, config.augment_ssl), captions=True, context_length=self.needs.context_length
        )

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return CLIP's features of view 0 and its caption, and the projections of views 1 and 2."""
        projection = self.heads["projection"]
        terms = super().features(views, batch)
        terms["first"] = projection(self.model.encode_image(views[1]))
        terms["second"] = projection(self.model.encode_image(views[2]))
        return terms

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return CLIP's loss and the weighted one of SimCLR."""
        from train.losses.nt_xent import nt_xent

        terms = super().loss(features, batch, at).terms
        of_views = nt_xent(features["first"], features["second"], self.config.ssl_temp)
        return Losses({**terms, "simclr_loss": self.config.ssl_scale * of_views})


def feature_width(model: Any, image_size: int) -> int:
    """Return the width of CLIP's image features."""
    import torch

    with torch.no_grad():
        was_training = model.training
        features = model.eval().encode_image(torch.zeros(1, 3, image_size, image_size))
        model.train(was_training)
    return int(features.shape[1])


def build(config: Config, data: Data) -> SlipTask:
    """Return the task of a configuration."""
    return SlipTask(config, data)
