"""What cleaning leaves out on request: web addresses, @handles, and what RedCaps leaves out.

RedCaps' rules, in its order: lower case; no `[…]` and `(…)`, nested ones whole; no `640 x 480` sizes; `@handle` becomes
`<usr>`; ASCII only. Against its code, thousands (`1,000 units`) are no sizes, what stood around a size or an emoji is
not glued together, `½` is `1/2` and a dash is `-`, e-mail addresses are no handles, and a handle ends before a full stop.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_ADDRESS = (
    r"(?:(?:https?|ftp)://|\bwww\.|\b(?:[a-z0-9-]{1,63}\.){1,5}(?:com|org|net|edu|gov|info|io|ly|gl|me|tv|co|be|uk|de|fr)/)"
    r"""(?:[^\s<>]*[^\s<>.,;:!?()\[\]'"])?/?"""
)
# Between brackets it takes the brackets along.
_URL = re.compile(rf"[(\[<]\s*{_ADDRESS}\s*[)\]>]|{_ADDRESS}", re.IGNORECASE)
_NAME = r"(?<![\w.@/])(?:@\w{1,99}(?:\.\w{1,99})*)+"
_HANDLE = re.compile(_NAME)
_HANDLE_ALONE = re.compile(rf"[(\[]\s*{_NAME}\s*[)\]]|{_NAME}")
_BRACKET = re.compile(r"[\[\]()]")
_SIZE = re.compile(r"(?<!\w)\d+(?:\s*[x*]\s*\d+)+(?!\w)")
_TO_ASCII = str.maketrans({"⁄": "/", "×": "x", **dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys(map(chr, range(0x300, 0x370)))})
_NO_LETTER = re.compile(r"[^\w\x00-\x7f]+")


def without_urls(text: str) -> str:
    """Return a text without web addresses: with a scheme, with `www.`, or with a well-known domain and a path."""
    return _URL.sub(" ", text) if "/" in text or "." in text else text


def without_handles(text: str) -> str:
    """Return a text without @handles."""
    return _HANDLE_ALONE.sub(" ", text) if "@" in text else text


def masked_handles(text: str) -> str:
    """Return a text with `<usr>` in the place of @handles."""
    return _HANDLE.sub("<usr>", text) if "@" in text else text


def redcaps(text: str) -> str:
    """Return a text by RedCaps' rules; see the module."""
    text = unicodedata.normalize("NFKD", text).lower().translate(_TO_ASCII)
    text = masked_handles(_SIZE.sub(" ", without_brackets(text)))
    return _NO_LETTER.sub(" ", text).encode("ascii", "ignore").decode()


def without_brackets(text: str) -> str:
    """Return a text without what stands in brackets, round or square, nested ones whole; unpaired ones stay.

    As in RedCaps, either kind closes the other.
    """
    opened: list[int] = []
    cut: list[tuple[int, int]] = []
    for bracket in _BRACKET.finditer(text):
        if bracket[0] in "([":
            opened.append(bracket.start())
        elif opened:
            start = opened.pop()
            while cut and cut[-1][0] > start:
                cut.pop()
            cut.append((start, bracket.end()))
    starts, ends = [0, *(end for _, end in cut)], [*(start for start, _ in cut), len(text)]
    return "".join(text[a:b] for a, b in zip(starts, ends, strict=True))


def steps(urls: str, handles: str, rules: str) -> list[Callable[[str], str]]:
    """Return the functions that the options of cleaning ask for, in order."""
    wanted = ((urls == "drop", without_urls), (handles == "drop", without_handles), (handles == "mask", masked_handles))
    return [step for asked, step in (*wanted, (rules == "redcaps", redcaps)) if asked]
