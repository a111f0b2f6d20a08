"""`shards remove`: take samples down. One small file beside the tars does it at once; the rest follows, and may be run again.

From the tombstones on, no reader, loader or subset of these tars yields the samples. Then the manifest's counts follow, and
`curate forget` takes them out of ledger, report and work folder. Their bytes go with `shards compact`. Exact and near
copies of a picture, which the build's ledger names, are that picture: whoever names one means all.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass

from shards import tombstones
from shards.core import fs
from shards.core.config import option
from shards.core.console import Progress, emit, say
from shards.core.errors import RunError, UsageError
from shards.manifest import ASIDE, NAME, Manifest, read_manifest, statistics_of
from shards.reader import Shard
from shards.tombstones import Stone
from shards.uids import UidSet, pack, read_uid_file, uids_in, unpack

COPIES = ("exact_duplicate", "near_duplicate")


@dataclass(frozen=True)
class RemoveConfig:
    """Flags of `shards remove`."""

    folder: str = option(help="the build whose tars hold the samples; its subsets follow by themselves", positional=True, metavar="BUILD")
    uids: str = option(help="the samples: text with a uid on each line, or DataComp's .npy", metavar="FILE")
    work: str = option("", "the build's work folder, whose rows go too (default: BUILD.work)", metavar="DIR")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Removed:
    """What a take-down came to: samples that went now, that had gone before, and the shards that still hold their bytes."""

    samples: int
    before: int
    shards: int
    not_found: int


def run(config: RemoveConfig) -> None:
    """Take samples down and say what came of it."""
    named = read_uid_file(config.uids)
    uids = UidSet(pack(with_copies(config.folder, set(unpack(named.uids)))))
    removed = remove(config.folder, uids)
    built = fs.exists(fs.join(config.folder, "ledger"))
    if built:
        start_curate("forget", config.folder, "--uids", config.uids, *(["--work", config.work] if config.work else []))
    if config.json:
        emit({"uids": len(named), "with_copies": len(uids), **dataclasses.asdict(removed)})
        return
    if len(uids) > len(named):
        say(f"{len(uids) - len(named):,} more uids show the same pictures, by the ledger: exact and near copies")
    earlier = f", {removed.before:,} had gone before" if removed.before else ""
    emit(f"{config.folder}: {removed.samples:,} samples taken down{earlier}")
    if elsewhere := _elsewhere(read_manifest(config.folder)):
        say(f"tars in {', '.join(elsewhere[:3])} are not this set's own: take the samples down there, too")
    if removed.not_found:
        later = "; a next build leaves them out all the same" if built else ""
        say(f"{removed.not_found:,} of the {len(uids):,} uids are in no shard{later}")
    if removed.shards:
        say(f"{removed.shards:,} shards still hold their bytes, which nothing of ours reads any more: `shards compact` rewrites them")


def with_copies(folder: str, uids: set[str]) -> set[str]:
    """Return the uids and those of all exact and near copies of their pictures, by the ledger of the build."""
    import pyarrow.parquet as pq

    paths = [fs.join(folder, "ledger", name) for name in fs.names(fs.join(folder, "ledger")) if name.endswith(".parquet")]
    found = set(uids)
    for leading in (True, False):  # first the samples that named copies repeat, then all copies of these
        for path in paths:
            with fs.open_read(path) as file:
                table = pq.read_table(file, columns=["uid", "duplicate_of"], filters=[("reason", "in", COPIES)])
            pairs = zip(table["uid"].to_pylist(), table["duplicate_of"].to_pylist(), strict=True)
            found |= {of for uid, of in pairs if uid in uids} if leading else {uid for uid, of in pairs if of in found}
    return found


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
        found = f"the tars of {folder!r} lie in {', '.join(_elsewhere(there)[:3])}"
        raise UsageError(found, "the build that owns them", "take the samples down there; every subset of that build follows at once")
    stones, earlier = _stones(there, uids)
    tombstones.write(folder, stones)
    for name in stones:
        fs.remove(statistics_of(folder, name))
    after = read_manifest(folder)
    after.save(folder)
    touched = sum(1 for rows in stones.values() if rows)
    return Removed(before.samples - after.samples, earlier, touched, uids.missing)


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
