"""Proof that an image is whole: all of it is decoded, to the last row."""

from __future__ import annotations

import io

MAX_PIXELS = 100_000_000


def prove(content: bytes) -> tuple[int, int]:
    """Decode an image to its last row and return (width, height).

    Pillow alone passes a JPEG that was cut and closed with an end marker (its lower part is then gray), so a JPEG's
    entropy-coded data is read once more by libjpeg-turbo, whose warning of missing data counts as an error. Other
    warnings, such as stray bytes between segments, do not.

    Raises:
        ValueError: why it is not whole.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit comes first
    try:
        image = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels")
        image.load()
    except UnidentifiedImageError:
        raise ValueError(f"no known image format (starts with {content[:8].hex()})") from None
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        prove_entropy(content)
    return image.width, image.height


def prove_entropy(content: bytes) -> None:
    """Read all the entropy-coded data of a gray or colour JPEG, at an eighth of its size.

    Raises:
        ValueError: some of it is missing.
    """
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise ValueError(str(error)) from None
