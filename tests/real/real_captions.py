"""The real captions, as tests read them."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path


def rows(realdata: Path) -> list[tuple[str, str]]:
    """Return (origin, caption) of each, in the file's order; the subreddits of RedCaps are one origin."""
    with gzip.open(realdata / "captions/captions.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        found = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["source"].partition("/")[0], row["caption"]) for row in found]


def captions(realdata: Path) -> list[str]:
    """Return all captions."""
    return [caption for _, caption in rows(realdata)]


def by_origin(realdata: Path) -> dict[str, list[str]]:
    """Return the captions by origin."""
    found: dict[str, list[str]] = {}
    for origin, caption in rows(realdata):
        found.setdefault(origin, []).append(caption)
    return found
