"""`shards verify`: prove that a shard set is whole, by reading all of it in worker processes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from shards import checks, tar, tombstones
from shards.checks import Problem
from shards.core import fs, notices
from shards.core.config import MOST_WORKERS, option
from shards.core.console import Progress, counted, emit, inflected, say, visible
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import ProvenderError
from shards.manifest import Manifest, ShardEntry, read_manifest, without_removed
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS, UID_RULE
from shards.shared import duplicates_between
from shards.tally import REPEATED_KEYS, Tally

CHUNK = 256
SHOWN = 50


@dataclass(frozen=True)
class VerifyConfig:
    """Flags of `shards verify`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    decode: bool = option(True, "decode every image")
    strict: bool = option(False, "exit 1 where anything was passed over or looks odd, too")
    workers: int | None = option(None, "worker processes; default: one per core", least=0, most=MOST_WORKERS)
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
    """What reading a shard's files gave.

    Attributes:
        keys: 8 bytes of hash per used sample.
        sound: whether images can be read.
        pictures: how many samples in use have an image.
        members: the extensions of all samples.
        tally: what was passed over.
    """

    problems: list[Problem]
    keys: bytes = b""
    sound: bool = False
    pictures: int = 0
    members: tuple[str, ...] = ()
    tally: Tally = field(default_factory=Tally)


def run(config: VerifyConfig) -> int:
    """Verify a set and print what is wrong; return 1 where anything is."""
    manifest = read_manifest(config.folder, removed=True)
    workers = config.workers or default_workers()
    problems = list(verify(manifest, decode=config.decode, workers=workers, engine=config.engine))
    there = without_removed(manifest)
    removed = _still_there(manifest)
    if config.json:
        listed = [dataclasses.asdict(p) for p in problems]
        counts = {"manifest": manifest.digest, "samples": there.samples, "removed": removed, "shards": len(manifest.shards)}
        emit(counts | {"problems": listed, "notices": notices.lines()})
        return 1 if problems else 0
    for line in duplicates_between(manifest):
        say(visible(line))
    for problem in problems[:SHOWN]:
        emit(visible(str(problem)))
    if len(problems) > SHOWN:
        say(f"… and {len(problems) - SHOWN} more; --json lists all")
    what = f"{counted(there.samples, 'sample')} in {counted(len(manifest.shards), 'shard')}, {counted(manifest.bytes, 'byte')}"
    if removed:
        gone = inflected(removed, f"{removed:,} more [sample|samples] of these tars [was|were] taken down")
        what += f"; {gone}, and the bytes are there until `shards compact {' '.join(_homes_of_removed(manifest))}`"
    emit(f"{counted(len(problems), 'problem')}: {what}" if problems else f"fine: {what}")
    return 1 if problems else 0


def _still_there(manifest: Manifest) -> int:
    """Return how many samples of a set's tars were taken down and have their bytes there still."""
    tars = {(manifest.folder_of(entry), entry.name) for entry in manifest.shards}
    stones = {folder: tombstones.read(folder) for folder, _ in tars}
    return sum(len(stones[folder].get(name, ())) for folder, name in tars)


def _homes_of_removed(manifest: Manifest) -> list[str]:
    """Return the folders of a set's tars in which a take-down waits for compacting."""
    folders = dict.fromkeys(manifest.folder_of(entry) for entry in manifest.shards)
    waiting = [folder for folder in folders if tombstones.read(folder)]
    return [folder if fs.is_remote(folder) else os.path.normpath(folder) for folder in waiting]


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
            lost = FileReport([Problem(entry.path, outcome.reason, "a readable shard")]) if isinstance(outcome, Lost) else None
            reports[_id(entry)] = lost or outcome.result  # type: ignore[union-attr]
            progress.add()
    passed_over = Tally()
    for part in parts:
        yield from reports[_id(part.entry)].problems
        passed_over.merge(reports[_id(part.entry)].tally, part.entry.path)
    passed_over.note()
    if all(reports[_id(p.entry)].sound for p in parts):
        members = dict.fromkeys(m for p in parts for m in reports[_id(p.entry)].members)
        yield from checks.check_pictures(manifest, sum(reports[_id(p.entry)].pictures for p in parts), tuple(members))
    yield from _repeated(parts, reports)
    if decode:
        there = [p for p in parts if reports[_id(p.entry)].sound]
        yield from _images([Part(without_removed(p.manifest)) for p in there], workers, engine)


