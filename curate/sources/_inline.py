"""Pictures that stand in a table as text: base64, with or without `data:image/…;base64,` before it."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

# The first bytes of the formats that pictures come in, as base64 begins with them: JPEG, PNG, WebP and RIFF, GIF, BMP, TIFF.
_BEGINS = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk", "SUkqA", "TU0AK")
_LEAST = 64  # characters; no picture is smaller, and file names seldom are so long
_DATA_URI = re.compile(r"\s*data:(image/[\w.+-]+|application/octet-stream)?(;[\w.=-]+)*,", re.IGNORECASE)
_ALPHABET = re.compile(r"[A-Za-z0-9+/_=\s-]+")


def is_inline(text: str) -> bool:
    """Return whether a text is a picture: a data URI, or base64 that begins as a picture does."""
    if text[:6].lstrip()[:5].lower() == "data:":
        return _DATA_URI.match(text[:200]) is not None
    return len(text) >= _LEAST and text.lstrip().startswith(_BEGINS) and _ALPHABET.fullmatch(text) is not None


def decoded(text: str) -> bytes:
    """Return the picture's bytes; nothing if the text is no base64."""
    body = text
    if uri := _DATA_URI.match(text):
        body = text[uri.end() :]
        if ";base64" not in uri[0].lower():
            return unquote_to_bytes(body)
    body = re.sub(r"\s+", "", body.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="))
    body = body.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
