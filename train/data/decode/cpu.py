"""Decode, crop and resize one image in the calling thread; the heavy parts release the interpreter's lock.

A plain JPEG goes through libjpeg-turbo, at 1/2, 1/4 or 1/8 scale where every crop stays large enough. All else goes through
Pillow, upright and in sRGB (`shards.upright`). Crops are resized with antialiasing, as Pillow would do it, to within a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shards.decoding import MAX_PIXELS
from shards.jpeg import JpegHeader, jpeg_header
from shards.upright import UndecodableError, is_srgb, open_image, orientation, upright_pixels, upright_rgb, upright_size
from train.data.augment.params import Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# A scaled decode must leave the crop this many times the target. At 1 its box-like filter can be seen: mean difference from
# a full decode 1.7 levels of 255 on photo mosaics, 99th percentile 10. From 1.5 on it cannot: 0.8 and 4.
EXACT_MARGIN, FAST_MARGIN = 1.5, 1.0
_PROFILE = b"ICC_PROFILE\0"
_END, _TAIL = b"\xff\xd9", 1024  # a JPEG's end marker normally stands in so many bytes at its end


class EncodedImage:
    """An image whose header was read. `height` and `width` are those of the upright image.

    `plain` says that it is an upright 8-bit JPEG in sRGB, gray or in three colours, which every decoder reads alike.
    """

    def __init__(self, data: bytes) -> None:
        """Read the header.

        Raises:
            UndecodableError: it is no image of a known format, or a JPEG that is cut off.
        """
        self.data = data
        self._opened: Any = None
        header = jpeg_header(data)
        if header is None or not header.plain or _PROFILE in data:
            self._opened = open_image(data)
        self.plain = header is not None and (self._opened is None or self._is_upright_jpeg(header))
        if self.plain and header is not None:
            self.height, self.width = header.height, header.width
            if not 0 < self.height * self.width <= MAX_PIXELS:
                raise UndecodableError(f"{self.width} × {self.height} pixels, 1 to {MAX_PIXELS:,} can be used")
            _check_end(data)
        else:
            self.height, self.width = upright_size(self._opened)
            if self._opened.format in ("JPEG", "MPO"):
                _check_end(data)

    def _is_upright_jpeg(self, header: JpegHeader) -> bool:
        """Return whether a JPEG with EXIF, a colour profile or other segments can be decoded as a plain one."""
        image = self._opened
        if image.format != "JPEG" or image.mode not in ("L", "RGB") or header.stray:
            return False
        profile = image.info.get("icc_profile")
        return orientation(image) == 1 and (profile is None or is_srgb(profile))

    def crops_into(self, outs: Sequence[Pixels], windows: Sequence[Window], kinds: Sequence[int], *, fast: bool = False) -> None:
        """Decode once, and resize each window into its output.

        Args:
            outs: (S, S, 3) uint8 each.
            windows: in pixels of the upright image, inside it.
            kinds: `resample.BICUBIC` or `resample.BILINEAR`, for each window.
            fast: decode at a smaller scale where that suffices, with libjpeg-turbo's faster transforms.

        Raises:
            UndecodableError: it cannot be decoded.
        """

        from train.data.decode.resample import resize_into

        factor = 1
        if self.plain:
            factor = _factor(windows, outs[0].shape[0], FAST_MARGIN if fast else EXACT_MARGIN)
        pixels = self.pixels(factor, fast=fast)
        height, width = pixels.shape[:2]
        for out, window, kind in zip(outs, windows, kinds, strict=True):
            # A scaled image's sides are rounded up, so the last window may reach beyond the scaled one by a part of a pixel.
            top, left = window.top / factor, window.left / factor
            bottom = min((window.top + window.height) / factor, height)
            right = min((window.left + window.width) / factor, width)
            resize_into(out, pixels, top, left, bottom - top, right - left, kind)

    def pixels(self, factor: int = 1, *, fast: bool = False) -> Pixels:
        """Return the whole image upright at 1/factor scale (sides rounded up), RGB uint8.

        Args:
            factor: 1, or 2, 4, 8 for a plain JPEG.

        Raises:
            UndecodableError: it cannot be decoded.
        """
        decoded = self._jpeg(factor, fast) if self.plain else upright_pixels(self._opened)
        height, width = decoded.shape[:2]
        # The compiled loops check no bounds, and a hostile file may decode to another size than its header states.
        if (height, width) != (-(-self.height // factor), -(-self.width // factor)):
            raise UndecodableError(f"decodes to {width} × {height} pixels, and states {self.width} × {self.height} (1/{factor})")
        return decoded

    def _jpeg(self, factor: int, fast: bool) -> Pixels:
        """Return all of the JPEG at 1/factor scale (sides rounded up), RGB. Bit errors inside the scan are let pass, as DALI does."""
        import simplejpeg

        sides = {"min_height": -(-self.height // factor), "min_width": -(-self.width // factor)}
        try:
            return simplejpeg.decode_jpeg(self.data, "RGB", fastdct=fast, fastupsample=fast, strict=False, **sides)
        except Exception as error:  # noqa: BLE001  simplejpeg raises KeyError and others on hostile bytes
            return self._jpeg_by_pillow(factor, error)

    def _jpeg_by_pillow(self, factor: int, error: Exception) -> Pixels:
        """Return what simplejpeg refuses although it can be decoded: odd samplings of chroma, for one."""
        import numpy as np

        if "premature end" in str(error).lower():
            raise UndecodableError(f"JPEG: {error}") from error
        image = open_image(self.data)
        if image.size != (self.width, self.height):
            raise UndecodableError(f"JPEG: {error}") from error
        pixels = upright_rgb(image)
        return np.asarray(pixels.reduce(factor) if factor > 1 else pixels)


def _check_end(data: bytes) -> None:
    """Refuse a JPEG that is cut off, whatever part of it a crop would use: one without an end marker is decoded whole, to see.

    Raises:
        UndecodableError: data are missing.
    """
    import simplejpeg

    if _END in data[-_TAIL:]:
        return
    try:
        simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except Exception as error:  # simplejpeg raises KeyError and others on hostile bytes
        raise UndecodableError(f"JPEG cut off: {error}"[:200]) from error


def _factor(windows: Sequence[Window], size: int, margin: float) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves every window `margin` times the target."""
    smallest = min(min(window.height, window.width) for window in windows)
    factor = 1
    while factor < 8 and smallest >= 2 * factor * margin * size:
        factor *= 2
    return factor


def decode(data: bytes, window: Window, size: int, interpolation: str = "bicubic") -> Pixels:
    """Return the window of an image, resized to (size, size, 3) uint8 RGB.

    Raises:
        UndecodableError: it cannot be decoded.
    """
    import numpy as np

    from train.data.decode.resample import FILTERS

    out = np.empty((size, size, 3), np.uint8)
    EncodedImage(data).crops_into([out], [window], [FILTERS[interpolation]])
    return out
