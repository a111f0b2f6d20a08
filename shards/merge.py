"""`shards merge`: several sets as one, a manifest over the tars of all.

A sample that stands in an earlier set is left out of the later one, and counted. A uid names a sample in all sets; the keys of
foreign tars are names alone, often running numbers: there a sample is known by its tar and its place in it, and samples of one
name are all kept. Copied into tars of their own (`--materialize`), the second of a name becomes `NAME-2`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.copy import CopyTask, copy_shards, piece
from shards.core import fs, notices
from shards.core.config import MOST_WORKERS, option
from shards.core.console import Progress, counted, emit
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.first_card import write_first_card
from shards.manifest import Manifest, ShardEntry, read_manifest, without
from shards.reader import Shard
from shards.sample import KEY_RULE
from shards.subset import clear, moved_or_cut, refuse_other
from shards.tally import REPEATED_KEYS
from shards.uids import hashes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILDER = "shards merge"
_UID_KEY = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")  # a build that repeats samples numbers their keys


@dataclass(frozen=True)
class MergeConfig:
    """Flags of `shards merge`."""

    folders: tuple[str, ...] = option(help="builds or subsets, the preferred first", positional=True, metavar="SET")
    output: str = option(help="folder of the merged set")
    materialize: bool = option(False, "copy all samples into tars of its own, for readers that know no manifest")
    overwrite: bool = option(False, "replace a set that is there")
    strict: bool = option(False, "exit 1 where samples were left out, or keys repeat")
    workers: int | None = option(None, "worker processes of --materialize; default: one per core", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


def run(config: MergeConfig) -> int:
    """Write the merged set and say what it holds; return 1 where `strict` asks for it and samples were left out."""
    sets = [read_manifest(folder) for folder in config.folders]
    if len(sets) < 2:
        raise UsageError("one set", "two or more to merge")
    _check_alike(sets)
    for part in sets:
        refuse_other(config.output, part, config.overwrite)
    distinct, repeated, names = _distinct(sets)
    keys = _new_keys(distinct, names) if config.materialize else {}
    _tell_repeated(distinct, names)
    _tell_equal_tars(distinct)
    if config.overwrite:
        clear(config.output)
    merged = merge(sets, distinct, repeated, config.output)
    workers = config.workers or default_workers()
    shards = _written(distinct, config.output, config.materialize, keys, workers, config.engine)
    merged = dataclasses.replace(merged, shards=tuple(shards), bytes=sum(e.bytes for e in shards))
    write_first_card(merged, config.output)
    merged.save(config.output)
    if config.json:
        counts = {"manifest": merged.digest, "samples": merged.samples, "shards": len(merged.shards)}
        emit(counts | {"repeated": repeated, "notices": notices.lines()})
        return 1 if config.strict and any(repeated) else 0
    emit(f"{config.output}: {counted(merged.samples, 'sample')} in {counted(len(merged.shards), 'shard')}")
    for folder, n in zip(config.folders, repeated, strict=True):
        if n:
            emit(f"{counted(n, 'sample')} of {folder} left out: found in an earlier set, too")
    return 1 if config.strict and any(repeated) else 0


def merge(sets: list[Manifest], distinct: list[Manifest], repeated: list[int], folder: str) -> Manifest:
    """Return the manifest of some sets as one, still without its shards.

    Args:
        distinct: the sets without the samples that stand in an earlier one.
        repeated: how many samples of each set that left out.
    """
    sources: dict[str, dict[str, Any]] = {}
    licences: dict[str, Counter[str]] = {}
    for part in distinct:
        for name, source in part.sources.items():
            sources[name] = _sum(sources[name], source) if name in sources else source
        for name, counts in part.licences.items():
            licences[name] = licences.get(name, Counter()) + Counter(counts)
    seeds = {part.seed for part in sets}
    return Manifest(
        samples=sum(part.samples for part in distinct),
        bytes=0,
        shards=(),
        builder=BUILDER,
        seed=seeds.pop() if len(seeds) == 1 else None,
        members=sets[0].members,
        sources={name: source for name, source in sources.items() if source.get("kept") or "inputs" in source},
        parents=tuple({"manifest": s.digest, "samples": s.samples, "repeated": n} for s, n in zip(sets, repeated, strict=True)),
        licences={name: dict(sorted(counts.items())) for name, counts in licences.items()},
        classes=sets[0].classes,
        notes=_notes(distinct),
        folder=folder,
    )


def _notes(sets: list[Manifest]) -> dict[str, Any]:
    """Return which tars are torn, of all sets."""
    torn: dict[str, str] = {}
    for part in sets:
        torn |= part.bad_files
    return {"bad_files": torn} if torn else {}


def _sum(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of one source in two sets; what only one of them knows cannot be summed and is left out."""
    total: dict[str, Any] = {}
    for name in (n for n in first if n in second):
        if isinstance(first[name], dict):
            total[name] = dict(Counter(first[name]) + Counter(second[name]))
        elif isinstance(first[name], int):
            total[name] = first[name] + second[name]
        elif first[name] == second[name]:
            total[name] = first[name]
    return total


