"""`shards remove`: take samples down. One small file beside the tars does it at once; the rest follows, and may be run again.

From the tombstones on, no reader, loader or subset of these tars yields the samples. The tars of another set
(`subset --materialize`, a merged set, another build) are out of reach, and named where they lie beside the build. Then the
manifest's counts follow, and `curate forget` takes the samples out of ledger, report and work folder. Their bytes go with
`shards compact`. Exact and near copies of a picture, which the build's ledger names, are that picture: whoever names one
means all. Samples are named one by one, by lists, or by a condition; `--dry-run` shows what would go.
"""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shards import expression, tombstones, which
from shards.core import fs, notices
from shards.core.config import option
from shards.core.console import Progress, counted, cut, emit, inflected, say, table, visible
from shards.core.errors import RunError, UsageError
from shards.kin import copies_beside, renew_sizes
from shards.listed import ID_COLUMNS, URL_COLUMNS, quoted_uid, read_names
from shards.manifest import ASIDE, HOLDOUT, NAME, Manifest, read_manifest, statistics_of
from shards.reader import Shard
from shards.tombstones import Stone
from shards.uids import UidSet, pack, read_listed, uids_in, unpack, write_uids

COPIES = ("exact_duplicate", "near_duplicate")
NAMED = 3  # so many uids stand in a command that is proposed; beyond, the list that named them
SHOWN, WIDTH = 10, 60  # samples that a dry run shows, and columns of each one's caption


@dataclass(frozen=True)
class RemoveConfig:
    """Flags of `shards remove`."""

    folder: str = option(
        help="the build whose tars hold the samples; subsets over these tars follow, materialized ones are sets of their own",
        positional=True,
        metavar="BUILD",
    )
    samples: tuple[str, ...] = option(
        (),
        "the samples, by uid or its first digits, source id, URL, path or file name",
        positional=True,
        metavar="SAMPLE",
    )
    uids: str = option("", "a list of them: uids or other names in .txt, .csv, .parquet, .json, or DataComp's .npy", metavar="FILE")
    urls: str = option("", "a list of URLs: every sample of each goes", metavar="FILE")
    source_ids: str = option("", "a list of source ids", metavar="FILE")
    where: str = option("", "samples that meet an SQL condition over columns, such as \"url LIKE 'https://example.org/%'\"", metavar="EXPR")
    dry_run: bool = option(False, "show how many would go, and some of them; change nothing")
    strict: bool = option(False, "exit 1 where something named is not there")
    work: str = option("", "the build's work folder, whose rows go too (default: BUILD.work)", metavar="DIR")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Removed:
    """What a take-down came to: samples that went now, that had gone before, and the shards that still hold their bytes."""

    samples: int
    before: int
    shards: int
    not_found: int


def run(config: RemoveConfig) -> int:
    """Take samples down and say what came of it; return 1 where `strict` asks for it and something named is in no shard."""
    named = chosen(config)
    uids = UidSet(pack(with_copies(config.folder, named)))
    if config.dry_run:
        return _show(config, named, uids)
    with fs.locked(config.folder.removesuffix(NAME)):  # not around `curate forget`, which holds the folder itself
        removed = _remove_with_held_out(config.folder, uids)
    renew_sizes(config.folder.removesuffix(NAME))
    copies = copies_beside(config.folder.removesuffix(NAME), uids)
    built = fs.exists(fs.join(config.folder, "ledger"))
    if built:
        with tempfile.TemporaryDirectory() as folder:
            listed = fs.join(folder, "uids.npy")
            write_uids(listed, pack(named))
            start_curate("forget", config.folder, "--uids", listed, *(["--work", config.work] if config.work else []))
    if config.json:
        counts = {"uids": len(named), "with_copies": len(uids), **dataclasses.asdict(removed)}
        emit(counts | {"copies": {path: len(held) for path, held in copies.items()}, "notices": notices.lines()})
        return 1 if config.strict and removed.not_found else 0
    if len(uids) > len(named):
        say(f"{_more(len(uids) - len(named))} the same pictures, by the ledger: exact and near copies")
    earlier = f", {removed.before:,} had gone before" if removed.before else ""
    emit(f"{config.folder}: {counted(removed.samples, 'sample')} taken down{earlier}")
    _say_copies(config, copies)
    if elsewhere := _elsewhere(read_manifest(config.folder)):
        say(f"tars in {', '.join(elsewhere[:3])} are not this set's own: take the samples down there, too")
    _say_not_found(removed.not_found, len(uids), built)
    if removed.shards:
        holding = inflected(removed.shards, f"{removed.shards:,} [shard still holds|shards still hold] their bytes")
        say(f"{holding}, which nothing of ours reads any more: `shards compact {config.folder}` ends that")
    return 1 if config.strict and removed.not_found else 0


