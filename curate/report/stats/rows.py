"""The rows of a shard, from its sidecar, or where it has none from the tar: captions, and what the images' headers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shards.decoding import UndecodableError
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS
from shards.tables.values import caption_in
from shards.tar import Member
from shards.upright import open_image

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = (*IMAGE_EXTENSIONS, "gif", "bmp", "tif", "tiff", "avif", "jfif")  # endings of images in foreign tars
UNREADABLE = "unreadable"  # the format of an image that Pillow does not open
_HEAD = 2**16  # bytes of an image that are read first: what comes before its pixels is seldom longer


def image_of(group: list[Member]) -> Member | None:
    """Return the image among a sample's members."""
    return next((member for member in group if member.ext.lower() in IMAGES), None)


def rows_of(shard: Shard, columns: Sequence[str], positions: Sequence[int] | None = None) -> pa.Table:
    """Return columns of the samples in use of a shard, or of those at some positions among them.

    A foreign shard has no sidecar. Its `source` is the set's only one, else ""; its `uid` is the key; `caption` is null where
    there is none; `width`, `height` and `original_format` are read from the head of the image, no pixel is decoded.
    """
    import pyarrow as pa

    rows = shard.sidecar(columns)
    if rows.num_columns:
        return rows if positions is None else rows.take(pa.array(positions, pa.int64()))
    names = shard.manifest.sources
    source = next(iter(names)) if len(names) == 1 else ""
    kinds = {"width": pa.int32(), "height": pa.int32(), "bytes": pa.int64()}
    values = [_row(shard, i, columns) | {"source": source} for i in (range(len(shard)) if positions is None else positions)]
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns if name != "information"])
    return pa.Table.from_pylist(values, schema=schema)


def _row(shard: Shard, i: int, columns: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"uid": key_of(shard, i)}
    if "caption" in columns:
        row["caption"] = caption_of(shard, i)
    if image := image_of(shard.groups[i]):
        row["bytes"] = image.size
        row |= {} if {"width", "height", "original_format"}.isdisjoint(columns) else _head(shard, image)
    return row


def key_of(shard: Shard, i: int) -> str:
    """Return a sample's key as text: names in a tar may be any bytes."""
    return shard.key(i).encode("utf-8", "replace").decode()


def caption_of(shard: Shard, i: int) -> str | None:
    """Return a sample's text, else the caption that its .json names."""
    members = {member.ext: member for member in shard.groups[i]}
    if text := members.get("txt"):
        return caption_in(shard.read_range(text.offset, text.size)).strip()
    if (about := members.get("json")) is None:
        return None
    try:
        values = json.loads(shard.read_range(about.offset, about.size))
    except (ValueError, RecursionError):  # bytes that are no JSON, and what is nested to kill parsers
        return None
    caption = values.get("caption") if isinstance(values, dict) else None
    return caption.encode("utf-8", "replace").decode().strip() if isinstance(caption, str) else None


def _head(shard: Shard, image: Member) -> dict[str, Any]:
    for size in dict.fromkeys((min(_HEAD, image.size), image.size)):
        if opened := _opened(shard.read_range(image.offset, size)):
            return opened
    return {"original_format": UNREADABLE}


def _opened(content: bytes) -> dict[str, Any]:
    """Return width, height and format of an image; nothing where Pillow does not know it."""
    try:
        image = open_image(content, most=0)  # no pixel is decoded
    except UndecodableError:
        return {}
    return {"width": image.width, "height": image.height, "original_format": image.format or ""}
