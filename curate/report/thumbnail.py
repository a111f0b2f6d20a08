"""One small picture from bytes nobody vouches for: at most 96 pixels, WebP, the same bytes every time."""

from __future__ import annotations

import io
import warnings
from typing import Any

SIDE = 96
QUALITY, METHOD = 70, 4
# What a thumbnail may cost in memory: 64 megapixels of RGBA are 256 MB in the worker.
MAX_PIXELS = 64_000_000
# Pillow also opens formats that start other programs (EPS) or belong to no web page; none of them is tried.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")


def thumbnail(content: bytes) -> bytes | None:
    """Return a WebP of the first frame, upright, alpha on white, its longer side at most 96 pixels.

    None where the bytes do not decode, or hold more pixels than is safe to decode.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # our own limit stands before any decoding
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _open(content)
            if image.width * image.height > MAX_PIXELS:
                return None
            return _encode(_upright_rgb(image))
        except Exception:  # noqa: BLE001  decoders raise anything on odd bytes; what is lost is one thumbnail
            return None


def _open(content: bytes) -> Any:
    """Open an image of one of FORMATS; the plug-ins of the rarer ones are imported only when the common ones refuse."""
    from PIL import Image, UnidentifiedImageError

    Image.preinit()
    try:
        return Image.open(io.BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN])
    except UnidentifiedImageError:
        Image.init()
        return Image.open(io.BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN])


def _upright_rgb(image: Any) -> Any:
    from PIL import Image, ImageOps

    image.draft("RGB", (SIDE * 2, SIDE * 2))  # JPEG alone: decode at an eighth, a quarter or half the size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel: keep the upper eight
        image = image.convert("I").point(lambda v: v / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _encode(image: Any) -> bytes:
    from PIL import Image

    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=METHOD)
    return out.getvalue()
