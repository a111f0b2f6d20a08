"""`shards merge`: several sets as one, a manifest over the tars of all.

Keys are unique in a set, so a sample that stands in an earlier set is left out of the later one, and counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.copy import CopyTask, copy_shards, piece
from shards.core import fs
from shards.core.config import option
from shards.core.console import Progress, emit
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.manifest import Manifest, ShardEntry, read_manifest, without
from shards.reader import Shard
from shards.subset import clear, moved_or_cut, refuse_other
from shards.uids import hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILDER = "shards merge"


@dataclass(frozen=True)
class MergeConfig:
    """Flags of `shards merge`."""

    folders: tuple[str, ...] = option(help="builds or subsets, the preferred first", positional=True, metavar="SET")
    output: str = option(help="folder of the merged set")
    materialize: bool = option(False, "copy all samples into tars of its own, for readers that know no manifest")
    overwrite: bool = option(False, "replace a set that is there")
    workers: int | None = option(None, "worker processes of --materialize; default: one per core")
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


def run(config: MergeConfig) -> None:
    """Write the merged set and say what it holds."""
    sets = [read_manifest(folder) for folder in config.folders]
    if len(sets) < 2:
        raise UsageError("one set", "two or more to merge")
    _check_alike(sets)
    for one in sets:
        refuse_other(config.output, one, config.overwrite)
    distinct, repeated = _distinct(sets)
    if config.overwrite:
        clear(config.output)
    merged = merge(sets, distinct, repeated, config.output)
    workers = config.workers or default_workers()
    shards = _written(distinct, config.output, config.materialize, workers, config.engine)
    merged = dataclasses.replace(merged, shards=tuple(shards), bytes=sum(e.bytes for e in shards))
    merged.save(config.output)
    if config.json:
        emit({"manifest": merged.digest, "samples": merged.samples, "shards": len(merged.shards), "repeated": repeated})
        return
    emit(f"{config.output}: {merged.samples:,} samples in {len(merged.shards):,} shards")
    for folder, n in zip(config.folders, repeated, strict=True):
        if n:
            emit(f"{n:,} samples of {folder} left out: they stand in an earlier set")


def merge(sets: list[Manifest], distinct: list[Manifest], repeated: list[int], folder: str) -> Manifest:
    """Return the manifest of some sets as one, still without its shards.

    Args:
        distinct: the sets without the samples that stand in an earlier one.
        repeated: how many samples of each set that left out.
    """
    sources: dict[str, dict[str, Any]] = {}
    licences: dict[str, Counter[str]] = {}
    for one in distinct:
        for name, source in one.sources.items():
            sources[name] = _sum(sources[name], source) if name in sources else source
        for name, counts in one.licences.items():
            licences[name] = licences.get(name, Counter()) + Counter(counts)
    seeds = {one.seed for one in sets}
    return Manifest(
        samples=sum(one.samples for one in distinct),
        bytes=0,
        shards=(),
        builder=BUILDER,
        seed=seeds.pop() if len(seeds) == 1 else None,
        members=sets[0].members,
        sources={name: source for name, source in sources.items() if source.get("kept") or "inputs" in source},
        parents=tuple({"manifest": s.digest, "samples": s.samples, "repeated": n} for s, n in zip(sets, repeated, strict=True)),
        licences={name: dict(sorted(counts.items())) for name, counts in licences.items()},
        classes=sets[0].classes,
        folder=folder,
    )


def _sum(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of one source in two sets; what only one of them knows cannot be summed and is left out."""
    total: dict[str, Any] = {}
    for name in (n for n in one if n in two):
        if isinstance(one[name], dict):
            total[name] = dict(Counter(one[name]) + Counter(two[name]))
        elif isinstance(one[name], int):
            total[name] = one[name] + two[name]
        elif one[name] == two[name]:
            total[name] = one[name]
    return total


def _check_alike(sets: list[Manifest]) -> None:
    """Refuse sets that no reader could take as one.

    Raises:
        UsageError: members or classes differ.
    """
    first = sets[0]
    for one in sets[1:]:
        if sorted(one.members) != sorted(first.members):
            found = f"{one.folder}: members {' '.join(one.members)}"
            raise UsageError(found, f"{' '.join(first.members)}, as in {first.folder}: every sample of a set has the same")
        if one.classes != first.classes:
            raise UsageError(f"{one.folder}: {len(one.classes)} classes", f"the {len(first.classes)} of {first.folder}, in its order")


def _distinct(sets: list[Manifest]) -> tuple[list[Manifest], list[int]]:
    """Return each set without the samples whose key stands in an earlier one, and how many these were.

    Sixteen bytes of memory per sample: a hash of 128 bits stands for a key.
    """
    import numpy as np

    seen: NDArray[np.void] = np.zeros(0, np.dtype("u8,u8"))
    distinct, repeated = [], []
    with Progress("keys", sum(s.samples for s in sets)) as progress:
        for one in sets:
            shards, lost, own = [], Counter[str](), [seen]
            for entry in one.shards:
                kept, sources, keys = _new(one, entry, seen)
                shards += [kept] if kept.used else []
                lost += sources
                own.append(keys)
                progress.add(entry.used)
            seen = np.sort(np.concatenate(own))
            distinct.append(without(dataclasses.replace(one, shards=tuple(shards)), lost, "duplicate_id"))
            repeated.append(one.samples - distinct[-1].samples)
    return distinct, repeated


def _new(manifest: Manifest, entry: ShardEntry, seen: NDArray[np.void]) -> tuple[ShardEntry, Counter[str], NDArray[np.void]]:
    """Return a shard cut to the samples that were not seen, the sources of the others, and all its keys."""
    import numpy as np

    with Shard(manifest, entry) as shard:
        keys = hashes(shard.key(i) for i in range(len(shard)))
        old = _among(keys, seen)
        if not old.any():
            return entry, Counter(), keys
        table = shard.sidecar(["source"])
    only = list(manifest.sources) if len(manifest.sources) == 1 else []
    names = table["source"].to_pylist() if table.num_columns else only * len(keys)
    lost = Counter(name for name, is_old in zip(names, old.tolist(), strict=False) if is_old)
    return entry.cut(entry.positions()[np.flatnonzero(~old)]), lost, keys


def _among(keys: NDArray[np.void], seen: NDArray[np.void]) -> NDArray[np.bool_]:
    import numpy as np

    at = np.searchsorted(seen, keys)
    return np.array(seen[np.minimum(at, len(seen) - 1)] == keys) & (at < len(seen)) if len(seen) else np.zeros(len(keys), np.bool_)


def _written(sets: list[Manifest], folder: str, materialize: bool, workers: int, engine: str) -> list[ShardEntry]:
    """Write what the merged set needs in its folder, and return its shards."""
    fs.make_dirs(folder)
    pairs = [(one, entry) for one in sets for entry in one.shards]
    if materialize:
        tasks = [CopyTask((piece(one, entry),), folder, f"{number:05d}") for number, (one, entry) in enumerate(pairs)]
        return copy_shards(tasks, workers, engine)
    return moved_or_cut(pairs, folder)
