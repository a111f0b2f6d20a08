"""A layer of CLIP tokens: the ids of each sample's caption, so that no training encodes it again.

Column `tokens`: list<uint16>, the start token, the caption's ids and the end token, cut to 77, without padding; null where a sample
has no caption, or is no longer in use. The caption is the one that `.txt` holds: the sidecar's, else the member itself.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from shards import layers
from shards.clip_bpe import CONTEXT_LENGTH, ID_BYTES, clip_bpe, tokenizer_facts
from shards.core import fs
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError
from shards.manifest import Manifest
from shards.reader import Shard
from shards.tables.values import caption_in
from shards.uids import uids_in

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class TokensTask:
    """One shard to encode: a manifest that has this shard alone, and the layer's name."""

    manifest: Manifest
    layer: str


def add_tokens(manifest: Manifest, layer: str, workers: int, engine: str) -> dict[str, Any]:
    """Write a layer's files, all but `layer.json`, and return what that is to say.

    Raises:
        RunError: a shard does not hold what the manifest says, or its worker died.
    """
    folder = layers.folder_of(manifest.folder, layer)
    fs.remove(folder)
    fs.make_dirs(folder)
    tasks = [TokensTask(dataclasses.replace(manifest, shards=(entry,), sources={}, notes={}), layer) for entry in manifest.shards]
    encoded, cut = 0, 0
    with Progress("tokens", manifest.samples) as progress:
        for outcome in map_unordered(write_tokens, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"shard {outcome.spec.manifest.shards[0].name}: {outcome.reason}", advice="run the same command again")
            encoded += outcome.result[0]
            cut += outcome.result[1]
            progress.add(outcome.spec.manifest.shards[0].used)
    about = {"format": layers.FORMAT, "format_version": layers.FORMAT_VERSION, "columns": [layers.TOKENS]}
    about |= {"samples": encoded, "without": manifest.samples - encoded, "unknown": 0, "cut": cut}
    return about | {"tokenizer": tokenizer_facts()}


def write_tokens(task: TokensTask) -> tuple[int, int]:
    """Write one shard's file of the layer; runs in a worker. Returns how many captions were encoded, and how many of them were cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (entry,) = task.manifest.shards
    with Shard(task.manifest, entry) as shard:
        captions, uids = _captions(shard), uids_in(shard)
    positions = entry.positions().tolist()
    whole_captions: list[str | None] = [None] * entry.samples
    whole_uids = [""] * entry.samples  # what was taken down gets no row of its own again
    for position, caption, uid in zip(positions, captions, uids, strict=True):
        whole_captions[position] = caption
        whole_uids[position] = uid
    table = pa.table({"uid": pa.array(whole_uids, pa.string()), layers.TOKENS: encoded_captions(whole_captions)})
    with fs.atomic_write(layers.path_of(task.manifest, entry, task.layer)) as file:
        pq.write_table(table, file, compression="zstd")
    texts = [caption for caption in captions if caption is not None]
    return len(texts), sum(map(_is_cut, texts))


def _is_cut(caption: str) -> bool:
    """Return whether a caption has more ids than there is room for; a character has at most four: short ones are not encoded again."""
    if 4 * len(caption) + 2 <= CONTEXT_LENGTH:
        return False
    return len(clip_bpe().packed(caption, CONTEXT_LENGTH + 1)) > CONTEXT_LENGTH * ID_BYTES


def encoded_captions(captions: list[str | None]) -> pa.ListArray:
    """Return the ids of captions, start and end included, as list<uint16>; null where there is none."""
    import numpy as np
    import pyarrow as pa

    bpe = clip_bpe()
    rows = [b"" if caption is None else bpe.packed(caption) for caption in captions]
    sizes = np.fromiter(map(len, rows), np.int64, len(rows)) // ID_BYTES
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ids = pa.array(np.frombuffer(b"".join(rows), np.uint16))
    return pa.ListArray.from_arrays(pa.array(ends), ids, mask=pa.array(sizes == 0))


def _captions(shard: Shard) -> list[str | None]:
    """Return the caption of each sample in use; None where it has none."""
    sidecar = shard.sidecar(["caption"])
    if sidecar.num_columns:
        return sidecar["caption"].to_pylist()
    captions: list[str | None] = []
    for group in shard.groups:
        member = next((m for m in group if m.ext == "txt"), None)
        captions.append(None if member is None else caption_in(shard.read_range(member.offset, member.size)))
    return captions
