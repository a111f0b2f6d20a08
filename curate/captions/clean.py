"""Clean a caption: mojibake (ftfy), HTML entities and tags, invisible characters, white space.

Words are never changed: no lower-casing, no removal of punctuation, `<PERSON>` and `a < b` stay. The result is one
line, and cleaning it again changes nothing. Plain ASCII takes a fast path with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shards.core.config import option

VERSION = 1


@dataclass(frozen=True)
class Clean:
    """What cleaning does besides the repair of text."""

    urls: Literal["keep", "drop"] = option("keep", "web addresses in captions")
    handles: Literal["keep", "drop", "mask"] = option("keep", "@handles: kept, dropped, or <usr> in their place")
    rules: Literal["", "redcaps"] = option("", "redcaps: RedCaps' own rules, without their bugs")


MOST_PASSES = 20  # what is nested deeper is no HTML but an attack on our time: its `<` and `&` go

_PLAIN = re.compile(r"[ -%'-;=-~]*")  # printable ASCII without & and <
_MARKUP = re.compile("[<&]")
_NAMES = (
    "abbr|article|b|big|blockquote|body|br|center|cite|code|div|em|embed|figcaption|figure|font|form|h[1-6]|head|hr|html|i|iframe|"
    "img|input|li|link|nobr|noscript|ol|p|pre|s|script|section|small|span|strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|"
    "tr|tt|u|ul|a"
)
_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_TAG = re.compile(rf"</?({_NAMES})(?:{_ATTRIBUTE})*\s*/?>", re.IGNORECASE)
_HIDDEN_BLOCK = re.compile(r"<!--.{0,999}?-->|<(script|style)\b[^<>]{0,999}>.{0,1999}?</\1\s*>", re.IGNORECASE | re.DOTALL)
_INLINE = frozenset(
    ["a", "abbr", "b", "big", "cite", "code", "em", "font", "i", "nobr", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u"]
)
# Controls that are no white space; soft hyphen, zero-width space, marks of direction, word joiner, byte-order mark.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
# Joiners carry meaning inside emoji and several scripts, and none beside ASCII.
_STRAY_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")


def cleaner(options: Clean | None) -> Callable[[str], str]:
    """Return the function that cleans a caption; without options it strips white space only."""
    return clean if options else str.strip


def clean(text: str) -> str:
    """Return a caption in the form that goes to training; an empty string if nothing is left. Never raises."""
    passes = 0
    while not _PLAIN.fullmatch(text):
        passes += 1
        better = _pass(text)
        if better == text:
            return text
        text = _MARKUP.sub("", better) if passes == MOST_PASSES else better
    return " ".join(text.split())


def _pass(text: str) -> str:
    from ftfy import fix_text
    from ftfy.fixes import unescape_html

    text = fix_text(unescape_html(text), unescape_html=False)
    text = _TAG.sub(_gap, _HIDDEN_BLOCK.sub(" ", text))
    text = _STRAY_JOINER.sub("", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def _gap(tag: re.Match[str]) -> str:
    return "" if tag[1].lower() in _INLINE else " "