def _check_alike(sets: list[Manifest]) -> None:
    """Refuse sets that no reader could take as one.

    Raises:
        UsageError: members or classes differ.
    """
    first = sets[0]
    for part in sets[1:]:
        if sorted(part.members) != sorted(first.members):
            problem = f"{part.folder}: members {' '.join(part.members)}"
            raise UsageError(problem, f"{' '.join(first.members)}, as in {first.folder}: every sample of a set has the same")
        if part.classes != first.classes:
            raise UsageError(f"{part.folder}: {len(part.classes)} classes", f"the {len(first.classes)} of {first.folder}, in its order")


def _distinct(sets: list[Manifest]) -> tuple[list[Manifest], list[int], NDArray[np.void]]:
    """Return each set without the samples that stand in an earlier one, how many these were, and the names that repeat.

    Sixteen bytes of memory per sample, and as many per foreign one: a hash of 128 bits stands for an identity and for a key.
    """
    import numpy as np

    seen: NDArray[np.void] = np.zeros(0, np.dtype("u8,u8"))
    distinct, repeated, names = [], [], [seen]
    with Progress("keys", sum(s.samples for s in sets)) as progress:
        for part in sets:
            shards, lost, met = [], Counter[str](), [seen]
            for entry in part.shards:
                kept, sources, identities, foreign = _new(part, entry, seen)
                shards += [kept] if kept.used else []
                lost += sources
                met.append(identities)
                names.append(foreign)
                progress.add(entry.used)
            seen = np.sort(np.concatenate(met))
            distinct.append(without(dataclasses.replace(part, shards=tuple(shards)), lost, "duplicate_id"))
            repeated.append(part.samples - distinct[-1].samples)
    ordered = np.sort(np.concatenate(names))
    return distinct, repeated, np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _new(
    manifest: Manifest, entry: ShardEntry, seen: NDArray[np.void]
) -> tuple[ShardEntry, Counter[str], NDArray[np.void], NDArray[np.void]]:
    """Return a shard cut to the samples that were not seen, the sources of the others, all identities, and the kept ones' names.

    The names are hashes of keys that are no uids.
    """
    import numpy as np

    with Shard(manifest, entry) as shard:
        keys = [shard.key(i) for i in range(len(shard))]
        uids = shard.sidecar(["uid"])
        table = shard.sidecar(["source"])
    known = uids["uid"].to_pylist() if uids.num_columns else [key.rpartition("/")[2] for key in keys]
    named = [not _UID_KEY.fullmatch(key) and not _UID_KEY.fullmatch(uid or "") for key, uid in zip(keys, known, strict=True)]
    place = manifest.path_of(entry)
    place = place if fs.is_remote(place) else os.path.realpath(place)
    positions = entry.positions()
    identities = []
    for i, key in enumerate(keys):
        identities.append(f"{place}\0{positions[i]}" if named[i] else key if _UID_KEY.fullmatch(key) else known[i])
    hashed = hashes(identities)
    old = _among(hashed, seen)
    foreign = hashes(key for key, is_name, is_old in zip(keys, named, old, strict=True) if is_name and not is_old)
    if not old.any():
        return entry, Counter(), hashed, foreign
    only = list(manifest.sources) if len(manifest.sources) == 1 else []
    sources = table["source"].to_pylist() if table.num_columns else only * len(keys)
    lost = Counter(name for name, is_old in zip(sources, old.tolist(), strict=False) if is_old)
    return entry.cut(positions[np.flatnonzero(~old)]), lost, hashed, foreign