def _say_copies(config: RemoveConfig, copies: dict[str, list[str]]) -> None:
    """Name the sets beside the build that hold the samples in tars of their own: a take-down does not reach those."""
    for folder, held in copies.items():
        flags = {"--uids": config.uids, "--urls": config.urls, "--source-ids": config.source_ids, "--where": config.where}
        ways = held if len(held) <= NAMED else [word for flag, value in flags.items() if value for word in (flag, value)]
        command = shlex.join(["shards", "remove", folder, *(ways or config.samples)])
        say(f"{folder}: tars of its own hold {len(held):,} of these samples, which this take-down does not reach: `{command}`")


def _more(number: int) -> str:
    return inflected(number, f"{number:,} more [sample shows|samples show]")


def _say_not_found(number: int, of: int, built: bool) -> None:
    if number:
        later = "; a next build leaves them out all the same" if built else ""
        say(inflected(number, f"{number:,} of the {counted(of, 'sample')} named [is|are] in no shard{later}"))


def chosen(config: RemoveConfig) -> set[str]:
    """Return the uids that a take-down names, those that have gone before included: it may be run again.

    Raises:
        UsageError: nothing is named, in more than one way, or unclear; or no sample meets the condition.
    """
    ways: dict[str, Callable[[Manifest], set[str]]] = {}
    if config.samples:
        ways["SAMPLE …"] = lambda manifest: _named(manifest, list(config.samples))
    if config.uids:
        ways["--uids"] = lambda manifest: _listed(manifest, config.uids)
    if config.urls:
        ways["--urls"] = lambda manifest: _of_list(manifest, config.urls, URL_COLUMNS, "URL")
    if config.source_ids:
        ways["--source-ids"] = lambda manifest: _of_list(manifest, config.source_ids, ID_COLUMNS, "source id")
    if config.where:
        ways["--where"] = lambda manifest: _meeting(manifest, config.where)
    if len(ways) != 1:
        problem = f"samples named by {' and '.join(ways)}" if ways else "no samples named"
        raise UsageError(problem, "one of SAMPLE …, --uids FILE, --urls FILE, --source-ids FILE, --where EXPR")
    manifest = _with_removed(read_manifest(config.folder, removed=True))
    way, find = next(iter(ways.items()))
    uids = find(manifest)
    if not uids:
        raise UsageError(f"{way} names no sample of {config.folder!r}", "at least one", "; ".join(notices.lines()))
    return uids


def _with_removed(manifest: Manifest) -> Manifest:
    """Return the manifest with the samples that were taken down, as long as their bytes are there."""
    import numpy as np

    stones = tombstones.read(manifest.folder)
    shards = []
    for entry in manifest.shards:
        gone = [at for at, _, _ in stones.get(entry.name, ())] if entry.own else []
        shards.append(entry.cut(np.union1d(entry.positions(), np.array(gone, np.int64))) if gone else entry)
    return dataclasses.replace(manifest, shards=tuple(shards))


