"""RandAugment's operations in torch, on batches of uint8 crops, each sample with its own argument, on any device.

The colour operations are torchvision's uint8 functionals (`torchvision.transforms.v2.functional`), the geometric ones
Pillow's affine transforms as timm calls them, bilinear, with a fill colour. Samples that get the same operation go through
it together; all geometric operations are one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tv

from train.data.augment.randaugment import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "TranslateX", "TranslateY")


def apply(images: torch.Tensor, policy: NDArray[np.float32], fill: torch.Tensor) -> torch.Tensor:
    """Apply to each sample its operations, layer after layer.

    Args:
        images: (n, 3, S, S) uint8; changed in place.
        policy: (n, layers, 4), as `randaugment.draw` returns it; on the host.
        fill: (3,), the levels of pixels from outside the image, on the device of `images`.

    Returns:
        `images`.
    """
    for layer in range(policy.shape[1]):
        codes = policy[:, layer, 0]
        moved = _geometric(codes)
        if moved.any():
            _replace(images, moved, lambda chosen, facts: affine(chosen, facts, fill), _matrices(policy[moved, layer], images.shape[-1]))
        for code, name in enumerate(OPERATIONS):
            chosen = codes == code
            if name == "Cutout" and chosen.any():
                _replace(images, chosen, lambda some, facts: cutout(some, facts, fill), policy[chosen, layer, 1:])
            elif name not in GEOMETRIC and chosen.any():
                _replace(images, chosen, BY_NAME[name], policy[chosen, layer, 1])
    return images


def _geometric(codes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which codes are geometric operations."""
    import numpy as np

    return np.isin(codes, [OPERATIONS.index(name) for name in GEOMETRIC])


def _replace(images: torch.Tensor, chosen: NDArray[np.bool_], operation: Operation, facts: NDArray[np.float32]) -> None:
    """Put an operation's result in the place of the chosen samples; `facts` are its arguments, one row a sample."""
    rows = torch.from_numpy(chosen.nonzero()[0]).to(images.device, non_blocking=True)
    arguments = torch.from_numpy(facts).to(images.device, non_blocking=True)
    images.index_copy_(0, rows, operation(images[rows], arguments))


def _matrices(facts: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return for each sample the (2, 3) matrix from output to input, both in [−1, 1] across the image.

    A shear keeps the upper left corner; a rotation keeps the centre, and turns counter-clockwise for positive degrees, as
    Pillow's do.
    """
    import numpy as np

    matrices = np.tile(np.eye(2, 3, dtype=np.float32), (len(facts), 1, 1))
    for matrix, (code, argument) in zip(matrices, facts[:, :2], strict=True):
        name = OPERATIONS[int(code)]
        if name == "Rotate":
            radians = np.deg2rad(argument)
            matrix[:, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
        elif name == "ShearX":
            matrix[0, 1:] = argument
        elif name == "ShearY":
            matrix[1, [0, 2]] = argument
        else:
            share = argument if name.endswith("Rel") else argument / side
            matrix[0 if name.startswith("TranslateX") else 1, 2] = 2 * share
    return matrices


def affine(images: torch.Tensor, matrices: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Return (k, 3, S, S) uint8 sampled through (k, 2, 3) matrices, bilinear; the outside is `fill`."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    inside = torch.ones_like(images[:, :1], dtype=torch.float32)
    padded = torch.cat([images.to(torch.float32), inside], 1)
    sampled = F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    pixels, coverage = sampled[:, :3], sampled[:, 3:]
    # Outside counts as black in `pixels`, so the fill colour is added by its share.
    return (pixels + (1 - coverage) * fill.view(1, 3, 1, 1)).round().clamp(0, 255).to(torch.uint8)


def cutout(images: torch.Tensor, facts: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Fill a square of (k, 3, S, S), from centre − half to centre + half (big_vision's cutout).

    Args:
        images: uint8.
        facts: (k, 3), half the square's side in pixels, and its centre's y and x as shares of S.
        fill: (3,), levels.
    """
    side = images.shape[-1]
    place = torch.arange(side, device=images.device)
    half = facts[:, :1]
    across = [
        (place >= (share * side).floor() - half) & (place < (share * side).floor() + half) for share in (facts[:, 1:2], facts[:, 2:3])
    ]
    square = across[0].view(-1, 1, side, 1) & across[1].view(-1, 1, 1, side)
    return torch.where(square, fill.to(torch.uint8).view(1, 3, 1, 1), images)


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def blend(first: torch.Tensor, second: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Return ratio · first + (1 − ratio) · second as uint8, cut to [0, 255] and down to whole levels, as torchvision does."""
    return (_column(ratio) * first + (1 - _column(ratio)) * second).clamp(0, 255).to(torch.uint8)


def _gray(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.to(torch.float32).unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor().unsqueeze(1)


def color(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the gray image (adjust_saturation)."""
    return blend(images, _gray(images), factor)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean gray (adjust_contrast). big_vision divides the sum by 256 instead of the pixels; that is not copied."""
    return blend(images, _gray(images).mean((1, 2, 3), keepdim=True), factor)


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with black (adjust_brightness)."""
    return blend(images, torch.zeros_like(images), factor)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend the inner pixels with a smoothed image: 3 × 3, centre 5, others 1, over 13 (adjust_sharpness)."""
    values = images.to(torch.float32)
    kernel = torch.ones((3, 1, 3, 3), device=images.device) / 13
    kernel[:, :, 1, 1] = 5 / 13
    smooth = F.conv2d(values, kernel, groups=3).round()
    result = images.clone()
    result[..., 1:-1, 1:-1] = blend(values[..., 1:-1, 1:-1], smooth, factor)
    return result


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the upper bits of each level (posterize)."""
    mask = 256 - torch.pow(2.0, 8 - bits)
    return images & _column(mask.to(torch.uint8))


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert levels from the threshold on (solarize); from 256 on, none."""
    return torch.where(images >= _column(threshold), 255 - images, images)


def solarize_add(images: torch.Tensor, add: torch.Tensor) -> torch.Tensor:
    """Add to levels below 128 (timm's solarize_add)."""
    lighter = (images + _column(add)).clamp(max=255).to(torch.uint8)
    return torch.where(images < 128, lighter, images)


BY_NAME: dict[str, Operation] = {
    "AutoContrast": lambda images, _: tv.autocontrast(images),
    "Equalize": lambda images, _: tv.equalize(images),
    "Invert": lambda images, _: tv.invert(images),
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
}
