"""Pictures unlike one another, for the tests of this folder."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(i: int, width: int = 80, height: int = 64) -> Image.Image:
    """Return picture i: smooth random colour, so that two of them are no near duplicates and copies of one are."""
    rng = np.random.default_rng(i)
    small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return an image's file."""
    out = io.BytesIO()
    image.save(out, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return out.getvalue()
