"""`shards index`: give any WebDataset folder a manifest and DALI indices, so that our reader and loader take it as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from shards import tar
from shards.core import fs
from shards.core.config import MOST_WORKERS, option
from shards.core.console import Progress, counted, emit, inflected, warn
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import ProvenderError, RunError, TornFileError, UsageError
from shards.manifest import NAME, Manifest, ShardEntry
from shards.sample import IMAGE_EXTENSIONS, KEY_RULE, has_hard_ending
from shards.tally import REPEATED_KEYS, Tally

BUILDER = "shards index"
_WORDED = "[sample|samples] without an image that training reads: KEY.WORD.jpg is none, KEY.jpg is"
# As `shards verify` has it, where they are problems.
_HARD_KEY = "[sample has a key|samples have keys] that some readers cannot take (letters, digits, '_' and '-' are safe, at most 90)"
_HARD_ENDING = "[sample has|samples have] an ending that some readers cannot take (lower case is safe, 99 bytes in all)"
_SORT = "pack the tar again with `tar --sort=name -cf`"
_MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # first bytes
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lz4")


@dataclass(frozen=True)
class IndexConfig:
    """Flags of `shards index`."""

    folder: str = option(help="a folder of uncompressed tars, searched through", positional=True)
    bad_files: Literal["stop", "skip"] = option("stop", "what a torn tar does: stop, or give its whole samples, named in the manifest")
    overwrite: bool = option(False, "replace a manifest that is there")
    strict: bool = option(False, "exit 1 where anything was left out or passed over, or keys repeat")
    workers: int | None = option(None, "worker processes; default: one per core", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Indexed:
    """One tar's entry and members, or why there is none. A torn tar may have an entry of its whole samples, and be bad.

    Attributes:
        members: the extensions of its samples, each set of them once.
        bad: why the tar cannot be indexed, or not to its end; `advice` what to do about it; empty where it can.
        spaced: names hold spaces, which DALI's index cannot.
        tally: what was passed over, and samples that look wrong.
        keys: 8 bytes of hash of each sample's key.
    """

    entry: ShardEntry | None
    members: tuple[tuple[str, ...], ...] = ()
    bad: str = ""
    advice: str = ""
    spaced: bool = False
    tally: Tally = field(default_factory=Tally)
    keys: bytes = b""


def run(config: IndexConfig) -> int:
    """Index a folder and say what it holds; return 1 where `strict` asks for it and something was told."""
    workers = config.workers or default_workers()
    manifest = index(config.folder, bad_files=config.bad_files, overwrite=config.overwrite, workers=workers, engine=config.engine)
    has_notes = bool(manifest.notes)
    if config.json:
        facts = {"manifest": manifest.digest, "samples": manifest.samples, "shards": len(manifest.shards)}
        emit(facts | {"members": list(manifest.members), "notes": manifest.notes})
    else:
        members = " ".join(f".{m}" for m in manifest.members) or "none in every sample"
        emit(f"{config.folder}: {counted(manifest.samples, 'sample')} in {counted(len(manifest.shards), 'tar')}; members: {members}")
    return 1 if config.strict and has_notes else 0


def index(folder: str, *, bad_files: str = "stop", overwrite: bool = False, workers: int = 1, engine: str = "local") -> Manifest:
    """Write a `.idx` beside each tar, then manifest.json and sizes.json; the tars stay as they are.

    Raises:
        UsageError: no tar, a compressed one, or a manifest that is there already.
        RunError: a torn tar, or one with a sample's members apart, unless `bad_files` is "skip".
    """
    if fs.exists(fs.join(folder, NAME)) and not overwrite:
        raise UsageError(f"{folder!r} has a {NAME} already", advice="--overwrite loses what it says about sources and seed")
    manifest = survey(folder, bad_files=bad_files, write=True, workers=workers, engine=engine)
    manifest.save(folder)
    return manifest


def survey(folder: str, *, bad_files: str = "stop", write: bool = False, workers: int = 1, engine: str = "local") -> Manifest:
    """Return what the manifest of a folder of tars would be. With `write` a `.idx` is written beside each tar, else nothing.

    With `write` what is odd is said, too. The notes hold `bad_files`, tars that were left out or cut short and why, and `notices`, what
    was passed over or looks wrong, by kind.

    Raises:
        UsageError: no tar, or a compressed one.
        RunError: a torn tar, or one with a sample's members apart, unless `bad_files` is "skip".
    """
    names, tally = _tars(folder)
    skip = bad_files == "skip"
    results: dict[str, Indexed] = {}
    with Progress("indexed", len(names), "tars") as progress:
        for outcome in map_unordered(index_tar, [(folder, n, write, skip) for n in names], workers=workers, engine=engine):
            lost = isinstance(outcome, Lost)
            results[outcome.spec[1]] = Indexed(None, bad=outcome.reason) if isinstance(outcome, Lost) else outcome.result
            progress.add(not lost)
    bad = {n: results[n].bad for n in names if results[n].bad}
    if bad and bad_files == "stop":
        name = next(iter(bad))
        way_on = f"--bad-files skip goes on without {len(bad)} of {len(names)} tars, or with what is whole in them"
        raise RunError(fs.printable(f"{name}: {bad[name]}"), "whole tars", "; or ".join(filter(None, [results[name].advice, way_on])))
    shards = tuple(e for n in names if (e := results[n].entry) is not None)
    _tell(tally, folder, names, results)
    if write:
        _warn(results, bad, tally)
    if not shards:
        raise UsageError(f"no sample in the tars of {folder!r}", "members named KEY.EXTENSION", "; ".join(tally.lines()))
    members = _common([m for n in names for m in results[n].members])
    counts = {inflected(2, kind): count for kind, count in tally.counts.items()}
    return Manifest(
        samples=sum(e.samples for e in shards),
        bytes=sum(e.bytes for e in shards),
        shards=shards,
        builder=BUILDER,
        members=members,
        notes=({"bad_files": bad} if bad else {}) | ({"notices": counts} if tally else {}),
        folder=folder,
    )


def index_tar(spec: tuple[str, str, bool, bool]) -> Indexed:
    """Walk one tar (folder, name) and write its `.idx` if it should be written; runs in a worker.

    The last part of the spec says whether the whole samples of a torn tar are indexed.
    """
    folder, name, write, skip = spec
    path = fs.join(folder, name)
    tally = Tally()
    try:
        groups, torn = tar.read_whole_samples(path, tally)
    except (TornFileError, UsageError) as error:
        return Indexed(None, bad=_reason(error, path), advice=error.advice)
    bad = _reason(torn, path) if torn else ""
    if bad and not (skip and groups):
        if tool := _packed_by(path):
            advice = f"unpack it first: {tool} -d < {name} > NEW.tar"
            return Indexed(None, bad=f"packed by {tool}: it cannot be read by position", advice=advice)
        return Indexed(None, bad=bad, advice=torn.advice if torn else "")
    if not groups:
        return Indexed(None, tally=tally)
    if apart := tar.scattered(groups):
        problem = f"members of {len(apart):,} samples stand apart, such as those of {fs.printable(apart[0])!r}"
        return Indexed(None, bad=f"{problem}: every reader would take them for several samples", advice=_SORT)
    _count_odd(groups, tally)
    spaced = any(c.isspace() for g in groups for m in g for c in m.name)
    digest = _write_index(path, groups, spaced) if write else ""
    entry = ShardEntry(path=name, samples=len(groups), bytes=fs.size(path), sha256=fs.sha256(path), index_sha256=digest)
    kinds = dict.fromkeys(tuple(m.ext for m in g) for g in groups)
    keys = b"".join(_hash(group[0].key) for group in groups)
    return Indexed(entry, tuple(kinds), bad=bad, spaced=spaced, tally=tally, keys=keys)


def _reason(error: ProvenderError, path: str) -> str:
    """Return what was found, in one line, without the tar's path, which stands before it already."""
    return error.found.removeprefix(f"{path}: ").replace("\n", " ")


