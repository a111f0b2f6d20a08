"""What flows: a sample's identity, and the order that follows from it.

uid and rank are functions of names and numbers alone, known before anything is fetched.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

UID_RULE = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"(?:urn:uuid:)?\{?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\}?")
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")  # members that hold an image
KEY_RULE = re.compile(r"[0-9A-Za-z_-]{1,90}")
LONGEST_NAME = 99  # bytes that USTAR holds


def uid_in(text: str) -> str:
    """Return the uid that a text is: 32 hex digits in either case, with or without UUID's dashes; empty where it is none."""
    lower = text.lower()
    dashed = _UUID.fullmatch(lower)
    plain = "".join(dashed.groups()) if dashed else lower
    return plain if UID_RULE.fullmatch(plain) else ""


def uid_of(source: str, source_id: str) -> str:
    """Return the uid of a sample: the first 32 hex digits of sha256(source name, NUL, id).

    An id that is a 32-hex uid already (DataComp's, ours) is kept.
    """
    if UID_RULE.fullmatch(source_id):
        return source_id
    return hashlib.sha256(f"{source}\0{source_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def rank_key(seed: int, uid: str) -> int:
    """Return the 64-bit rank of a uid: the first 8 bytes, big-endian, of sha256("SEED:UID"). Ties go by uid."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Sample:
    """One sample of a build as the reader hands it out.

    `members` maps extensions (`jpg`, `txt`, `cls`) to bytes; `row` is the sidecar row, where one was asked for.
    """

    key: str
    members: dict[str, bytes]
    row: dict[str, object] = field(default_factory=dict)


def has_hard_ending(name: str, extension: str) -> bool:
    """Return whether some readers cannot take a member's name or ending: USTAR's length, lower case and no space are safe."""
    return len(name) > LONGEST_NAME or extension != extension.lower() or " " in extension
