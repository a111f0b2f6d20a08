"""Clean a caption: mojibake (ftfy), HTML entities and tags, invisible characters, white space.

Words are never changed: no lower-casing, no removal of punctuation, `<PERSON>` and `a < b` stay; what more may go on
request stands in `rules.py`. The result is one line, and cleaning it again changes nothing. Text that no step of it would
touch (plain ASCII, and whatever ftfy finds in order) takes a fast path with the same result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal

from curate.captions import rules
from shards.core.config import option

VERSION = 3


@dataclass(frozen=True)
class Clean:
    """What cleaning does besides the repair of text."""

    urls: Literal["keep", "drop"] = option("keep", "web addresses in captions")
    handles: Literal["keep", "drop", "mask"] = option("keep", "@handles: kept, dropped, or <usr> in their place")
    rules: Literal["", "redcaps"] = option("", "redcaps: RedCaps' own rules, without their bugs")


MOST_PASSES = 20  # what is nested deeper is no HTML but an attack on our time: its `<` and `&` go

# `&` and `<` that begin neither an entity nor a tag.
_LONE = "&(?!#?[0-9A-Za-z]{1,24};)|<(?![A-Za-z/!])"
_PLAIN = re.compile(rf"(?:[\t\n\r -%'-;=-~]++|{_LONE})*+")
# Without line breaks (ftfy works line by line), ligatures, joiners, tags, full widths, and all else that cleaning removes.
_QUIET = re.compile(
    rf"(?:[\t -%'-;=-~\xa0-\xac\xae-\u0131\u0134-\u0148\u014a-\u01c3\u01cd-\u01f0\u01f4-\u061b\u061d-\u180d\u180f-\u1fff"
    rf"\u2010-\u2027\u2030-\u205e\u2070-\u2fff\u3001-\ud7ff\U00010000-\U000dffff\U000e0080-\U0010ffff]++|{_LONE})*+"
)
_MARKUP = re.compile("[<&]")
_NAMES = (
    "abbr|article|b|big|blockquote|body|br|center|cite|code|div|em|embed|figcaption|figure|font|form|h[1-6]|head|hr|html|i|iframe|"
    "img|input|li|link|nobr|noscript|ol|p|pre|s|script|section|small|span|strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|"
    "tr|tt|u|ul|a"
)
_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
# ASCII, since else `ı` counts as an `I`.
_TAG = re.compile(rf"</?({_NAMES})(?:{_ATTRIBUTE})*\s*/?>", re.IGNORECASE | re.ASCII)
_HIDDEN_BLOCK = re.compile(r"<!--.{0,999}?-->|<(script|style)\b[^<>]{0,999}>.{0,1999}?</\1\s*>", re.IGNORECASE | re.DOTALL | re.ASCII)
_INLINE = frozenset(
    ["a", "abbr", "b", "big", "cite", "code", "em", "font", "i", "nobr", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u"]
)
# Controls that are no white space; soft hyphen, zero-width space, marks of direction, word joiner, byte-order mark.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
# Tags (U+E0000 and on) are text that nobody sees, but models read. They have a use in the flags of England, Scotland and their like
# alone: a black flag, at most six tags, and an end (Unicode TS #51, section C.1).
_TAG_CHARACTERS = re.compile("(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f)|[\U000e0000-\U000e007f]+")
# Joiners carry meaning inside emoji and several scripts, and none beside ASCII.
_STRAY_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")


def cleaner(options: Clean | None) -> Callable[[str], str]:
    """Return the function that cleans a caption; without options it strips white space only."""
    if options is None:
        return str.strip
    steps = rules.steps(options.urls, options.handles, options.rules)
    return (lambda text: _thorough(text, steps)) if steps else clean


def clean(text: str) -> str:
    """Return a caption in the form that goes to training; an empty string if nothing is left. Never raises."""
    passes = 0
    while not _PLAIN.fullmatch(text):
        passes += 1
        better = _quick_pass(text) or _pass(text)
        if better == text:
            return text
        text = _MARKUP.sub("", better) if passes == MOST_PASSES else better
    return " ".join(text.split())


def _thorough(text: str, steps: list[Callable[[str], str]]) -> str:
    """Clean, and take further steps, until nothing changes: what one leaves may be another's business."""
    text = clean(text)
    for _ in range(MOST_PASSES):
        better = text
        for step in steps:
            better = step(better)
        better = clean(better)
        if better == text:
            return text
        text = better
    return ""  # no caption needs that many


def _quick_pass(text: str) -> str:
    """Return what `_pass` would, for text where quotes and white space are all that it could change; else nothing."""
    ftfy = _ftfy()
    if _QUIET.fullmatch(text) and not ftfy.is_bad(text) and unicodedata.is_normalized("NFC", text):
        return " ".join(ftfy.fixes.uncurl_quotes(text).split())
    return ""


def _pass(text: str) -> str:
    ftfy = _ftfy()
    text = ftfy.fix_text(ftfy.fixes.unescape_html(text), unescape_html=False)
    text = _TAG.sub(_gap, _HIDDEN_BLOCK.sub(" ", text))
    text = _TAG_CHARACTERS.sub(lambda match: match[1] or "", _INVISIBLE.sub("", text))
    text = _STRAY_JOINER.sub("", text)
    return " ".join(text.split())


@cache
def _ftfy() -> ModuleType:
    import ftfy

    return ftfy


def _gap(tag: re.Match[str]) -> str:
    return "" if tag[1].lower() in _INLINE else " "