def _packed_by(path: str) -> str:
    """Return what a file is packed by, by its first bytes; empty where by nothing that is known here."""
    with tar.opened(path) as file:
        head = file.read(6)
    return next((tool for mark, tool in _MARKS.items() if head.startswith(mark)), "")


def _write_index(path: str, groups: list[list[tar.Member]], spaced: bool) -> str:
    """Write the `.idx` of a tar and return its sha256; where DALI's format cannot hold the names, none."""
    stem = path.removesuffix(".tar")
    if spaced:
        fs.remove(stem + ".idx")  # a wrong one would be believed
        return ""
    text = tar.format_index(groups).encode("utf-8", "surrogateescape")
    fs.write_bytes(stem + ".idx", text)
    return hashlib.sha256(text).hexdigest()


def _count_odd(groups: list[list[tar.Member]], tally: Tally) -> None:
    """Count samples that every reader takes for one, and that hardly are."""
    has_images = False
    without_image = []
    for group in groups:
        extensions = [member.ext.lower() for member in group]
        if any(ext in IMAGE_EXTENSIONS for ext in extensions):
            has_images = True
        elif worded := next((m.name for m in group if m.ext.lower().rpartition(".")[2] in IMAGE_EXTENSIONS), ""):
            tally.add(_WORDED, worded)
        else:
            without_image.append(group[0].name)
        if not KEY_RULE.fullmatch(group[0].key):
            tally.add(_HARD_KEY, group[0].key)
        if hard := next((m.name for m in group if has_hard_ending(m.name, m.ext)), ""):
            tally.add(_HARD_ENDING, hard)
        if len(set(extensions)) < len(extensions):
            tally.add("[sample|samples] with one extension twice", group[0].key)
    if has_images and without_image:  # a tar of texts or sounds alone is none of our business
        tally.add("[sample|samples] without an image", without_image[0], len(without_image))


