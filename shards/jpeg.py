"""A JPEG's header, walked once: enough to tell the plain files, which most are, from those that Pillow must look into."""

from __future__ import annotations

from dataclasses import dataclass

KEPT_PROCESSES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; others not every reader decodes
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = {0x00, 0x01, 0xFF, *range(0xD0, 0xDA)}  # no segment follows
# Segments of a plain JPEG: tables, comments, JFIF, an ICC profile, Adobe's word on the colours. Pillow refuses some of the last
# three where they are short, so there is a least length. EXIF and XMP may turn the picture, MPF may bring others.
_PLAIN = {0xDB: 2, 0xC4: 2, 0xDD: 4, 0xFE: 2, 0xE0: 16, 0xE2: 18, 0xEE: 14}


@dataclass(frozen=True)
class JpegHeader:
    """What the segments up to the first scan say.

    `plain`: 8 bits, gray or three colours, a kept process, nothing unusual. `stray`: bytes between segments that belong
    to none, which DALI's parser refuses and libjpeg passes over.
    """

    process: int
    width: int
    height: int
    gray: bool
    plain: bool
    stray: bool


def jpeg_header(content: bytes) -> JpegHeader | None:
    """Return the header of a JPEG, or None where there is no frame before the first scan."""
    if content[:3] != b"\xff\xd8\xff":
        return None
    at, plain, stray, frame, marker = 2, True, False, 0, 0
    while at + 4 <= len(content):
        marker = content[at + 1]
        if content[at] != 0xFF or marker in _BARE:
            plain, stray = False, stray or content[at] != 0xFF or marker != 0xFF
            at += 1 if content[at] != 0xFF or marker == 0xFF else 2
            continue
        length = content[at + 2] << 8 | content[at + 3]
        if marker == 0xDA:
            break
        if marker in _FRAMES:
            plain, frame = plain and not frame, frame or at
        elif length < _PLAIN.get(marker, 1 << 16) or (marker == 0xE2 and content[at + 4 : at + 16] != b"ICC_PROFILE\0"):
            plain = False
        at += 2 + length
    if not frame or len(content) < frame + 10:
        return None
    process, length, bits, parts = content[frame + 1], content[frame + 3], content[frame + 4], content[frame + 9]
    plain = plain and marker == 0xDA and process in KEPT_PROCESSES and bits == 8 and parts in (1, 3) and length == 8 + 3 * parts
    height, width = int.from_bytes(content[frame + 5 : frame + 7], "big"), int.from_bytes(content[frame + 7 : frame + 9], "big")
    return JpegHeader(process, width, height, parts == 1, plain, stray)
