"""Planted copies: test images changed as people change pictures, to measure how many of them the search finds.

Each kind draws its amount from the whole range that it names, so that no view fits by design.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from curate.decontaminate.views import BLACK, WHITE, with_banner
from shards.upright import open_image, upright_rgb

if TYPE_CHECKING:
    import numpy as np

VERSION = 2
KINDS = {
    "re-encoded": "JPEG quality 30 to 90",
    "resized": "to 40% to 200%",
    "cropped": "5% to 20% off the width and off the height, anywhere",
    "squared": "the square in the middle",
    "flipped": "left to right",
    "bordered": "3% to 12% of the shorter side, black or white",
    "captioned": "a line of text on a strip of 8% to 22% of the height",
}
_TEXT = "the quick brown fox jumps over the lazy dog and runs away into the woods"


def planted(content: bytes) -> list[bytes]:
    """Return a copy of each kind, as JPEG; which ones is a function of the image's bytes."""
    import numpy as np

    image = upright_rgb(open_image(content))
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:8], "big"))
    return [copy(image, kind, rng) for kind in KINDS]


def copy(image: Any, kind: str, rng: np.random.Generator) -> bytes:
    """Return one copy of an RGB image, changed as the kind says."""
    from PIL import Image, ImageOps

    width, height = image.size
    quality = 90
    if kind == "re-encoded":
        quality = int(rng.integers(30, 91))
    elif kind == "resized":
        scale = rng.uniform(0.4, 2.0)
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
    elif kind == "cropped":
        (wide, high), (x, y) = rng.uniform(0.05, 0.2, 2), rng.random(2)
        left, top = round(width * wide * x), round(height * high * y)
        image = image.crop((left, top, left + max(1, round(width * (1 - wide))), top + max(1, round(height * (1 - high)))))
    elif kind == "squared":
        image = ImageOps.fit(image, (min(image.size),) * 2)
    elif kind == "flipped":
        image = ImageOps.mirror(image)
    elif kind == "bordered":
        image = ImageOps.expand(image, max(1, round(rng.uniform(0.03, 0.12) * min(image.size))), (int(rng.choice([BLACK, WHITE])),) * 3)
    else:
        image = _captioned(image, rng)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _captioned(image: Any, rng: np.random.Generator) -> Any:
    from PIL import ImageDraw, ImageFont

    rows = max(2, round(image.height * rng.uniform(0.08, 0.22)))
    colour, above = int(rng.choice([BLACK, WHITE])), bool(rng.random() < 0.3)
    out = with_banner(image, colour, above, rows)
    at = round(image.width * 0.04), (0 if above else image.height) + rows // 5
    ImageDraw.Draw(out).text(at, _TEXT, fill=(255 - colour,) * 3, font=ImageFont.load_default(max(4.0, rows * 0.5)))
    return out
