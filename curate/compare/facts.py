"""What can be compared of any set's samples: a build's from its sidecars, a foreign folder's by opening every image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.images import ImagePolicy, ImageRefusedError, open_image
from curate.report.stats.rows import caption_of, image_of, key_of
from shards.manifest import Manifest
from shards.reader import Shard
from shards.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    ("uid", "string"),
    ("source", "string"),
    ("source_id", "string"),
    ("content", "string"),
    ("phash", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("caption", "string"),
)


def facts(manifest: Manifest, *, look: bool = True) -> Iterator[pa.Table]:
    """Yield a table of COLUMNS for each shard, in the set's order.

    `content` is the sha256 of the image as it was found, `phash` 16 hex digits; both empty where they are not known.

    Args:
        look: open the images of a set without sidecars; without it their `content` and `phash` stay empty.
    """
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            yield _of_sidecar(shard) if entry.sidecar_sha256 else _of_images(shard, look)


def _of_sidecar(shard: Shard) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ["key", "uid", "source", "source_id", "original_sha256", "sha256", "phash", "width", "height", "caption"]
    table = shard.sidecar(names)
    schema = arrow_schema(COLUMNS)

    def column(*candidates: str) -> pa.ChunkedArray | pa.Array:
        found = next((table[c] for c in candidates if c in table.column_names), None)
        kind = schema.field(candidates[0] if candidates[0] in schema.names else "content").type
        return pa.nulls(len(shard), kind) if found is None else found.cast(kind)

    values = {name: column(name) for name, _ in COLUMNS if name not in ("uid", "content")}
    values |= {"uid": column("uid", "key"), "content": column("original_sha256", "sha256")}
    columns = [pc.fill_null(values[n], "" if kind == "string" else 0) for n, kind in COLUMNS]
    return pa.table(columns, schema=schema)


def _of_images(shard: Shard, look: bool) -> pa.Table:
    import pyarrow as pa

    rows = []
    for i, group in enumerate(shard.groups):
        image = image_of(group)
        rows.append(texts(shard, i) | (_look(shard.read_range(image.offset, image.size)) if image and look else {}))
    empty = {name: "" if kind == "string" else 0 for name, kind in COLUMNS}
    return pa.Table.from_pylist([empty | row for row in rows], arrow_schema(COLUMNS))


def texts(shard: Shard, i: int) -> dict[str, object]:
    """Return uid and caption of a sample without a sidecar; the uid is the key without the folders that the tar has it in."""
    return {"uid": key_of(shard, i).rpartition("/")[2], "caption": caption_of(shard, i) or ""}


def _look(content: bytes) -> dict[str, object]:
    found: dict[str, object] = {"content": hashlib.sha256(content).hexdigest()}
    try:
        opened = open_image(content, ImagePolicy())
    except ImageRefusedError:
        return found
    return found | {"phash": f"{opened.phash:016x}", "width": opened.original_width, "height": opened.original_height}
