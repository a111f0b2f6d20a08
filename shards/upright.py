"""Encoded bytes to upright 8-bit sRGB pixels: the one way in which training and evaluation open what is no plain JPEG.

Only the formats named here are opened. Pillow would sniff any of its own, and starts Ghostscript for PostScript.
"""

from __future__ import annotations

import io
import threading
import warnings
from functools import lru_cache
from typing import Any

from shards.proof import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # MPO comes with JPEG: Pillow knows no opener of that name
_ORIENTATION = 0x0112  # EXIF's tag
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
# What makes an image of each orientation upright, in the words of Pillow's Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
# Profiles of sRGB by several makers differ from lcms's own by 1 level; Display P3 by up to 96, Adobe RGB by up to 128.
_SAME_COLOUR = 2


class UndecodableError(ValueError):
    """The image cannot be decoded; the text says why."""


class _Quiet:
    """No warnings of odd metadata while any thread is inside.

    `warnings.catch_warnings` alone is not for threads: each restores the filters that it met, another one's "ignore" among
    them, and the whole program stays silent.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


def open_image(content: bytes) -> Any:
    """Return a Pillow image of which only the header was read.

    Raises:
        UndecodableError: no image of a known format, or one of more than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit names itself
    if not content:
        raise UndecodableError("no bytes")
    try:
        with _QUIET:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        # Pillow's own text holds a memory address, which is not the same twice.
        raise UndecodableError(f"no image of a known format (starts with {content[:8].hex()})") from None
    except Exception as error:  # noqa: BLE001  readers of headers raise anything on hostile bytes
        raise UndecodableError(_reason(error)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"{width} × {height} pixels, more than {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise UndecodableError(f"{width} × {height} pixels")
    return image


def orientation(image: Any) -> int:
    """Return how an open image has still to be turned, as an EXIF orientation, 1 to 8; 1 where it states none or nonsense.

    Only headers are read: ask before the image is loaded.
    """
    from PIL import Image

    if image.format == "TIFF":  # Pillow turns these itself, and states the upright size
        return 1
    try:
        if image.format == "PNG" and "exif" not in image.info and image.fp is not None:
            # Pillow's own getexif() decodes a PNG whole to see whether EXIF follows the pixels.
            image.info.update(_png_exif(image.fp.getvalue()))
        with _QUIET:
            stated = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  torn EXIF is no reason to refuse the picture
        return 1
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def _png_exif(content: bytes) -> dict[str, bytes]:
    """Return the EXIF chunk of a PNG, wherever it stands, under Pillow's name for it; nothing where there is none."""
    at = 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"eXIf":
            return {"exif": content[at + 8 : at + 8 + length]}
        at += 12 + length
    return {}


def upright_size(image: Any) -> tuple[int, int]:
    """Return (height, width) of the image as it is seen, from its header."""
    width, height = image.size
    return (width, height) if orientation(image) in _TURNED else (height, width)


def upright_rgb(image: Any) -> Any:
    """Return the first frame of an open image upright, converted to sRGB, alpha on white, 8 bits a channel, mode RGB.

    Raises:
        UndecodableError: it does not decode, or has 32 bits a channel.
    """
    try:
        with _QUIET:
            return _upright_rgb(image)
    except UndecodableError:
        raise
    except MemoryError:
        raise UndecodableError("out of memory") from None
    except Exception as error:  # noqa: BLE001  decoders raise anything on hostile bytes; the sample gets a reason
        raise UndecodableError(_reason(error)) from None


def _upright_rgb(image: Any) -> Any:
    from PIL import Image

    turn = _TURNS.get(orientation(image))
    image.load()
    profile = image.info.get("icc_profile")
    if turn:
        image = image.transpose(Image.Transpose[turn])
    if image.mode.startswith("I;16"):
        import numpy as np

        image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    elif image.mode in ("I", "F"):
        raise UndecodableError(f"{image.mode} pixels (32 bits a channel)")
    if profile and not is_srgb(profile):
        image = _to_srgb(image, profile)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def is_srgb(profile: bytes) -> bool:
    """Return whether an ICC profile (RGB or gray) means what is meant without one: sRGB, to within 2 of 255 levels."""
    return profile[16:20] in (b"RGB ", b"GRAY") and _changes_nothing(profile)


@lru_cache(maxsize=32)  # a set has few different profiles; lcms takes 1 ms to look at one
def _changes_nothing(profile: bytes) -> bool:
    import numpy as np
    from PIL import Image

    if profile[16:20] == b"GRAY":
        before = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        red, green, blue = np.meshgrid(steps, steps, steps)
        before = Image.fromarray(np.stack([red, green, blue], axis=-1).reshape(27, 27, 3))
    after = _to_srgb(before, profile)
    change = np.asarray(after.convert("RGB")).astype(int) - np.asarray(before.convert("RGB")).astype(int)
    return int(np.abs(change).max()) <= _SAME_COLOUR


def _to_srgb(image: Any, profile: bytes) -> Any:
    """Convert an image by its ICC profile; one that cannot be applied is passed over, as browsers do."""
    from PIL import ImageCms

    if image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target) or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
