"""`shards compact`: rewrite the tars that hold samples out of use, so that their bytes are gone; whole tars stay as they are.

What is new is written aside first, its manifest last. From then on the take-over can be broken off at any point, and
the same command completes it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shards import layers, tombstones
from shards.copy import CopyTask, copy_shards, piece
from shards.core import fs
from shards.core.config import MOST_WORKERS, option
from shards.core.console import counted, emit
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.core.notices import note
from shards.kin import renew_sizes
from shards.manifest import ASIDE, HOLDOUT, NAME, Manifest, ShardEntry, read_manifest, statistics_of
from shards.remove import start_curate
from shards.tombstones import Rewritten

METADATA = "croissant.json"  # of `curate card`


@dataclass(frozen=True)
class CompactConfig:
    """Flags of `shards compact`."""

    folder: str = option(help="the build whose tars are rewritten", positional=True, metavar="BUILD")
    workers: int | None = option(None, "worker processes; default: one per core", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print JSON")


def run(config: CompactConfig) -> None:
    """Rewrite what has to be, and say so."""
    before = read_manifest(config.folder)
    with fs.locked(config.folder.removesuffix(NAME)):  # not around `curate report`, which holds the folder itself
        touched = compact(config.folder, workers=config.workers or default_workers(), engine=config.engine)
    held = fs.join(config.folder.removesuffix(NAME), HOLDOUT)
    if fs.exists(fs.join(held, NAME)) or fs.exists(fs.join(held, ASIDE, NAME)):
        with fs.locked(held):
            touched += compact(held, workers=config.workers or default_workers(), engine=config.engine)
    renew_sizes(config.folder.removesuffix(NAME))
    if fs.exists(fs.join(config.folder, "ledger")):
        start_curate("report", config.folder)  # it names the manifest's digest
    after = read_manifest(config.folder)
    if config.json:
        counts = {"manifest": after.digest, "samples": after.samples, "shards": len(after.shards), "rewritten": touched}
        emit(counts | {"bytes": after.bytes, "bytes_before": before.bytes})
    elif touched:
        saved = f"{before.bytes - after.bytes:,} bytes less"
        emit(f"{config.folder}: {counted(touched, 'shard')} rewritten, {saved}, {counted(after.samples, 'sample')}")
    else:
        emit(f"{config.folder}: nothing to do, all samples of its shards are in use")
    _note(after, touched)


def _note(manifest: Manifest, touched: int) -> None:
    """Tell what compacting leaves as it was: tars of other folders, and metadata that names the old tars by their digests."""
    elsewhere = [entry for entry in manifest.shards if not entry.own and entry.use is not None]
    where = f"`shards compact` on the build that owns them, such as {manifest.folder_of(elsewhere[0])}" if elsewhere else ""
    note(len(elsewhere), "[tar of another folder still holds|tars of other folders still hold] samples out of use", where)
    metadata = fs.join(manifest.folder, METADATA)
    if touched and fs.exists(metadata):
        note(1, "file still names the old tars by their sha256", f"{metadata}; `curate card --overwrite` writes it anew")


def compact(folder: str, *, workers: int = 1, engine: str = "inline") -> int:
    """Rewrite a build's shards without the samples that are not in use; return how many were touched.

    Raises:
        UsageError: the set's tars lie in other folders: a subset, whose cut shards are no waste.
    """
    aside = fs.join(folder, ASIDE)
    if not fs.exists(fs.join(aside, NAME)):
        manifest = read_manifest(folder)
        if not any(e.own for e in manifest.shards):
            advice = "shards subset --materialize copies what a subset uses"
            raise UsageError(f"{folder!r} uses tars of other folders alone", "the build that owns its tars", advice)
        if not any(e.own and e.use is not None for e in manifest.shards):
            return 0
        _write_aside(manifest, aside, workers, engine)
    return _take_over(folder, aside)


def _write_aside(manifest: Manifest, aside: str, workers: int, engine: str) -> None:
    """Write the touched shards anew into a folder of their own, and last the manifest of the whole."""
    touched = [e for e in manifest.shards if e.own and e.use is not None and e.used]
    tasks = [CopyTask((piece(manifest, e),), aside, e.path.removesuffix(".tar")) for e in touched]
    fs.make_dirs(aside)
    new = dict(zip((e.path for e in touched), copy_shards(tasks, workers, engine), strict=True))
    steps = [_step(manifest, e, new.get(e.path)) for e in manifest.shards if e.own and e.use is not None]
    tombstones.write_rewritten(aside, [*tombstones.read_rewritten(manifest.folder), *steps])
    shards = tuple(new.get(e.path, e) for e in manifest.shards if e.used)
    dataclasses.replace(manifest, shards=shards, bytes=sum(e.bytes for e in shards)).save(aside)


def _step(manifest: Manifest, entry: ShardEntry, now: ShardEntry | None) -> Rewritten:
    """Return what becomes of a tar; `now` is None where no sample of it is left."""
    sources = {at: source for at, _, source in tombstones.read(manifest.folder).get(entry.name, ())}
    used = set(entry.positions().tolist())
    gone = [at for at in range(entry.samples) if at not in used]
    facts = {} if now is None else {n: getattr(now, n) for n in ("bytes", "sha256", "index_sha256", "sidecar_sha256")}
    return Rewritten(entry.name, entry.sha256, tuple(gone), tuple(sources.get(at, "") for at in gone), now.samples if now else 0, **facts)


def _take_over(folder: str, aside: str) -> int:
    """Put the new files in the place of the old ones; safe to be repeated."""
    new, old = read_manifest(aside), read_manifest(folder, removed=True)
    now = {e.path: e for e in new.shards}
    touched = [e for e in old.shards if e.own and (e.path not in now or now[e.path] != e)]
    for entry in touched:
        fs.remove(statistics_of(folder, entry.name))
        for suffix in (".tar", ".idx", ".parquet"):
            _replace(aside, folder, entry.path.removesuffix(".tar") + suffix, gone=entry.path not in now)
        for layer in layers.read_layers(folder):
            name = fs.join(layers.FOLDER, layer, entry.path.removesuffix(".tar") + ".parquet")
            _replace(aside, folder, name, gone=entry.path not in now)
    # Tombstones name positions in the old tars, what was rewritten leads from old manifests to the new tars: one after the other.
    tombstones.write(folder, {})
    _replace(aside, folder, tombstones.COMPACTED, gone=False)
    dataclasses.replace(new, folder=folder).save(folder)
    fs.remove(aside)
    return len(touched)


def _replace(aside: str, folder: str, name: str, *, gone: bool) -> None:
    """Move a new file over the old one; where the shard has no sample left, the old one goes."""
    if gone:
        fs.remove(fs.join(folder, name))
    elif fs.exists(fs.join(aside, name)):
        fs.move(fs.join(aside, name), fs.join(folder, name))
