"""`shards verify`: prove that a shard set is whole, by reading all of it in worker processes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from shards import checks, tar
from shards.checks import Problem
from shards.core import fs
from shards.core.config import option
from shards.core.console import Progress, emit, say, visible
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import ProvenderError
from shards.manifest import Manifest, ShardEntry, read_manifest, without_removed
from shards.reader import Shard

CHUNK = 256
SHOWN = 50


@dataclass(frozen=True)
class VerifyConfig:
    """Flags of `shards verify`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    decode: bool = option(True, "decode every image")
    workers: int | None = option(None, "worker processes; default: one per core")
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Part:
    """A task: one shard of a set (`manifest` lists it alone), and for decoding a range of its samples in use."""

    manifest: Manifest
    start: int = 0
    stop: int = 0

    @property
    def entry(self) -> ShardEntry:
        """The shard."""
        return self.manifest.shards[0]


@dataclass(frozen=True)
class FileReport:
    """What reading a shard's files gave. `keys`: 8 bytes of hash per used sample. `sound`: images can be read."""

    problems: list[Problem]
    keys: bytes
    sound: bool


def run(config: VerifyConfig) -> int:
    """Verify a set and print what is wrong; return 1 where anything is."""
    manifest = read_manifest(config.folder, removed=True)
    workers = config.workers or default_workers()
    problems = list(verify(manifest, decode=config.decode, workers=workers, engine=config.engine))
    if config.json:
        listed = [dataclasses.asdict(p) for p in problems]
        emit({"manifest": manifest.digest, "samples": manifest.samples, "shards": len(manifest.shards), "problems": listed})
        return 1 if problems else 0
    for problem in problems[:SHOWN]:
        emit(visible(str(problem)))
    if len(problems) > SHOWN:
        say(f"… and {len(problems) - SHOWN} more; --json lists all")
    what = f"{manifest.samples:,} samples in {len(manifest.shards):,} shards, {manifest.bytes:,} bytes"
    emit(f"{len(problems):,} problems: {what}" if problems else f"fine: {what}")
    return 1 if problems else 0


def verify(manifest: Manifest, *, decode: bool = True, workers: int = 1, engine: str = "local") -> Iterator[Problem]:
    """Yield every problem of a set: the manifest's own first, then by shard in order, then images.

    The files are held against the manifest as it is written; images are decoded where no tombstone stands.
    """
    yield from checks.check_totals(manifest)
    yield from checks.check_sizes(manifest)
    yield from checks.check_strays(manifest)
    parts = [Part(_alone(manifest, entry)) for entry in manifest.shards]
    reports: dict[str, FileReport] = {}
    with Progress("read", len(parts), "shards") as progress:
        for outcome in map_unordered(check_files, parts, workers=workers, engine=engine):
            entry = outcome.spec.entry
            lost = FileReport([Problem(entry.path, outcome.reason, "a readable shard")], b"", False) if isinstance(outcome, Lost) else None
            reports[_id(entry)] = lost or outcome.result  # type: ignore[union-attr]
            progress.add()
    for part in parts:
        yield from reports[_id(part.entry)].problems
    yield from _repeated(parts, reports)
    if decode:
        there = [p for p in parts if reports[_id(p.entry)].sound]
        yield from _images([Part(without_removed(p.manifest)) for p in there], workers, engine)


def check_files(part: Part) -> FileReport:
    """Check all of one shard but its images; runs in a worker."""
    manifest, entry = part.manifest, part.entry
    path = manifest.path_of(entry)
    problems = list(checks.check_checksums(manifest, entry))
    if not fs.exists(path):
        return FileReport(problems or [Problem(path, "absent", "a tar")], b"", False)
    try:
        with fs.open_read(path) as file:
            groups = list(tar.samples(tar.walk(file, path)))
        rows = _rows(manifest, entry)
    except (ProvenderError, OSError, ValueError) as error:
        return FileReport([*problems, Problem(path, str(error).replace("\n", " "), "a whole tar and sidecar")], b"", False)
    structure = [*checks.check_count(path, entry, groups), *checks.check_index(manifest, entry, groups)]
    problems += structure
    problems += checks.check_members(path, manifest.members, groups)
    problems += checks.check_adjacent(path, groups)
    problems += checks.check_keys(path, groups)
    sidecar = list(checks.check_sidecar(manifest.path_of(entry, ".parquet"), groups, rows))
    keys = b"".join(_hash(group[0].key) for start, stop in entry.ranges for group in groups[start:stop])
    return FileReport(problems + sidecar, keys, not structure and not sidecar)


