"""Which source a foreign file looks like: for the advice of errors."""

from __future__ import annotations

from collections.abc import Iterable

from curate.sources.base import URL

# The columns that tell a source, the rarer first.
_SIGNS = (
    ("wit", {"page_url", "image_url", "caption_reference_description"}),
    ("imagenet_captions", {"filename", "wnid"}),
    ("redcaps", {"image_id", "subreddit"}),
    ("redcaps", {"image_id", "raw_caption"}),
    ("img2dataset", {"url", "key", "status"}),
    ("folder --captions-file", {"id", "image_id", "caption"}),
    ("yfcc", {"photoid", "downloadurl"}),
    ("shutterstock", {"description", "keywords"}),
    ("shutterstock", {"videoid", "contenturl"}),
    ("laion", {"url", "text"}),
)


def by_columns(names: Iterable[str]) -> str:
    """Return the source whose columns these are, or an empty string."""
    found = {name.strip().lower() for name in names}
    return next((source for source, signs in _SIGNS if signs <= found), "")


def by_line(line: str) -> str:
    """Return the source whose files have such lines, or an empty string."""
    fields = line.split("\t")
    if source := by_columns(fields if len(fields) > 1 else line.split(",")):
        return source
    if len(fields) in (23, 25) and (fields[-1] in ("0", "1")):
        return "yfcc"
    urls = [i for i, field in enumerate(fields[:2]) if URL.match(field)]
    return {(0, 2): "cc12m", (1, 2): "cc3m", (1, 5): "cc3m"}.get((urls[0], len(fields)), "") if len(urls) == 1 else ""


def advice(source: str) -> str:
    """Return the advice to use that source."""
    return f"use --source {source}" if source else "name another --source"
