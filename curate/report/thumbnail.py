"""One small picture from bytes nobody vouches for: at most 96 pixels, WebP, the same bytes every time."""

from __future__ import annotations

import io
from typing import Any

from shards.decoding import UndecodableError, decoding
from shards.upright import open_image, upright_rgb

SIDE = 96
QUALITY, METHOD = 70, 4
# What a thumbnail may cost in memory: 64 megapixels of RGBA are 256 MB in the worker.
MAX_PIXELS = 64_000_000


def thumbnail(content: bytes) -> bytes | None:
    """Return a WebP of the first frame, upright, alpha on white, its longer side at most 96 pixels.

    None where the bytes do not decode, or hold more pixels than is safe to decode.
    """
    try:
        return _encode(upright_rgb(open_image(content, MAX_PIXELS), least=2 * SIDE))
    except UndecodableError:
        return None


def _encode(image: Any) -> bytes:
    from PIL import Image

    with decoding():
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
        out = io.BytesIO()
        image.save(out, "WEBP", quality=QUALITY, method=METHOD)
        return out.getvalue()
