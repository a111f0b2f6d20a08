"""Raw pixels as features: what a protocol finds without any model, as the control that a model has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards.core.config import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

NAME = "pixels"
SIDE = 16
VERSION = 1


def _flatten() -> Any:
    from torch import nn

    return nn.Flatten()


@dataclass(frozen=True)
class Pixels:
    """Stands where a model stands: its features of an image are the 3 · SIDE² values, 0 to 1, of the shrunken centre crop.

    Protocols standardise them by the training images (`eval.protocols.base` says where).
    """

    model: Any = field(default_factory=_flatten)
    image_size: int = SIDE
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    digest: str = digest({"features": NAME, "side": SIDE, "version": VERSION})
    step: int = 0
    samples_seen: int = 0
    manifests: tuple[dict[str, Any], ...] = ()
    config: dict[str, Any] = field(default_factory=lambda: {"model": NAME, "image_size": SIDE})
    reads_text: bool = False

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, 3 · SIDE²) float32 of images (n, 3, SIDE, SIDE)."""
        return self.model(images.contiguous()).float()

    def embed_texts(self, texts: Sequence[str], device: str = "cpu") -> torch.Tensor:
        """Refuse: pixels read no text.

        Raises:
            UsageError: always.
        """
        from shards.core.errors import UsageError

        raise UsageError("pixels read no text", "a checkpoint of clip or slip", "evaluate probe")