def _tell_repeated(sets: list[Manifest], names: NDArray[np.void]) -> None:
    """Tell how many keys of foreign tars stand for several samples, and where the first of them is."""
    if not len(names):
        return
    for part in sets:
        for entry in part.shards:
            with Shard(part, entry) as shard:
                keys = [shard.key(i) for i in range(len(shard))]
            hits = _among(hashes(keys), names)
            if hits.any():
                where = fs.printable(f"{part.path_of(entry)}: {keys[int(hits.argmax())]}")
                notices.note(len(names), REPEATED_KEYS, f"such as {where}")
                return


def _tell_equal_tars(sets: list[Manifest]) -> None:
    """Tell how many tars of others are byte for byte those of an earlier set: their samples come twice."""
    first: dict[str, str] = {}
    for part in sets:
        for entry in part.shards:
            path = part.path_of(entry)
            if not entry.sha256 or entry.sidecar_sha256:
                continue
            if first.setdefault(entry.sha256, path) != path:
                notices.note(1, "[tar is|tars are] byte for byte [that|those] of an earlier set", f"{path} is {first[entry.sha256]}")


def _new_keys(sets: list[Manifest], names: NDArray[np.void]) -> dict[tuple[int, int], tuple[str, ...]]:
    """Return the keys of the shards whose copies need other ones, by (set, shard): the second sample of a name is `NAME-2`.

    Raises:
        UsageError: a key that no shard of ours can have.
    """
    renamed: dict[tuple[int, int], tuple[str, ...]] = {}
    times = Counter[str]()
    taken: set[str] = set()
    for number, part in enumerate(sets):
        for place, entry in enumerate(part.shards):
            if entry.sidecar_sha256 and not len(names):
                continue
            with Shard(part, entry) as shard:
                keys = [shard.key(i) for i in range(len(shard))]
            if wrong := next((key for key in keys if not KEY_RULE.fullmatch(key)), ""):
                raise UsageError(
                    f"{part.path_of(entry)}: key {fs.printable(wrong)!r} cannot be copied", "letters, digits, '_' and '-', at most 90",
                    "merge without --materialize, or build shards from the tars: curate build-shards --source webdataset",
                )  # fmt: skip
            again = _among(hashes(keys), names).tolist()
            if any(again):
                new = tuple(_numbered(key, times, taken) if repeats else key for key, repeats in zip(keys, again, strict=True))
                renamed[number, place] = new
    return renamed


def _numbered(key: str, times: Counter[str], taken: set[str]) -> str:
    """Return a key that repeats, with how many times it has come by now."""
    times[key] += 1
    new = key if times[key] == 1 else f"{key}-{times[key]}"
    while new in taken:
        new += "-"
    taken.add(new)
    return new


def _among(keys: NDArray[np.void], seen: NDArray[np.void]) -> NDArray[np.bool_]:
    import numpy as np

    at = np.searchsorted(seen, keys)
    return np.array(seen[np.minimum(at, len(seen) - 1)] == keys) & (at < len(seen)) if len(seen) else np.zeros(len(keys), np.bool_)


def _written(
    sets: list[Manifest], folder: str, materialize: bool, keys: dict[tuple[int, int], tuple[str, ...]], workers: int, engine: str
) -> list[ShardEntry]:
    """Write what the merged set needs in its folder, and return its shards.

    Args:
        keys: by (set, shard), the keys that copies get where they are not the samples' own.
    """
    fs.make_dirs(folder)
    if not materialize:
        return moved_or_cut([(part, entry) for part in sets for entry in part.shards], folder)
    tasks: list[CopyTask] = []
    for number, part in enumerate(sets):
        for place, entry in enumerate(part.shards):
            tasks.append(CopyTask((piece(part, entry),), folder, f"{len(tasks):05d}", keys.get((number, place), ())))
    return copy_shards(tasks, workers, engine)