def _named(manifest: Manifest, names: list[str]) -> set[str]:
    """Return the uids of names; a whole uid stands for itself, wherever it is."""
    uids = {uid for name in names if (uid := quoted_uid(name))}
    others = [name for name in names if not quoted_uid(name)]
    return uids | set(which.resolve(manifest, others)) if others else uids


def _listed(manifest: Manifest, path: str) -> set[str]:
    uids, others = read_listed(path)
    return set(unpack(uids.uids)) | (set(which.resolve_listed(manifest, others)) if others else set())


def _of_list(manifest: Manifest, path: str, columns: tuple[str, ...], way: str) -> set[str]:
    """Return the uids of all samples that a list of URLs or source ids names; what is not found is told."""
    names = read_names(path, columns, (lambda cell: "://" in cell) if way == "URL" else (lambda cell: False))
    ways = ("URL", "source id") if way == "URL" else ("source id",)  # the ids of some sources begin with the URL
    matches_of = which.find(manifest, names, ways)
    which.note_unknown(manifest, matches_of, way)
    return {match.uid for matches in matches_of.values() for match in matches}


def _meeting(manifest: Manifest, condition: str) -> set[str]:
    bound = expression.bound(manifest, condition)
    uids: set[str] = set()
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            rows = bound.holds(shard).nonzero()[0].tolist()
            names = uids_in(shard) if rows else []
        uids |= {names[i] for i in rows}
    bound.note()
    return uids


def _show(config: RemoveConfig, named: set[str], uids: UidSet) -> int:
    """Print what a take-down would do."""
    manifest = read_manifest(config.folder)
    rows: list[dict[str, Any]] = []
    samples, shards = 0, 0
    for entry in (e for e in manifest.shards if e.own):
        with Shard(manifest, entry) as shard:
            going = uids.holds(shard).nonzero()[0]
            samples, shards = samples + len(going), shards + bool(len(going))
            if len(going) and len(rows) < SHOWN:
                rows += _examples(shard, going[: SHOWN - len(rows)].tolist())
    copies = copies_beside(config.folder.removesuffix(NAME), uids)
    if config.json:
        counts = {"dry_run": True, "uids": len(named), "with_copies": len(uids), "samples": samples, "shards": shards}
        held = {path: len(uids_held) for path, uids_held in copies.items()}
        emit(counts | {"copies": held, "not_found": uids.missing, "examples": rows, "notices": notices.lines()})
        return 1 if config.strict and uids.missing else 0
    emit(f"{config.folder}: {counted(samples, 'sample')} of {counted(shards, 'shard')} would be taken down; nothing is changed")
    if rows:
        lines = [(row["uid"], cut(visible(row["caption"]), WIDTH)) for row in rows]
        emit(table(("uid", "caption"), lines, len(rows[0]["uid"]) + WIDTH + 2))
    if samples > len(rows):
        say(f"… and {samples - len(rows):,} more")
    _say_copies(config, copies)
    if len(uids) > len(named):
        say(f"{_more(len(uids) - len(named))} the same pictures, by the ledger: exact and near copies, which would go, too")
    _say_not_found(uids.missing, len(uids), fs.exists(fs.join(config.folder, "ledger")))
    return 1 if config.strict and uids.missing else 0


def _examples(shard: Shard, rows: list[int]) -> list[dict[str, Any]]:
    names = uids_in(shard)
    captions = shard.sidecar(["caption"])
    texts = captions["caption"].to_pylist() if captions.num_columns else [""] * len(names)
    return [{"uid": names[i], "caption": texts[i] or ""} for i in rows]


