"""Proof that an image is whole: all of it is decoded, to the last row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shards.decoding import UndecodableError, check_size, decoding
from shards.upright import open_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JPEGS = ("JPEG", "MPO")  # in Pillow's words

_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_KEPT = {0xDB, 0xDD, *range(0xC0, 0xD0)}  # quantisation, restart interval; frames and Huffman tables
_SCAN, _END = 0xDA, 0xD9
_PADDED = "extraneous bytes before marker 0xd9"  # after the last row: nothing is missing


def prove(content: bytes) -> tuple[int, int]:
    """Decode an image to its last row and return (width, height).

    Pillow alone passes a JPEG that was cut and closed with an end marker (its lower part is then gray), so a JPEG's
    entropy-coded data is read once more by libjpeg-turbo, whose warnings of missing or damaged data count as errors.

    Raises:
        UndecodableError: why it is not whole.
    """
    image = open_image(content)
    size = image.size
    with decoding():
        image.load()
    if image.format in JPEGS:
        prove_jpeg(content, image.mode)
    return size


def prove_jpeg(content: bytes, mode: str) -> None:
    """Read all the entropy-coded data of a JPEG (of an MPO: of its first image), at an eighth of its size.

    Args:
        mode: Pillow's word for its colours: L, RGB or CMYK.

    Raises:
        UndecodableError: data are missing or damaged.
    """
    jpeg_pixels(content, "CMYK" if mode == "CMYK" else "GRAY", 8)


def jpeg_pixels(content: bytes, space: str = "GRAY", factor: int = 1) -> NDArray[np.uint8]:
    """Decode a JPEG at 1/factor of its size (1, 2, 4, 8), reading all its entropy-coded data.

    Returns (rows, columns) for GRAY, (rows, columns, 3) for RGB, 4 for CMYK, sides rounded up; at factor 1 Pillow's pixels.
    A chroma sampling that libjpeg-turbo's own interface does not know is left to Pillow, whose decode proves less.

    Raises:
        UndecodableError: data are missing or damaged.
    """
    import simplejpeg

    try:
        with decoding():
            height, width, *_ = simplejpeg.decode_jpeg_header(content, strict=False)
    except UndecodableError:
        return _by_pillow(content, space, factor)
    check_size(width, height)
    sides = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
    try:
        with decoding():
            pixels = simplejpeg.decode_jpeg(content, space, **sides)
    except UndecodableError as error:
        if error.reason == "too_large":
            raise
        _refuse_damage(content, str(error), space)
        return _by_pillow(content, space, factor)  # simplejpeg stops at any warning in the header
    return pixels[:, :, 0] if space == "GRAY" else pixels


def _refuse_damage(content: bytes, warning: str, space: str) -> None:
    """Raise unless a warning is harmless: of stray bytes between segments, odd metadata, padding after the last row.

    libjpeg tells its first warning alone, and a harmless one may hide that data are missing. So the tables and scans
    are decoded once more, without all else: what is warned of then is damage.
    """
    import simplejpeg

    if "premature end" in warning.lower():
        raise UndecodableError(warning)
    try:
        with decoding():
            simplejpeg.decode_jpeg(_bare(content), space, min_height=1, min_width=1, min_factor=8)
    except UndecodableError as error:
        if not str(error).endswith(_PADDED):
            raise


def _bare(content: bytes) -> bytes:
    """Return a JPEG's tables, frame and scans: no metadata, no bytes between segments."""
    out, at = [content[:2]], 2
    while next_marker := _NEXT_MARKER.search(content, at):
        marker, start = next_marker[1][0], next_marker.start(1) + 1
        if marker == _END:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at = start
            continue
        at = start + int.from_bytes(content[start : start + 2], "big")
        if marker == _SCAN:
            after = _AFTER_SCAN.search(content, at)
            at = after.start() if after else len(content)
        if marker == _SCAN or marker in _KEPT:
            out.append(bytes((0xFF, marker)) + content[start:at])
    return b"".join([*out, b"\xff\xd9"] if next_marker else out)


def _by_pillow(content: bytes, space: str, factor: int) -> NDArray[np.uint8]:
    import numpy as np

    image = open_image(content)
    if image.format not in JPEGS:
        raise UndecodableError(f"{image.format}, no JPEG")
    with decoding():
        pixels = image.convert("L" if space == "GRAY" else space)
        return np.asarray(pixels.reduce(factor) if factor > 1 else pixels)
