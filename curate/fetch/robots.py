"""X-Robots-Tag: whether an answer's headers forbid the use of the picture, in every spelling that servers send."""

from __future__ import annotations

import re
from http.client import HTTPMessage

AGENT = "provender"
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "none")
# Directives for these agents are directives for us: all agents, our own name, and that of the library that does the work.
_OURS = ("*", "robots", AGENT, "img2dataset")
_WITH_VALUE = ("max-snippet", "max-image-preview", "max-video-preview")
_DATED = "unavailable_after"
_WORD = re.compile(r"([^\s,;:]+)\s*(:?)")


def opted_out(headers: HTTPMessage) -> str:
    """Return the directive that forbids use, in lower case; an empty text where none does.

    A header is a list of directives, divided by commas, semicolons or blanks. `agent:` before directives makes them that
    agent's alone, up to the end of the header or the next agent.
    """
    for value in headers.get_all("X-Robots-Tag", []):
        if directive := _forbidding(str(value).lower()):
            return directive
    return ""


def _forbidding(value: str) -> str:
    agent, is_value = "*", False
    for match in _WORD.finditer(value):
        word = match[1].strip("\"'")
        colon = bool(match[2])
        if is_value:  # max-image-preview:none is no directive `none`
            is_value = False
        elif colon and word in _WITH_VALUE:
            is_value = True
        elif colon and word not in (_DATED, *OPT_OUTS) and not word[:1].isdigit():  # a time, 15:00:00, has colons of its own
            agent = word
        elif agent in _OURS and word in OPT_OUTS:
            return word
    return ""
