"""What the bytes behind a URL are: a picture that a build can use, or what else, by name."""

from __future__ import annotations

import io
from typing import Any

from shards.proof import JPEGS, prove_jpeg
from shards.upright import UndecodableError, open_image, upright_rgb

UNUSABLE = "no usable image: "
# How files begin that servers send in the place of pictures. (place, bytes, name)
_OTHERS = (
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska, WebM)"),
    (0, b"OggS", "a video or sound (Ogg)"),
    (0, b"FLV\x01", "a video (Flash)"),
    (0, b"\x00\x00\x01\xba", "a video (MPEG)"),
    (0, b"\x00\x00\x01\xb3", "a video (MPEG)"),
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "sound"),
    (0, b"ID3", "sound"),
    (0, b"fLaC", "sound"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (4, b"jP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (4, b"JXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
)
_BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"hevc": "a HEIC", b"mif1": "a HEIF", b"msf1": "a HEIF"}
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"), (b"<", "HTML or XML"), (b"{", "JSON"))
_BLANKS = b"\xef\xbb\xbf \t\r\n"


def refusal(content: bytes, *, whole: bool) -> str:
    """Return why a build could not use these bytes, or an empty text.

    Args:
        whole: decode the picture to its last row; without it, only its header is read.
    """
    try:
        image = open_image(content)
        if whole:
            decoded(content, image)
    except UndecodableError as error:
        name = _name(content)
        return f"no image but {name}" if name else f"{UNUSABLE}{error}"
    return ""


def decoded(content: bytes, image: Any = None) -> Any:
    """Return a picture upright in 8-bit sRGB, decoded to its last row.

    Raises:
        UndecodableError: no picture of a known format, too many pixels, or not whole.
    """
    image = image or open_image(content)
    if image.format in JPEGS:
        try:
            prove_jpeg(content, image.mode)
        except ValueError as error:
            raise UndecodableError(str(error)) from None
    return upright_rgb(image)


def _name(content: bytes) -> str:
    """Return what a file is that is no picture, or of a format that no build takes; an empty text where it is unknown."""
    for place, start, name in _OTHERS:
        if content.startswith(start, place):
            return name
    if content[4:8] == b"ftyp" and content[8:12] not in (b"avif", b"avis"):
        return _BRANDS.get(content[8:12], "a video (MP4)")
    begin = content[:1024].lstrip(_BLANKS)
    lowered = begin.lower()
    for start, name in _MARKUP:
        if lowered.startswith(start):
            return "SVG" if b"<svg" in lowered else name
    is_text = bool(begin) and all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in begin)
    return "text" if is_text else ""


def as_pixels(image: Any) -> io.BytesIO:
    """Return an upright picture without compression, for a library that decodes once more."""
    file = io.BytesIO()
    image.save(file, "PPM")
    file.seek(0)
    return file
