"""CLIP: match images and captions of one batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from train.losses.clip import clip_loss
from train.model import build_model, build_tokenizer, image_size_of
from train.photometric import Photometric
from train.text import encode_text, is_trimmable, trim

if TYPE_CHECKING:
    from open_clip import CLIP

    from train.config import TrainConfig
    from train.loader import Batch
    from train.text import Tokenizer

MAX_LOGIT_SCALE = math.log(100)


class ClipTask(nn.Module):
    """From a batch of the loader to CLIP's loss. `model` is open_clip's and all that is trained."""

    model: CLIP

    def __init__(self, model: CLIP, tokenize: Tokenizer, photometric: nn.Module, channels_last: bool = False) -> None:
        super().__init__()
        self.layout: torch.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.layout)
        self.photometric = photometric
        self.tokenize: Tokenizer = tokenize
        self.image_size = image_size_of(model)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the terms of the loss, whose names end in `_loss`."""
        device = self.model.logit_scale.device
        with torch.autocast(device.type, enabled=False):
            images = self.photometric(batch.images.to(device, non_blocking=True), batch.params)
        tokens = self.tokenize(batch.captions)
        tokens = (trim(tokens) if is_trimmable(self.model) else tokens).to(device, non_blocking=True)
        seen = self.model.encode_image(images.contiguous(memory_format=self.layout), normalize=True)
        read = encode_text(self.model, tokens)
        with torch.autocast(device.type, enabled=False):
            return {"clip_loss": clip_loss(seen.float(), read.float(), self.model.logit_scale.exp())}

    def constrain(self) -> None:
        """After a step: keep the logit scale within [1, 100], as CLIP does."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def gauges(self) -> dict[str, torch.Tensor]:
        """Return what the log shows beside the loss."""
        return {"logit_scale": self.model.logit_scale.detach().exp()}


def build(config: TrainConfig) -> ClipTask:
    """Return the task of a configuration, its weights a function of the seed."""
    model = build_model(config.model, config.image_size)
    return ClipTask(model, build_tokenizer(config.model), Photometric(config.augment), config.channels_last)