def check_images(part: Part) -> list[Problem]:
    """Decode a range of a shard's samples and hold them against the sidecar; runs in a worker."""
    problems: list[Problem] = []
    with Shard(part.manifest, part.entry) as shard:
        table = shard.sidecar()
        columns = [c for c in checks.SIDECAR_COLUMNS if c in table.column_names]
        rows = table.select(columns).slice(part.start, part.stop - part.start).to_pylist() if columns else []
        for i in range(part.start, part.stop):
            problems += checks.check_image(shard, i, rows[i - part.start] if rows else {})
    return problems


def halves(part: Part) -> list[Part]:
    """Divide a range whose worker died, down to the sample that kills it."""
    middle = (part.start + part.stop) // 2
    if part.stop - part.start < 2:
        return []
    return [dataclasses.replace(part, stop=middle), dataclasses.replace(part, start=middle)]


def _images(parts: list[Part], workers: int, engine: str) -> Iterator[Problem]:
    ranges = (
        dataclasses.replace(p, start=start, stop=min(start + CHUNK, p.entry.used)) for p in parts for start in range(0, p.entry.used, CHUNK)
    )
    found: list[Problem] = []
    with Progress("decoded", sum(p.entry.used for p in parts)) as progress:
        for outcome in map_unordered(check_images, ranges, workers=workers, engine=engine, split=halves, timeout=600):
            if isinstance(outcome, Lost):
                where = f"{outcome.spec.entry.path}, sample {outcome.spec.start} of those in use"
                found.append(Problem(where, outcome.reason, "an image that decodes", "shards remove, or build again"))
            else:
                found += outcome.result
            progress.add(outcome.spec.stop - outcome.spec.start)
    yield from sorted(found, key=lambda p: p.where)


def _repeated(parts: list[Part], reports: dict[str, FileReport]) -> Iterator[Problem]:
    """Keys that come in more than one place of the set. Eight bytes of memory per sample, keys looked up at the end."""
    import numpy as np

    hashes = np.frombuffer(b"".join(reports[_id(p.entry)].keys for p in parts), dtype="<u8")
    unique, counts = np.unique(hashes, return_counts=True)
    suspects = set(unique[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, str] = {}
    for part in parts:
        path = part.manifest.path_of(part.entry)
        with fs.open_read(path) as file:
            groups = list(tar.samples(tar.walk(file, path)))
        for key in (group[0].key for start, stop in part.entry.ranges for group in groups[start:stop]):
            if int.from_bytes(_hash(key), "little") in suspects:
                if key in seen and seen[key] != path:
                    yield Problem(f"{path}: {key}", f"stands in {seen[key]} too", "each key once in the set")
                seen.setdefault(key, path)


def _alone(manifest: Manifest, entry: ShardEntry) -> Manifest:
    """Return a manifest of one shard: small enough to be a task's spec."""
    return dataclasses.replace(manifest, shards=(entry,), sources={}, parents=(), licences={}, classes=(), notes={})


def _id(entry: ShardEntry) -> str:
    return f"{entry.path}{entry.use}"


def _rows(manifest: Manifest, entry: ShardEntry) -> object:
    """Return the whole sidecar's keys, or None where the set has none."""
    import pyarrow.parquet as pq

    path = manifest.path_of(entry, ".parquet")
    if not entry.sidecar_sha256 or not fs.exists(path):
        return None
    with fs.open_read(path) as file:
        return pq.read_table(file, columns=["key"])


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
