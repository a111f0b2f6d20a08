"""Train CLIP on images and their captions (softmax, SigLIP or FastCLIP loss)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from shards.core.config import option
from shards.core.errors import UsageError
from train.config import TrainConfig
from train.data.batch import Batch, Needs
from train.tasks import base
from train.tasks.base import Data, Step, Terms

if TYPE_CHECKING:
    import torch

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class FastClipOptions:
    """FastCLIP's own constants (Wei et al. 2024); the defaults are those of its CC3M script."""

    version: Literal["v0", "v1", "v3"] = option("v3", "v1: constant temperature; v3: learned, from the global objective; v0: GCL's")
    rho: float = option(6.5, "ρ of the temperature's term", least=0)
    eps: float = option(1e-14, "ε inside the logarithm", above=0)
    gamma: float = option(0.2, "smallest inner learning rate γ", above=0, most=1)
    gamma_epochs: int = option(18, "epochs in which γ falls from 1 to its smallest", above=0)
    gamma_schedule: Literal["cosine", "constant"] = option("cosine", "how γ falls")
    temperature: float = option(0.07, "τ at the start", above=0)
    temperature_weight: float = option(1.0, "weight of the temperature's gradient through g; the published code has 2", above=0)


@dataclass(frozen=True)
class Config(TrainConfig):
    """Flags of `train clip`."""

    TASK: ClassVar[str] = "clip"

    loss: Literal["clip", "siglip", "fastclip"] = option("clip", "clip: softmax over the batch; siglip: a decision per pair; fastclip")
    text: str = option("", "text tower of this model, for image towers of timm and torchvision (default: ViT-B-32's)", metavar="MODEL")
    text_groups: int = option(1, "encode texts in N groups of like length, each cut to its longest", above=0)
    quick_gelu: bool = option(False, "QuickGELU in text tower and ViTs, as in OpenAI's and SLIP's models")
    temperature_lr: float | None = option(None, "constant learning rate of the temperature (default: the trunk's)", above=0)
    fastclip: FastClipOptions = field(default_factory=FastClipOptions)


class ClipTask(base.Task):
    """CLIP: match images and captions of one batch. `model` is open_clip's CLIP and all that is trained."""

    def __init__(self, config: Config, data: Data) -> None:
        """Build the model; the data's size is needed by FastCLIP's loss, which keeps a number for each sample."""
        from torch import nn

        from train.models.clip import build_clip, context_length
        from train.models.towers import side_of

        self.config = config
        self.model = build_clip(config.model, config.image_size, **build_options(config))
        self.heads = nn.ModuleDict()
        self.image_size = side_of(self.model.visual)
        length = context_length(config.model, config.text or None)
        self.needs = Needs(views=(config.augment,), captions=True, context_length=length)
        self._offsets = [0]
        for samples in data.samples:
            self._offsets.append(self._offsets[-1] + samples)
        if config.loss == "fastclip":
            self._prepare_fastclip()

    def _prepare_fastclip(self) -> None:
        import torch

        from train.losses.fastclip import FastClip

        options = self.config.fastclip
        settings = {"rho": options.rho, "eps": options.eps, "temperature_weight": options.temperature_weight}
        self.heads["fastclip"] = FastClip(self._offsets[-1], options.version, **settings)
        with torch.no_grad():
            self.model.logit_scale.fill_(-math.log(options.temperature))
        if options.version == "v1":  # constant; DDP refuses a trained parameter without a gradient
            self.model.logit_scale.requires_grad_(False)

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return unit-length features of images and texts, (n, d) each."""
        return {"image": encode_images(self.model, views[0]), "text": encode_texts(self.model, batch, views[0], self.config.text_groups)}

    def loss(self, features: Terms, batch: Batch, at: Step) -> Terms:
        """Return the contrastive loss over the global batch."""
        images, texts, scale = features["image"], features["text"], self.model.logit_scale.exp()
        if self.config.loss == "siglip":
            from train.losses.siglip import siglip_loss

            return {"siglip_loss": siglip_loss(images, texts, scale, self.model.logit_bias)}
        if self.config.loss == "fastclip":
            return {"fastclip_loss": self._fastclip(images, texts, scale, batch, at)}
        from train.losses.clip import clip_loss

        return {"clip_loss": clip_loss(images, texts, scale)}

    def _fastclip(self, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, batch: Batch, at: Step) -> torch.Tensor:
        import numpy as np
        import torch

        from train.losses.fastclip import inner_rate

        options = self.config.fastclip
        numbers = np.array(self._offsets)[batch.sources] + batch.positions
        gamma = inner_rate(int(at.epoch), options.gamma, options.gamma_epochs, options.gamma_schedule)
        indices = torch.from_numpy(numbers).to(images.device)
        return self.heads["fastclip"](images, texts, indices, scale, gamma)

    def after_step(self, at: Step) -> None:
        """Keep the logit scale within [1, 100], as CLIP does."""
        import torch

        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def gauges(self) -> Terms:
        """Return the logit scale."""
        return {"logit_scale": self.model.logit_scale.detach().exp()}


def encode_images(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return CLIP's unit-length image features, (n, d)."""
    return model.encode_image(images, normalize=True)


def encode_texts(model: Any, batch: Batch, images: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Return CLIP's unit-length text features, (n, d), of a batch's tokens, which are still on the host."""
    from train.data.text import encode_text, is_trimmable, trim

    if batch.tokens is None:
        raise UsageError("a batch without tokens", "a loader whose needs have a context length")
    tokens = batch.tokens.long()
    if groups == 1 and is_trimmable(model):
        tokens = trim(tokens)
    if groups == 1:
        tokens = tokens.to(images.device, non_blocking=True)
    return encode_text(model, tokens, groups)


def build_options(config: Any) -> dict[str, Any]:
    """Return the options of `train.models.clip.build_clip` that a configuration states."""
    options = config.tower_options()
    if getattr(config, "text", ""):
        options["text"] = config.text
    if getattr(config, "loss", "") == "siglip":
        options["siglip"] = True
    if getattr(config, "quick_gelu", False):
        options["quick_gelu"] = True
    return options


def build(config: Config, data: Data) -> ClipTask:
    """Return the task of a configuration."""
    return ClipTask(config, data)
