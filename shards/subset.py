"""`shards subset`: a part of a set, as a manifest over the same tars: a prefix, a window, what meets a condition, a list of uids.

Ranks are random, so any window is a random subset: prefixes nest, disjoint windows are independent draws. A window counts
among the samples that meet the condition and the list, so `--where … --samples N` is exact too. A fraction F of M such samples
is the first ⌊F·M + ½⌋ of them: F is taken as the decimal number that was written, and halves are rounded up.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from shards import expression, layers, tar, which
from shards.copy import CopyTask, copy_shards, piece
from shards.core import fs, notices
from shards.core.config import MOST_WORKERS, option
from shards.core.console import counted, emit, inflected, say
from shards.core.engines.local import default_workers
from shards.core.errors import RunError, UsageError
from shards.first_card import remove_first_card, write_first_card
from shards.manifest import NAME, STATISTICS, Manifest, ShardEntry, read_manifest
from shards.reader import Shard
from shards.uids import UidSet, pack, read_listed, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Choose = Callable[[Shard], "NDArray[np.bool_]"]


@dataclass(frozen=True)
class SubsetConfig:
    """Flags of `shards subset`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    output: str = option(help="folder of the subset")
    samples: int | None = option(None, "take the first N samples, of those that meet the conditions")
    fraction: float | None = option(None, "take the first part F of them, such as 0.5; halves are rounded up", above=0, most=1, metavar="F")
    window: str = option("", "take samples A up to, not including, B, likewise", metavar="A:B")
    where: str = option("", "only samples that meet an SQL condition over columns, such as 'laion.similarity > 0.3 AND width >= 200'")
    uids: str = option("", "only samples of this list: DataComp's .npy, or uids (or names) in .txt, .csv, .parquet, .json", metavar="FILE")
    materialize: bool = option(
        False, "write tars of their own where shards are cut, for readers that know no manifest; take-downs do not reach those"
    )
    overwrite: bool = option(False, "replace a subset that is there")
    strict: bool = option(False, "exit 1 where uids were not found, or the condition has no value for some samples")
    workers: int | None = option(None, "worker processes of --materialize; default: one per core", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


def run(config: SubsetConfig) -> None:
    """Write a subset and say what it holds."""
    parent = read_manifest(config.folder)
    start, stop = _window(config, parent)
    choose, listed, condition = _choices(config, parent)
    refuse_other(config.output, parent, config.overwrite)
    shards, met = _select(parent, choose, start, stop)
    if config.fraction is not None:
        stop = part_of(config.fraction, met)
        shards = _first(shards, stop)
    available = sum(e.used for e in shards)
    if not available or (stop is not None and available < stop - start):
        asked = f"[{start}, {stop}) of" if stop is not None else "any of"
        raise UsageError(f"asked for {asked} the samples that meet this", f"at most {met:,}, all there are" if met else "there are none")
    if config.overwrite:
        clear(config.output)
    workers = config.workers or default_workers()
    repack = config.materialize and bool(choose)
    manifest = _write(parent, shards, config.output, materialize=config.materialize, repack=repack, workers=workers, engine=config.engine)
    how = _how(config, start, stop)
    manifest = dataclasses.replace(manifest, parents=({"manifest": parent.digest, "samples": parent.samples, **how},))
    write_first_card(manifest, config.output)
    manifest.save(config.output)
    if condition is not None:
        condition.note()
    _tell(config, parent, manifest, how, listed)


def part_of(fraction: float, samples: int) -> int:
    """Return ⌊F·M + ½⌋, computed with the decimal number F as it was written: 0.1 of 15 is 2, although 0.1 is no binary number."""
    return int(Fraction(repr(fraction)) * samples + Fraction(1, 2))


def _tell(config: SubsetConfig, parent: Manifest, manifest: Manifest, how: dict[str, Any], listed: UidSet | None) -> None:
    cut = [e for e in manifest.shards if e.use is not None]
    missing = {} if listed is None else {"uids": len(listed), "uids_not_found": listed.missing}
    if config.json:
        counts = {"manifest": manifest.digest, "samples": manifest.samples, "shards": len(manifest.shards), "cut": [e.path for e in cut]}
        emit(counts | missing)
        return
    window = f" [{how['window'][0]}, {how['window'][1]})" if "window" in how else ""
    shards = counted(len(manifest.shards), "shard")
    emit(f"{config.output}: {counted(manifest.samples, 'sample')}{window} of {parent.samples:,} in {shards}")
    if missing.get("uids_not_found"):
        notices.note(missing["uids_not_found"], f"of the {counted(missing['uids'], 'uid')} [is|are] not in the set", config.uids)
    if cut:
        are_cut = inflected(len(cut), f"{len(cut):,} of the shards [is|are] cut")
        say(f"{are_cut}: our readers and DALI (with the .idx here) honour that; other readers need --materialize")


def _write(
    parent: Manifest, chosen: Sequence[ShardEntry], folder: str, *, materialize: bool, repack: bool, workers: int, engine: str
) -> Manifest:
    """Write what a subset needs besides its manifest, and return that.

    Args:
        chosen: the parent's entries, some left out, some cut to fewer samples.
        materialize: write the shards that are cut as tars in `folder`; whole shards are not copied.
        repack: write them all anew, into full shards.
    """
    fs.make_dirs(folder)
    sources, licences = _counts(parent, chosen)
    if repack:
        shards = copy_shards(_repacked(parent, chosen, folder), workers, engine)
    else:
        shards = moved_or_cut([(parent, entry) for entry in chosen], folder, materialize=materialize, workers=workers, engine=engine)
    return dataclasses.replace(
        parent,
        samples=sum(e.used for e in shards),
        bytes=sum(e.bytes for e in shards),
        shards=tuple(shards),
        sources={n: _kept(s, sources[n]) for n, s in parent.sources.items() if sources[n]},
        licences=licences,
        parents=({"manifest": parent.digest, "samples": parent.samples},),
        folder=folder,
    )


def _kept(source: dict[str, Any], n: int) -> dict[str, Any]:
    """Return what a part of a set says of a source: what became of the other inputs is no part of it."""
    return {k: v for k, v in source.items() if k in ("reader", "unit")} | {"kept": n}


def _window(config: SubsetConfig, parent: Manifest) -> tuple[int, int | None]:
    """Return the window among the samples that meet the conditions; no end means all of them."""
    ways = (config.samples is not None) + (config.fraction is not None) + bool(config.window)
    if ways > 1 or not (ways or config.where or config.uids):
        allowed = "one of --samples N and --window A:B, or --fraction F; --where, --uids FILE"
        raise UsageError("a subset needs a size, a window, or a condition", allowed)
    try:
        start, stop = (0, config.samples) if not config.window else [int(x) for x in config.window.split(":")]
    except ValueError:
        raise UsageError(f"--window {config.window}", "A:B, two whole numbers") from None
    if stop is not None and not 0 <= start < stop:
        raise UsageError(f"[{start}, {stop}) holds no sample", "0 ≤ A < B")
    if stop is not None and stop > parent.samples:
        raise UsageError(f"asked for samples up to {stop:,}", f"at most {parent.samples:,}, all there are")
    return start, stop


def _choices(config: SubsetConfig, parent: Manifest) -> tuple[list[Choose], UidSet | None, expression.Bound | None]:
    """Return what a sample has to meet, and the list of uids and the condition among it."""
    choose: list[Choose] = []
    listed, condition = None, None
    if config.uids:
        listed, names = read_listed(config.uids)
        if names:
            listed = UidSet(pack([*unpack(listed.uids), *which.resolve_listed(parent, names)]))
        if not len(listed):
            raise UsageError(f"{config.uids}: none of the names in it is of a sample, such as {names[:1]}", which.ALLOWED)
        choose.append(listed.holds)
    if config.where:
        condition = expression.bound(parent, config.where)
        choose.append(condition.holds)
    return choose, listed, condition


def _select(parent: Manifest, choose: list[Choose], start: int, stop: int | None) -> tuple[list[ShardEntry], int]:
    """Return the shards of the window among the samples that meet all of `choose`, and how many were seen to meet it."""
    import numpy as np

    shards, seen = [], 0
    for entry in parent.shards:
        if stop is not None and seen >= stop:
            break
        positions = entry.positions()
        if choose and len(positions):
            with Shard(parent, entry) as shard:
                positions = positions[np.logical_and.reduce([holds(shard) for holds in choose])]
        first, last = max(start - seen, 0), len(positions) if stop is None else min(stop - seen, len(positions))
        seen += len(positions)
        if first < last:
            shards.append(entry.cut(positions[first:last]))
    return shards, seen


def _first(shards: list[ShardEntry], samples: int) -> list[ShardEntry]:
    """Return shards cut to the first so many of their samples in use."""
    first = []
    left = samples
    for entry in shards:
        if left <= 0:
            break
        first.append(entry if entry.used <= left else entry.cut(entry.positions()[:left]))
        left -= entry.used
    return first


def _how(config: SubsetConfig, start: int, stop: int | None) -> dict[str, Any]:
    """Return how the subset was chosen, for its manifest: the list by its content, never by its path."""
    how: dict[str, Any] = {"window": [start, stop]} if stop is not None else {}
    how |= {"fraction": config.fraction} if config.fraction is not None else {}
    how |= {"where": config.where} if config.where else {}
    return how | ({"uids": fs.sha256(config.uids)} if config.uids else {})


def moved_or_cut(
    pairs: Sequence[tuple[Manifest, ShardEntry]], folder: str, *, materialize: bool = False, workers: int = 1, engine: str = "inline"
) -> list[ShardEntry]:
    """Return shards of some sets as seen from another folder; of the cut ones an index, or with `materialize` a copy, is written there."""
    named = list(zip(_free_names([e for _, e in pairs]), pairs, strict=True))
    tasks = [CopyTask((piece(m, e),), folder, name) for name, (m, e) in named if e.use is not None] if materialize else []
    copies = dict(zip((t.name for t in tasks), copy_shards(tasks, workers, engine), strict=True)) if tasks else {}
    moved = []
    for name, (manifest, entry) in named:
        if entry.use is None:
            moved.append(dataclasses.replace(entry, path=relative(manifest.path_of(entry), folder), index=None))
        else:
            moved.append(copies.get(name) or _windowed(manifest, entry, folder, name))
    return moved


def _windowed(parent: Manifest, cut: ShardEntry, folder: str, name: str) -> ShardEntry:
    """Write an index of the samples in use, which DALI honours, and return the entry that refers to it."""
    path, whole = relative(parent.path_of(cut), folder), parent.path_of(dataclasses.replace(cut, index=None), ".idx")
    if fs.exists(whole):
        head, *lines = fs.read_bytes(whole).decode("utf-8", "surrogateescape").splitlines()
        if len(lines) != cut.samples:
            raise RunError(f"{whole}: {len(lines)} samples", f"{cut.samples}, as the manifest says", "shards verify")
        chosen = [line for start, stop in cut.ranges for line in lines[start:stop]]
        text = "".join(f"{line}\n" for line in (f"{head.partition(' ')[0]} {len(chosen)}", *chosen))
    else:
        with Shard(parent, cut) as shard:
            text = tar.format_index(shard.groups)
            if any(" " in member.name for group in shard.groups for member in group):
                return dataclasses.replace(cut, path=path, index_sha256="")  # DALI's index cannot hold such names
    content = text.encode("utf-8", "surrogateescape")  # names of foreign members may be no UTF-8
    fs.write_bytes(fs.join(folder, f"{name}.idx"), content)
    digest = hashlib.sha256(content).hexdigest()
    return dataclasses.replace(cut, path=path, index=f"{name}.idx", index_sha256=digest)


def _repacked(parent: Manifest, chosen: Sequence[ShardEntry], folder: str) -> list[CopyTask]:
    """Return the tasks that write scattered samples anew, in order, as many to a shard as the set's largest has."""
    size = max(e.samples for e in parent.shards)
    tasks: list[CopyTask] = []
    pieces: list[Manifest] = []
    room = size
    for entry in chosen:
        positions = entry.positions()
        while len(positions):
            pieces.append(piece(parent, entry.cut(positions[:room])))
            taken = min(room, len(positions))
            positions, room = positions[taken:], room - taken
            if not room:
                tasks.append(CopyTask(tuple(pieces), folder, f"{len(tasks):05d}"))
                pieces, room = [], size
    return [*tasks, CopyTask(tuple(pieces), folder, f"{len(tasks):05d}")] if pieces else tasks


def _free_names(shards: Sequence[ShardEntry]) -> list[str]:
    """Return a name for each shard's files: the tar's own, with a number where that is taken."""
    names: dict[str, None] = {}
    for number, entry in enumerate(shards):
        name = entry.name.removesuffix(".tar")
        names[f"{name}-{number}" if name in names else name] = None
    return list(names)


def _counts(parent: Manifest, shards: Sequence[ShardEntry]) -> tuple[Counter[str], dict[str, dict[str, int]]]:
    """Count the samples of each source, and under each licence where the parent states them."""
    total = sum(e.used for e in shards)
    if len(parent.sources) < 2 and not parent.licences:
        return Counter(dict.fromkeys(parent.sources, total)), {}
    pairs = Counter[tuple[str, str]]()
    for entry in shards:
        with Shard(parent, entry) as shard:
            table = shard.sidecar(["source", "licence"])
        if table.num_columns == 2:
            pairs += Counter(zip(table["source"].to_pylist(), table["licence"].to_pylist(), strict=True))
    sources, licences = Counter[str](), dict[str, dict[str, int]]()
    for (source, licence), n in sorted(pairs.items()):
        sources[source] += n
        if licence and parent.licences:
            licences.setdefault(source, {})[licence] = n
    return sources, licences


def refuse_other(output: str, parent: Manifest, overwrite: bool) -> None:
    """Refuse an output folder that holds a set, before any work is done.

    Raises:
        UsageError: it does, and may not be replaced, or what it holds is a build and no part of one.
    """
    if not fs.exists(fs.join(output, NAME)):
        return
    if not overwrite:
        raise UsageError(f"{output!r} holds a set already", advice="--overwrite, or another --output")
    is_parents = any(
        fs.relative(parent.folder_of(e), output) == "." for e in parent.shards if _protocol(parent.folder_of(e)) == _protocol(output)
    )
    if is_parents or not read_manifest(output, removed=True).parents:
        raise UsageError(f"{output!r} holds tars of its own that others may use", "another folder: a build is never replaced by a part")


def clear(folder: str) -> None:
    """Remove a set that is to be replaced: its manifest first, then the files in its own folder."""
    if not fs.exists(fs.join(folder, NAME)):
        return
    old = read_manifest(folder, removed=True)
    fs.remove(fs.join(folder, NAME))
    remove_first_card(folder)
    for entry in old.shards:
        if entry.own:
            for suffix in (".parquet", ".idx", ".tar"):
                fs.remove(fs.join(folder, entry.path.removesuffix(".tar") + suffix))
        elif entry.index:
            fs.remove(fs.join(folder, entry.index))
    for beside in (layers.FOLDER, STATISTICS):
        fs.remove(fs.join(folder, beside))


def relative(path: str, folder: str) -> str:
    """Return a tar's path as seen from a folder.

    Raises:
        UsageError: one is local, the other is not, or they are of different kinds.
    """
    if _protocol(path) != _protocol(folder):
        raise UsageError(f"the subset's folder {folder!r} and the set {path!r} lie in different places", "one file system")
    return fs.relative(path, folder)


def _protocol(path: str) -> str:
    return path.partition("://")[0] if fs.is_remote(path) else ""
