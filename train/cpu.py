"""Engine `cpu`: decode, crop and resize one image in the calling thread; the heavy parts release the GIL.

JPEG goes through libjpeg-turbo, at 1/2, 1/4 or 1/8 scale where the crop stays large enough; PNG, WebP and CMYK through
Pillow. The crop is resized with antialiasing to uint8, as Pillow would do it, to within a level.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from train.augment import Window

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# A scaled decode must leave the crop this many times the target: at 1 its box-like filter can be seen (mean
# difference from a full decode 1.7 levels of 255 on photo mosaics, 99th percentile 10), from 1.5 on it cannot (0.8, 4).
MARGIN = 1.5
_TAIL = 1024  # bytes at the end of a JPEG in which its end marker normally stands


class DecodeError(ValueError):
    """The image cannot be decoded; the text says why."""


def image_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) as stored (EXIF orientation is not applied), from the header.

    Raises:
        DecodeError: no header of a known format.
    """
    return _header(data)[:2] if _is_jpeg(data) else _pillow(data).shape[:2]


def check_whole(data: bytes) -> None:
    """Refuse a JPEG that is cut off, whatever part of it the crop would use.

    One without an end marker near its end is decoded whole, to see. Both engines ask this, so both refuse the same.

    Raises:
        DecodeError: data are missing.
    """
    import simplejpeg

    if not data:
        raise DecodeError("no bytes")
    if _is_jpeg(data) and b"\xff\xd9" not in data[-_TAIL:]:
        try:
            simplejpeg.decode_jpeg(data, "GRAY", strict=True)
        except ValueError as error:
            raise DecodeError(f"JPEG cut off: {error}") from error


def decode(data: bytes, window: Window, size: int, interpolation: str = "bicubic") -> Pixels:
    """Return the window of an image, resized to (size, size, 3) uint8 RGB.

    Args:
        window: in pixels of the stored image, inside it.
        interpolation: bicubic or bilinear.

    Raises:
        DecodeError: it cannot be decoded.
    """
    if not _is_jpeg(data) or _header(data)[2] in ("CMYK", "YCCK"):
        return _resize(_pillow(data), window, 1, size, interpolation)
    factor = _factor(window, size)
    pixels = _jpeg(data, factor)
    # Stray bytes between segments harm nothing, yet simplejpeg refuses them whatever it is told.
    return (
        _resize(_pillow(data), window, 1, size, interpolation) if pixels is None else _resize(pixels, window, factor, size, interpolation)
    )


def decode_centre(data: bytes, size: int, interpolation: str = "bicubic") -> Pixels:
    """Return an image as evaluation sees it: shorter side resized to `size` and the centre cropped, (size, size, 3).

    Raises:
        DecodeError: it cannot be decoded.
    """
    from train.augment import centre_window

    check_whole(data)
    return decode(data, centre_window(*image_size(data)), size, interpolation)


def _is_jpeg(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff"


def _factor(window: Window, size: int) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the window MARGIN times the target."""
    factor = 1
    while factor < 8 and min(window.height, window.width) >= 2 * factor * MARGIN * size:
        factor *= 2
    return factor


def _header(data: bytes) -> tuple[int, int, str]:
    """Return a JPEG's height, width and colour space."""
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except ValueError as error:
        raise DecodeError(f"JPEG header: {error}") from error
    return height, width, space


def _jpeg(data: bytes, factor: int) -> Pixels | None:
    """Return all of a JPEG at 1/factor scale (sides rounded up), RGB; None where stray bytes stand between its segments.

    Bit errors inside the scan are let pass, as DALI does.
    """
    import simplejpeg

    height, width, _ = _header(data)
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor), strict=False)
    except ValueError as error:
        if "extraneous bytes before marker" in str(error):
            return None
        raise DecodeError(f"JPEG: {error}") from error


def _pillow(data: bytes) -> Pixels:
    """Return all of an image through Pillow, RGB; alpha is dropped, as DALI does."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            through = image.convert("RGBA") if "transparency" in image.info else image
            return np.array(through.convert("RGB"))
    except UnidentifiedImageError as error:  # its text holds a memory address, which is not the same twice
        raise DecodeError("no image of a known format") from error
    except Exception as error:  # Pillow's decoders raise whatever they like; it is this sample's fault
        raise DecodeError(f"{type(error).__name__}: {error}") from error


def _resize(image: Pixels, window: Window, factor: int, size: int, interpolation: str) -> Pixels:
    """Cut a window, given in full-size pixels, out of an image at 1/factor scale, and resize it."""
    if factor == 1:
        return _resize_whole(image[window.top : window.top + window.height, window.left : window.left + window.width], size, interpolation)
    import numpy as np
    from PIL import Image

    # Pillow alone takes fractional edges, which a scaled window has; rounding them would shift the image by up to
    # half a pixel (3 levels).
    box = (
        window.left / factor,
        window.top / factor,
        min((window.left + window.width) / factor, image.shape[1]),
        min((window.top + window.height) / factor, image.shape[0]),
    )
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling[interpolation.upper()], box=box))


def _resize_whole(crop: Pixels, size: int, interpolation: str) -> Pixels:
    """Resize to (size, size, 3): torch's uint8 kernel, twice as fast as Pillow and equal to it within a level."""
    import torch
    import torch.nn.functional as F

    images = torch.from_numpy(crop).permute(2, 0, 1)[None]
    resized: Any = F.interpolate(images, (size, size), mode=interpolation, antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


class CpuEngine:
    """Decodes each sample in the pool thread that read it."""

    def __init__(self, size: int, interpolation: str, pin: bool = False) -> None:
        """Take the side of the crops; `pin` puts batches into page-locked memory for a GPU."""
        self.size, self.interpolation, self.pin = size, interpolation, pin

    def one(self, data: bytes, window: Window) -> Any:
        """Return one sample's pixels.

        Raises:
            DecodeError: it cannot be decoded.
        """
        return decode(data, window, self.size, self.interpolation)

    def batch(self, parts: list[Any]) -> tuple[torch.Tensor, dict[int, str]]:
        """Return (n, 3, S, S) uint8, channels last in memory, and which samples failed and why: none here."""
        import numpy as np
        import torch

        images = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)
        return (images.pin_memory() if self.pin else images), {}
