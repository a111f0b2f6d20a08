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
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class FastClipOptions:
    """FastCLIP's own constants (Wei et al. 2024); the defaults are those of its CC3M script."""

    version: Literal["v0", "v1", "v2", "v3"] = option(
        "v3", "v1: constant temperature; v2: one of each sample, learned; v3: learned, from the global objective; v0: GCL's"
    )
    rho: float = option(6.5, "ρ of the temperature's term", least=0)
    eps: float = option(1e-14, "ε inside the logarithm", above=0)
    gamma: float = option(0.2, "smallest inner learning rate γ", above=0, most=1)
    gamma_epochs: int = option(18, "epochs in which γ falls from 1 to its smallest", above=0)
    gamma_schedule: Literal["cosine", "constant"] = option("cosine", "how γ falls")
    temperature: float = option(0.07, "τ at the start", above=0)
    temperature_weight: float = option(1.0, "weight of the temperature's gradient through g; the published code has 2", above=0)
    temperature_fall: float = option(
        0.0, "τ from which down its learning rate is a third; the published code has 0.03, 0: never", least=0, below=1
    )


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
        from train.losses.temperatures import TemperatureAdam

        options, config = self.config.fastclip, self.config
        is_learned = options.version in ("v0", "v3")
        if options.temperature_fall and not is_learned:
            raise UsageError(f"temperature_fall with FastCLIP {options.version}", "v0 or v3, which learn one temperature of all samples")
        adam = TemperatureAdam(config.temperature_lr or config.lr, config.beta1, config.beta2, config.eps)
        self.heads["fastclip"] = FastClip(
            self._offsets[-1],
            options.version,
            rho=options.rho,
            eps=options.eps,
            temperature_weight=options.temperature_weight,
            temperature=options.temperature,
            temperature_adam=adam,
        )
        with torch.no_grad():
            self.model.logit_scale.fill_(-math.log(options.temperature))
        if not is_learned:  # constant; DDP refuses a trained parameter without a gradient
            self.model.logit_scale.requires_grad_(False)

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return unit-length features of images and texts, (n, d) each."""
        return {"image": encode_images(self.model, views[0]), "text": encode_texts(self.model, batch, views[0], self.config.text_groups)}

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return the contrastive loss over the global batch."""
        images, texts, scale = features["image"], features["text"], self.model.logit_scale.exp()
        if self.config.loss == "siglip":
            from train.losses.siglip import siglip_loss

            return Losses({"siglip_loss": siglip_loss(images, texts, scale, self.model.logit_bias)})
        if self.config.loss == "fastclip":
            return Losses({"fastclip_loss": self._fastclip(images, texts, scale, batch, at)})
        from train.losses.clip import clip_loss

        return Losses({"clip_loss": clip_loss(images, texts, scale)})

    def _fastclip(self, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, batch: Batch, at: Step) -> torch.Tensor:
        import numpy as np
        import torch

        from train.losses.fastclip import inner_rate

        options = self.config.fastclip
        numbers = np.array(self._offsets)[batch.sources] + batch.positions
        epoch = int(at.epoch)
        gamma = inner_rate(epoch, options.gamma, options.gamma_epochs, options.gamma_schedule)
        indices = torch.from_numpy(numbers).to(images.device)
        self._scale_before = self.model.logit_scale.detach().clone()
        return self.heads["fastclip"](images, texts, indices, scale, gamma, epoch)

    def after_step(self, at: Step) -> None:
        """Keep the logit scale within [1, 100], as CLIP does; FastCLIP's moves slower where τ is small."""
        import torch

        with torch.no_grad():
            if self.config.loss == "fastclip" and self.config.fastclip.temperature_fall:
                self._slow_temperature()
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def _slow_temperature(self) -> None:
        """Take back two thirds of the temperature's step where it started from a τ at or below `temperature_fall`.

        The published code divides the learning rate by 3 instead (`step_lr_thresh`). The step of each of our optimisers is
        proportional to the rate, so that the result is the same; and here the host need not wait for τ.
        """
        import torch

        scale, before = self.model.logit_scale, self._scale_before
        is_small = -before <= math.log(self.config.fastclip.temperature_fall)
        scale.copy_(torch.where(is_small, before + (scale - before) / 3, scale))

    def gauges(self) -> Terms:
        """Return the logit scale; of FastCLIP v2, whose scale is constant, also the batch's mean temperature."""
        gauges = {"logit_scale": self.model.logit_scale.detach().exp()}
        if self.config.loss == "fastclip" and self.config.fastclip.version == "v2":
            gauges["temperature"] = self.heads["fastclip"].temperature
        return gauges


def encode_images(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return CLIP's unit-length image features, (n, d)."""
    return model.encode_image(images, normalize=True)


def encode_texts(model: Any, batch: Batch, images: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Return CLIP's unit-length text features, (n, d), of a batch's tokens, which are still on the host, cut by the step."""
    import torch

    from train.data.text import encode_text

    if batch.tokens is None:
        raise UsageError("a batch without tokens", "a loader whose needs have a context length")
    tokens = batch.tokens
    if groups == 1:
        # As int32, page-locked and one run of bytes, or the copy would wait for the device. A whole ring's ids are all that.
        if images.device.type == "cuda" and not torch.compiler.is_compiling():
            tokens = tokens.contiguous().pin_memory()
        tokens = tokens.to(images.device, non_blocking=True).long()
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
