"""A set that `evaluate pack` wrote: its test split, or the split that the path names; no image is read for its hashes."""

from __future__ import annotations

from collections import Counter

from eval import packed
from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples
from shards import tar
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]

_COLUMNS = ("source_id", "class", "sha256")


def recognises(path: str) -> bool:
    """Return whether the path is a packed set, or a split of one."""
    return bool(packed.folder_of(path)[0])


def load(path: str, columns: Columns) -> Examples:
    """Read a split's labels and hashes from its sidecars; images stay where they are.

    Raises:
        UsageError: the set has no test split and the path names no other, or the split is of other classes.
        RunError: a sidecar has no row for a sample.
    """
    import numpy as np

    folder, split = packed.folder_of(path)
    dataset = packed.read(folder)
    split = split or _usual(dataset)
    stated = dataset.split(split)
    manifest = read_manifest(dataset.path_of(split))
    if manifest.classes != dataset.classes:
        raise UsageError(f"{dataset.path_of(split)}: other classes than {packed.NAME} states", "the build as it was packed")
    ids: list[str] = []
    labels: list[int] = []
    hashes: list[str] = []
    places: list[tuple[str, tar.Member]] = []
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            rows = shard.sidecar(_COLUMNS)
            if tuple(rows.column_names) != _COLUMNS or rows.num_rows != len(shard.groups):
                raise RunError(f"{shard.path}: no whole sidecar beside it", advice="shards verify")
            ids += rows["source_id"].to_pylist()
            labels += rows["class"].to_pylist()
            hashes += rows["sha256"].to_pylist()
            places += [(shard.path, _image(shard.path, group)) for group in shard.groups]
    repeated = tuple(name for name, count in Counter(dataset.classes).items() if count > 1)
    name = dataset.name if split == packed.TEST else f"{dataset.name}/{split}"

    def read(i: int) -> bytes:
        file, member = places[i]
        content = fs.read_range(file, member.offset, member.size)
        if len(content) != member.size:
            raise RunError(f"{file}: {len(content)} of {member.size} bytes at {member.offset}", advice="shards verify")
        return content

    examples = Examples(
        name,
        dataset.classes,
        tuple(ids),
        np.array(labels, dtype=np.int64),
        read,
        dataset.templates,
        dataset.metric,
        dataset.named,
        repeated,
        known_hashes=np.array(hashes, dtype="S64"),
    )
    where = f"their reasons are in {fs.join(dataset.path_of(split), 'ledger')}"
    return examples.telling(stated.undecodable, f"[image|images] of {name} [was|were] left out when it was packed", where)


def _usual(dataset: packed.Dataset) -> str:
    """Return the split that a whole set stands for: test, or its only one."""
    if packed.TEST in dataset.splits:
        return packed.TEST
    if len(dataset.splits) == 1:
        return next(iter(dataset.splits))
    raise UsageError(f"{dataset.folder}: no test split", ", ".join(dataset.splits), f"--data {dataset.path_of(next(iter(dataset.splits)))}")


def _image(path: str, group: list[tar.Member]) -> tar.Member:
    for member in group:
        if member.ext in IMAGE_EXTENSIONS:
            return member
    raise RunError(f"{path}: sample {group[0].key} has no image", advice="shards verify")
