"""RedCaps: the official annotation files, one JSON per subreddit and year.

A sample's id is its `image_id`. Files are `{"info": …, "annotations": […]}` or the bare list. The caption is RedCaps'
own cleaned one; `field: raw_caption` takes the post's title. The other fields go to `meta`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from curate.sources import _json
from curate.sources.base import Input, Record, list_inputs, meta_json, storable
from shards.core.config import option
from shards.core.errors import TornFileError, UsageError

VERSION = 1
IMAGES = "pool"
_LAYOUT = "image_id, url, caption"


@dataclass(frozen=True)
class Options:
    """Which of the two captions is taken."""

    field: Literal["caption", "raw_caption"] = option("caption", "caption (cleaned by RedCaps) or raw_caption (the post's title)")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the annotation files, after a look at each one's first record."""
    found = list_inputs(pattern, (".json",))
    for one in found:
        _sniff(one.path, options)
    return found


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per annotation; one without id or URL has the status bad_record.

    Raises:
        UsageError: the file is not RedCaps', or has no such caption field.
        TornFileError: the file is cut off; what stands before was yielded.
    """
    _sniff(input.path, options)
    for row, item in enumerate(_json.records(input.path, "annotations")):
        yield _record(item, row, input.name, options.field)


def _sniff(path: str, options: Options) -> None:
    try:
        first = next(iter(islice(_json.records(path, "annotations"), 1)), {"image_id": "", "url": "", options.field: ""})
    except TornFileError:
        return  # `read` meets it again, where --bad-files decides
    _check(first, path, options.field)


def _check(first: Any, path: str, field: str) -> None:
    if not isinstance(first, dict):
        raise UsageError(f"{path}: its records are {type(first).__name__}s", f"objects of {_LAYOUT}")
    found = f"{path}: its records have {', '.join(sorted(first)) or 'no fields'}"
    if {"image_url", "image_id"} <= first.keys() and "url" not in first:
        raise UsageError(found, f"the official files' {_LAYOUT}", "this is an export by Hugging Face: take the official files")
    if "id" in first and "image_id" in first and "url" not in first:
        raise UsageError(f"{found}: this looks like COCO captions", _LAYOUT, "use --source folder --captions-file")
    for name in ("image_id", "url", field):
        if name not in first:
            raise UsageError(f"{found}: there is no {name!r}", f"RedCaps' {_LAYOUT}")


def _record(item: Any, row: int, name: str, field: str) -> Record:
    fields = dict(item) if isinstance(item, dict) else {}
    image_id, found = storable(fields.pop("image_id", "")), fields.pop("url", "")
    urls = tuple(u for u in map(storable, found if isinstance(found, list) else [found]) if u)
    caption = storable(fields.pop(field, ""))
    if not image_id or not urls:
        missing = "no image_id" if not image_id else "no url"
        return Record(image_id or f"{name}:{row}", (caption,), row, urls, status="bad_record", detail=missing)
    return Record(image_id, (caption,), row, urls, meta=meta_json(fields))