def with_copies(folder: str, uids: set[str]) -> set[str]:
    """Return the uids and those of all exact and near copies of their pictures, by the ledger of the build."""
    import pyarrow.parquet as pq

    paths = [fs.join(folder, "ledger", name) for name in fs.names(fs.join(folder, "ledger")) if name.endswith(".parquet")]
    uids_and_copies = set(uids)
    for leading in (True, False):  # first the samples that named copies repeat, then all copies of these
        for path in paths:
            with fs.open_read(path) as file:
                table = pq.read_table(file, columns=["uid", "duplicate_of"], filters=[("reason", "in", COPIES)])
            pairs = zip(table["uid"].to_pylist(), table["duplicate_of"].to_pylist(), strict=True)
            uids_and_copies |= {of for uid, of in pairs if uid in uids} if leading else {uid for uid, of in pairs if of in uids_and_copies}
    return uids_and_copies


def remove(folder: str, uids: UidSet) -> Removed:
    """Set tombstones for the samples of these uids, and make the manifest's counts follow.

    Raises:
        UsageError: the set's tars lie in other folders, where the take-down has to be made.
    """
    if fs.exists(fs.join(folder, ASIDE, NAME)):
        raise UsageError(f"shards compact {folder} was broken off", "a build that is whole", "run it again, it completes; then take down")
    before = read_manifest(folder)
    there = read_manifest(folder, removed=True)
    if not any(e.own for e in there.shards):
        problem = f"the tars of {folder!r} lie in {', '.join(_elsewhere(there)[:3])}"
        raise UsageError(problem, "the build that owns them", "take the samples down there; every subset of that build follows at once")
    stones, earlier = _stones(there, uids)
    tombstones.write(folder, stones)
    for name in stones:
        fs.remove(statistics_of(folder, name))
    after = read_manifest(folder)
    after.save(folder)
    touched = sum(1 for rows in stones.values() if rows)
    return Removed(before.samples - after.samples, earlier, touched, uids.missing)


def _remove_with_held_out(folder: str, uids: UidSet) -> Removed:
    """Take samples down in a set and, where it is a build that held some out, in those, too."""
    removed = remove(folder, uids)
    held = fs.join(folder.removesuffix(NAME), HOLDOUT)
    if not fs.exists(fs.join(held, NAME)):
        return removed
    with fs.locked(held):
        other = remove(held, uids)  # `uids` remembers what it met in the first set
    return Removed(removed.samples + other.samples, removed.before + other.before, removed.shards + other.shards, other.not_found)


def _elsewhere(manifest: Manifest) -> list[str]:
    """Return the folders of tars that are another set's."""
    return sorted({manifest.folder_of(e) for e in manifest.shards if not e.own})


def _stones(manifest: Manifest, uids: UidSet) -> tuple[dict[str, list[Stone]], int]:
    """Return all tombstones, old and new, and how many of the uids had one already."""
    stones = tombstones.read(manifest.folder)
    old = [uid for rows in stones.values() for _, uid, _ in rows]
    places = uids.places(uid for uid in old if len(uid) == 32)
    earlier = places[places >= 0]
    uids.met[earlier] = True
    with Progress("look for uids", manifest.samples) as progress:
        for entry in (e for e in manifest.shards if e.own):
            known = {at for at, _, _ in stones.get(entry.name, ())}
            with Shard(manifest, entry) as shard:
                chosen = uids.holds(shard).nonzero()[0].tolist()
                names = uids_in(shard) if chosen else []
                table = shard.sidecar(["source"]) if chosen else None
            sources = (
                table["source"].to_pylist() if table is not None and table.num_columns else [next(iter(manifest.sources), "")] * len(names)
            )
            positions = entry.positions()
            new = [(int(positions[i]), names[i], sources[i]) for i in chosen if int(positions[i]) not in known]
            if new:
                stones[entry.name] = sorted([*stones.get(entry.name, ()), *new])
            progress.add(entry.used)
    return stones, len(earlier)


def start_curate(*arguments: str) -> None:
    """Let the room that made ledger, report and work folder do its part, as a command.

    Raises:
        RunError: it could not.
    """
    code = "import sys; from curate.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RunError(f"curate {' '.join(arguments)}: exit code {done.returncode}", advice="the same command again does what is left")