def check_files(part: Part) -> FileReport:
    """Check all of one shard but its images; runs in a worker."""
    manifest, entry = part.manifest, part.entry
    path = manifest.path_of(entry)
    problems = list(checks.check_checksums(manifest, entry))
    kind = tar.special(path) if fs.exists(path) else "absent"
    if kind:
        return FileReport(problems or [Problem(path, kind, "a tar")])
    tally = Tally()
    try:
        groups, torn = tar.read_whole_samples(path, tally)
        rows = _rows(manifest, entry)
    except (ProvenderError, OSError, ValueError) as error:
        return FileReport([*problems, Problem(path, _line(error), "a whole tar and sidecar")])
    if torn is not None and manifest.bad_files:
        tally.add("torn [tar|tars], of which the whole samples are used (the manifest names [it|them])", _line(torn))
    elif torn is not None:
        return FileReport([*problems, Problem(path, _line(torn), "a whole tar and sidecar")])
    structure = [*checks.check_count(path, entry, groups), *checks.check_index(manifest, entry, groups)]
    problems += structure
    problems += checks.check_members(path, manifest.members, groups)
    problems += checks.check_adjacent(path, groups, own=bool(entry.sidecar_sha256))
    problems += checks.check_keys(path, groups)
    sidecar = list(checks.check_sidecar(manifest.path_of(entry, ".parquet"), groups, rows))
    used = [group for start, stop in entry.ranges for group in groups[start:stop]]
    keys = b"".join(_hash(group[0].key) for group in used)
    pictures = [any(m.ext.lower() in IMAGE_EXTENSIONS for m in group) for group in used]
    if any(pictures) and not all(pictures):
        tally.add("[sample|samples] without a picture", used[pictures.index(False)][0].name, pictures.count(False))
    members = tuple(dict.fromkeys(m.ext for group in used for m in group))
    return FileReport(problems + sidecar, keys, not structure and not sidecar, sum(pictures), members, tally)


def _line(error: Exception) -> str:
    return str(error).replace("\n", " ")


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
    problems: list[Problem] = []
    with Progress("decoded", sum(p.entry.used for p in parts)) as progress:
        for outcome in map_unordered(check_images, ranges, workers=workers, engine=engine, split=halves, timeout=600):
            if isinstance(outcome, Lost):
                where = f"{outcome.spec.entry.path}, sample {outcome.spec.start} of those in use"
                problems.append(Problem(where, outcome.reason, "an image that decodes", "shards remove, or build again"))
            else:
                problems += outcome.result
            progress.add(outcome.spec.stop - outcome.spec.start)
    yield from sorted(problems, key=lambda p: p.where)


def _repeated(parts: list[Part], reports: dict[str, FileReport]) -> Iterator[Problem]:
    """Keys that come in more than one place of the set. Eight bytes of memory per sample, keys looked up at the end."""
    import numpy as np

    hashes = np.frombuffer(b"".join(reports[_id(p.entry)].keys for p in parts), dtype="<u8")
    unique, counts = np.unique(hashes, return_counts=True)
    suspects = set(unique[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, str] = {}
    numbered: dict[str, str] = {}  # keys of foreign tars that are names alone, and where they came again
    for part in parts:
        path = part.manifest.path_of(part.entry)
        groups, _ = tar.read_whole_samples(path)
        for key in (group[0].key for start, stop in part.entry.ranges for group in groups[start:stop]):
            if int.from_bytes(_hash(key), "little") not in suspects:
                continue
            is_name = not part.entry.sidecar_sha256 and not UID_RULE.fullmatch(key.rpartition("/")[2])
            if key in seen and is_name:
                numbered.setdefault(key, path)
            elif key in seen and seen[key] != path:
                yield Problem(f"{path}: {key}", f"stands in {seen[key]} too", "each key once in the set")
            seen.setdefault(key, path)
    if numbered:
        key, path = next(iter(numbered.items()))
        notices.note(len(numbered), REPEATED_KEYS, f"such as {fs.printable(path)}: {fs.printable(key)}")


def _alone(manifest: Manifest, entry: ShardEntry) -> Manifest:
    """Return a manifest of one shard: small enough to be a task's spec."""
    torn = [name for name in manifest.bad_files if f"/{entry.path}".endswith(f"/{name}")]  # a subset's path leads there
    notes = {"bad_files": dict.fromkeys(torn, "")} if torn else {}
    return dataclasses.replace(manifest, shards=(entry,), sources={}, parents=(), licences={}, classes=(), notes=notes)


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
