"""`train check`: prove that a whole build decodes in DALI before a training is spent on it.

DALI may take its process down on an odd file, so it runs in child processes, on a few hundred samples at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shards.core.config import option
from shards.core.console import Progress, emit, table
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from train.data.decode.dali import Prover

TASK = 256  # samples per task
BATCH = 16  # whole images in memory at once


@dataclass(frozen=True)
class CheckConfig:
    """The configuration of `train check`."""

    manifest: str = option(help="the build: its folder or manifest.json", metavar="PATH")
    workers: int = option(0, "worker processes (0: one per core)")
    limit: int | None = option(None, "look at the first N samples only")
    json: bool = option(False, "print JSON")


class Part(NamedTuple):
    """Samples [first, stop) of one shard's window."""

    manifest: str
    shard: int
    first: int
    stop: int


def check(config: CheckConfig) -> int:
    """Decode every image of a build with DALI; print those that fail. Return 0 if all decode, else 1."""
    manifest = read_manifest(config.manifest)
    specs = list(_parts(manifest, config.manifest, config.limit))
    total = sum(spec.stop - spec.first for spec in specs)
    failed: list[dict[str, str]] = []
    with Progress("check", total) as progress:
        for outcome in map_unordered(failing, specs, workers=config.workers or default_workers(), split=_split):
            spec = outcome.spec
            failed += [_lost(spec, outcome.reason)] if isinstance(outcome, Lost) else outcome.result
            progress.add(spec.stop - spec.first)
    failed.sort(key=lambda row: (row["shard"], row["key"]))
    if config.json:
        emit({"samples": total, "undecodable": failed})
    else:
        if failed:
            emit(table(("shard", "key", "why"), [(row["shard"], row["key"], row["why"]) for row in failed]))
        emit(f"{total - len(failed):,} of {total:,} images decode in DALI")
    return 1 if failed else 0


def _parts(manifest: Manifest, path: str, limit: int | None) -> Iterator[Part]:
    left = manifest.samples if limit is None else limit
    for number, entry in enumerate(manifest.shards):
        stop = min(entry.used, left)
        left -= stop
        for first in range(0, stop, TASK):
            yield Part(path, number, first, min(first + TASK, stop))


def _split(part: Part) -> list[Part]:
    """Halve a part whose worker died, down to the one sample that kills it."""
    if part.stop - part.first < 2:
        return []
    middle = (part.first + part.stop) // 2
    return [part._replace(stop=middle), part._replace(first=middle)]


def failing(part: Part) -> list[dict[str, str]]:
    """Return {shard, key, why} of the samples of a part that do not decode."""
    from shards.reader import Shard
    from shards.sample import IMAGE_EXTENSIONS

    manifest = read_manifest(part.manifest)
    entry, rows = manifest.shards[part.shard], []
    with Shard(manifest, entry) as shard:
        for first in range(part.first, part.stop, BATCH):
            chosen = range(first, min(first + BATCH, part.stop))
            members = [next((m for m in shard.groups[i] if m.ext.lower() in IMAGE_EXTENSIONS), None) for i in chosen]
            images = [shard.read_range(m.offset, m.size) if m else b"" for m in members]
            for i, why in _prover().failing(images).items():
                rows.append({"shard": entry.path, "key": shard.key(chosen[i]), "why": why if members[i] else "no image member"})
    return rows


@functools.cache
def _prover() -> Prover:
    """Return this worker's pipeline, which outlives the task."""
    from train.data.decode.dali import Prover

    return Prover(BATCH)


def _lost(part: Part, reason: str) -> dict[str, str]:
    """Return the row of a sample that took its worker down."""
    from shards.reader import Shard

    manifest = read_manifest(part.manifest)
    entry = manifest.shards[part.shard]
    with Shard(manifest, entry) as shard:
        return {"shard": entry.path, "key": shard.key(part.first), "why": f"DALI's process died: {reason}"}
