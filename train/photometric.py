"""Flip, colour jitter, gray, blur and normalise a batch from its parameters, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from train.augment import Augment, AugmentParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Photometric(nn.Module):
    """uint8 crops and their parameters → normalised float crops.

    Each operation is torchvision's functional of the same name on floats in [0, 1], applied per sample but batched:
    horizontal flip, then brightness, contrast, saturation and hue in the sample's own order, gray, Gaussian blur with
    a kernel of a tenth of the side (SimCLR's), then (x − mean) / std. It has no state and draws nothing.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, augment: Augment) -> None:
        """Take the mean and std of a configuration; everything else comes with the parameters."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(augment.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(augment.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
        """Return (n, 3, S, S) float32, normalised, from (n, 3, S, S) uint8 and the parameters of the n samples."""
        x = images.to(torch.float32) / 255
        if (rows := _rows(params.flip, x)) is not None:
            x = x.index_copy(0, rows, x[rows].flip(-1))
        x = jitter(x, params)
        if (rows := _rows(params.gray, x)) is not None:
            x = x.index_copy(0, rows, luma(x[rows]).expand(-1, 3, -1, -1))
        if (rows := _rows(params.sigma > 0, x)) is not None:
            sigma = torch.from_numpy(params.sigma[params.sigma > 0]).to(x.device)
            x = x.index_copy(0, rows, blur(x[rows], sigma))
        return (x - self.mean) / self.std


def _rows(mask: NDArray[np.bool_], x: torch.Tensor) -> torch.Tensor | None:
    """Return the indices where a mask is set, on x's device; None where nowhere. The parameters stay on the host, so a GPU never waits."""
    rows = mask.nonzero()[0]
    return torch.from_numpy(rows).to(x.device, non_blocking=True) if len(rows) else None


def jitter(x: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Apply each sample's four colour factors in its own order to (n, 3, H, W) in [0, 1]; neutral factors are passed over."""
    neutral = (1.0, 1.0, 1.0, 0.0)
    for turn in range(4):
        for which, operation in enumerate((brightness, contrast, saturation, hue)):
            chosen = (params.order[:, turn] == which) & (params.factors[:, which] != neutral[which])
            if (rows := _rows(chosen, x)) is not None:
                factor = torch.from_numpy(params.factors[chosen, which]).to(x.device).view(-1, 1, 1, 1)
                x = x.index_copy(0, rows, operation(x[rows], factor))
    return x


def luma(x: torch.Tensor) -> torch.Tensor:
    """Return ITU-R 601 luma, (n, 1, H, W), with torchvision's coefficients."""
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def brightness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with black."""
    return (factor * x).clamp(0, 1)


def contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean gray of each image."""
    mean = luma(x).mean((1, 2, 3), keepdim=True)
    return (factor * x + (1 - factor) * mean).clamp(0, 1)


def saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the gray image."""
    return (factor * x + (1 - factor) * luma(x)).clamp(0, 1)


def hue(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Turn the hue by a factor in turns, through HSV.

    RGB is rebuilt by the closed form f(n) = v − v·s·max(0, min(k, 4 − k, 1)), k = (n + 6h) mod 6, n = 5, 3, 1.
    """
    value, _ = x.max(1, keepdim=True)
    chroma = value - x.min(1, keepdim=True).values
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = x.split(1, dim=1)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sextant + 6 * factor
    offsets = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
    k = (offsets + turned) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each of (n, 3, H, W) with its own sigma: an odd kernel of about a tenth of the side, reflected borders."""
    n, channels, height, width = x.shape
    side = max(int(0.1 * width) | 1, 3)
    grid = torch.arange(side, device=x.device, dtype=x.dtype) - side // 2
    kernel = torch.exp(-0.5 * (grid / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(x.reshape(1, n * channels, height, width), [side // 2] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, side, 1), groups=n * channels)
    return F.conv2d(flat, kernel.view(-1, 1, 1, side), groups=n * channels).view(n, channels, height, width)
