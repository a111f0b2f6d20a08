"""How a test image may look in a build: the views whose hashes are searched for.

A pHash within four bits finds re-encoded and resized copies, and hardly any other. So a test image is hashed in 23 views.
They were chosen by what they add on copies planted among 273 real photos (docs/LOG.md): the flip finds all flipped copies,
four borders nine tenths of the bordered ones, eight banners two thirds of the captioned ones, eight crops a quarter of those
cropped by 5 to 20%; the square is what pipelines cut. Rotations are left out: whoever rotates pictures marks it in EXIF,
and that is applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shards.decoding import decoding
from shards.upright import open_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
BLACK, WHITE = 0, 255
# What is cut off: shares of the width and height, from the left, the top, the right and the bottom.
CROPS = (
    (0.05, 0.05, 0.05, 0.05), (0.05, 0.1, 0.05, 0.05), (0.05, 0.05, 0.05, 0.1), (0.05, 0.05, 0.1, 0.05),
    (0.05, 0.1, 0.05, 0.0), (0.1, 0.05, 0.0, 0.0), (0.0, 0.05, 0.1, 0.05), (0.1, 0.0, 0.05, 0.05),
)  # fmt: skip
BORDERS = tuple((colour, share) for share in (0.05, 0.08) for colour in (BLACK, WHITE))  # of the shorter side
BANNERS = (*((colour, "below", s) for s in (0.12, 0.17, 0.22) for colour in (BLACK, WHITE)), *((c, "above", 0.17) for c in (BLACK, WHITE)))
_COLOURS = {BLACK: "black", WHITE: "white"}
VIEWS = (
    "as it is", "flipped", "square",
    *(f"cropped {' '.join(f'{100 * s:.0f}' for s in crop)}%" for crop in CROPS),
    *(f"{_COLOURS[colour]} border {100 * share:.0f}%" for colour, share in BORDERS),
    *(f"{_COLOURS[colour]} banner {where} {100 * share:.0f}%" for colour, where, share in BANNERS),
)  # fmt: skip
# Views are taken of the image at this shorter side: their hashes are the whole image's, but for two bits at times.
_SIDE = 64


def view_hashes(content: bytes) -> NDArray[np.uint64]:
    """Return the hashes of all views but the first, of an upright JPEG: shape (len(VIEWS) - 1,)."""
    import numpy as np

    from shards.phash import phash_of_image

    return np.array([phash_of_image(view)[0] for view in _views(_small(content))], np.uint64)


def _small(content: bytes) -> Any:
    from PIL import Image

    with decoding():
        image = open_image(content)
        image.draft("L", (2 * _SIDE, 2 * _SIDE))  # decodes at a half, a quarter or an eighth where that leaves so much
        gray = image.convert("L")  # as stored: the hashes that are compared with these see no profile either
    ratio = min(1.0, _SIDE / min(gray.size))
    size = max(1, round(gray.width * ratio)), max(1, round(gray.height * ratio))
    return gray if size == gray.size else gray.resize(size, Image.Resampling.LANCZOS)


def _views(image: Any) -> list[Any]:
    from PIL import ImageOps

    width, height = image.size
    short = min(image.size)
    left, top = (width - short) // 2, (height - short) // 2
    views = [ImageOps.mirror(image), image.crop((left, top, left + short, top + short))]
    for a, b, c, d in CROPS:
        box = round(width * a), round(height * b), width - round(width * c), height - round(height * d)
        views.append(image.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1))))
    views += [ImageOps.expand(image, round(short * share), colour) for colour, share in BORDERS]
    views += [with_banner(image, colour, where == "above", round(height * share)) for colour, where, share in BANNERS]
    return views


def with_banner(image: Any, colour: int, above: bool, rows: int) -> Any:
    """Return an image with so many rows of one colour above or below it."""
    from PIL import Image

    fill = colour if image.mode == "L" else (colour,) * 3
    out = Image.new(image.mode, (image.width, image.height + rows), fill)
    out.paste(image, (0, rows if above else 0))
    return out