def _tell(tally: Tally, folder: str, names: Sequence[str], results: dict[str, Indexed]) -> None:
    """Count what all tars have to tell, and how many keys repeat."""
    for name in names:
        result = results[name]
        tally.merge(result.tally, name)
        if result.entry is None and not result.bad:
            tally.add(tar.NO_SAMPLE, name)
    repeated, first = _repeated(results, names)
    if repeated:
        groups, _ = tar.read_whole_samples(fs.join(folder, first[0]))
        key = next(group[0].key for group in groups if _hash(group[0].key) == first[1])
        tally.add(REPEATED_KEYS, f"{first[0]}: {key}", repeated)


def _repeated(results: dict[str, Indexed], names: Sequence[str]) -> tuple[int, tuple[str, bytes]]:
    """Return how many keys repeat over the tars or in one, and for the first of them a tar and the key's hash."""
    import numpy as np

    hashes = np.frombuffer(b"".join(results[n].keys for n in names), dtype="<u8")
    unique, counts = np.unique(hashes, return_counts=True)
    again = unique[counts > 1]
    for name in names:
        here = np.frombuffer(results[name].keys, dtype="<u8")
        hits = here[np.isin(here, again)] if len(again) else again
        if len(hits):
            return len(again), (name, hits[0].tobytes())
    return 0, ("", b"")


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _tars(folder: str) -> tuple[list[str], Tally]:
    """Return the tars under a folder, linked folders included, and what is named so and is no file."""
    if not fs.is_dir(folder):
        raise UsageError(f"no folder at {folder!r}")
    if fs.exists(fs.join(folder, "recipe.yaml")) and not fs.exists(fs.join(folder, NAME)):
        raise UsageError(f"{folder!r} is an unfinished build", advice="run its build-shards command again and it resumes")
    walked = fs.walk(folder)
    if compressed := [n for n in walked if n.lower().endswith(_COMPRESSED)]:
        advice = f"unpack them first, for example: gunzip {fs.join(folder, compressed[0])}"
        raise UsageError(
            f"{len(compressed)} compressed tars, such as {compressed[0]}: they cannot be read by position", "plain .tar", advice
        )
    tally = Tally()
    files = []
    for name in (n for n in walked if n.endswith(".tar")):
        if name.rpartition("/")[2].startswith("."):  # such as macOS's `._0.tar`
            tally.add(tar.HIDDEN, name)
        elif kind := tar.special(fs.join(folder, name)):  # a pipe would hang whoever opens it
            tally.add(tar.no_file(kind), name)
        else:
            files.append(name)
    if not files:
        raise UsageError(f"no .tar under {folder!r}", "a folder of WebDataset tars", "; ".join(tally.lines()))
    return files, tally


def _common(kinds: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the members that every sample has, in the first one's order."""
    return tuple(m for m in dict.fromkeys(kinds[0]) if all(m in kind for kind in kinds)) if kinds else ()


def _warn(results: dict[str, Indexed], bad: dict[str, str], tally: Tally) -> None:
    for name, why in bad.items():
        entry = results[name].entry
        warn(fs.printable(f"left out: {name}: {why}" if entry is None else f"{name}: {entry.samples:,} whole samples are used: {why}"))
    for name, result in results.items():
        if result.spaced:
            warn(f"{fs.printable(name)}: member names hold spaces, which DALI's index cannot: no .idx; our own reader walks the tar")
    if len({kind for r in results.values() for kind in map(frozenset, r.members)}) > 1:
        warn("members differ from sample to sample: Hugging Face's reader refuses that, DALI's needs care")
    for line in tally.lines():
        warn(line)
