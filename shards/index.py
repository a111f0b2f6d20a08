"""`shards index`: give any WebDataset folder a manifest and DALI indices, so that our reader and loader take it as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shards import tar
from shards.core import fs
from shards.core.config import option
from shards.core.console import Progress, emit, warn
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import RunError, TornFileError, UsageError
from shards.manifest import NAME, Manifest, ShardEntry

BUILDER = "shards index"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lz4")


@dataclass(frozen=True)
class IndexConfig:
    """Flags of `shards index`."""

    folder: str = option(help="a folder of uncompressed tars, searched through", positional=True)
    bad_files: Literal["stop", "skip"] = option("stop", "what a torn tar does: stop, or be left out and named in the manifest")
    overwrite: bool = option(False, "replace a manifest that is there")
    workers: int | None = option(None, "worker processes; default: one per core")
    engine: str = option("local", "local | inline (this process alone)")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Indexed:
    """One tar's entry and members, or why there is none. `spaced`: names that DALI's index cannot hold."""

    entry: ShardEntry | None
    members: tuple[tuple[str, ...], ...] = ()
    bad: str = ""
    spaced: bool = False


def run(config: IndexConfig) -> None:
    """Index a folder and say what it holds."""
    workers = config.workers or default_workers()
    manifest = index(config.folder, bad_files=config.bad_files, overwrite=config.overwrite, workers=workers, engine=config.engine)
    if config.json:
        emit({"manifest": manifest.digest, "samples": manifest.samples, "shards": len(manifest.shards), "members": list(manifest.members)})
        return
    members = " ".join(f".{m}" for m in manifest.members) or "none in every sample"
    emit(f"{config.folder}: {manifest.samples:,} samples in {len(manifest.shards):,} tars; members: {members}")


def index(folder: str, *, bad_files: str = "stop", overwrite: bool = False, workers: int = 1, engine: str = "local") -> Manifest:
    """Write a `.idx` beside each tar, then manifest.json and sizes.json; the tars stay as they are.

    Raises:
        UsageError: no tar, a compressed one, or a manifest that is there already.
        RunError: a torn tar, unless `bad_files` is "skip".
    """
    if fs.exists(fs.join(folder, NAME)) and not overwrite:
        raise UsageError(f"{folder!r} has a {NAME} already", advice="--overwrite loses what it says about sources and seed")
    manifest = survey(folder, bad_files=bad_files, write=True, workers=workers, engine=engine)
    manifest.save(folder)
    return manifest


def survey(folder: str, *, bad_files: str = "stop", write: bool = False, workers: int = 1, engine: str = "local") -> Manifest:
    """Return what the manifest of a folder of tars would be. With `write` a `.idx` is written beside each tar, else nothing.

    Raises:
        UsageError: no tar, or a compressed one.
        RunError: a torn tar, unless `bad_files` is "skip".
    """
    names = _tars(folder)
    results: dict[str, Indexed] = {}
    with Progress("indexed", len(names), "tars") as progress:
        for outcome in map_unordered(index_tar, [(folder, n, write) for n in names], workers=workers, engine=engine):
            lost = isinstance(outcome, Lost)
            results[outcome.spec[1]] = Indexed(None, bad=outcome.reason) if isinstance(outcome, Lost) else outcome.result
            progress.add(not lost)
    bad = {n: results[n].bad for n in names if results[n].bad}
    if bad and bad_files == "stop":
        name, why = next(iter(bad.items()))
        raise RunError(f"{name}: {why}", "whole tars", f"--bad-files skip leaves out {len(bad)} of {len(names)} tars")
    _warn(results, bad, write)
    shards = tuple(e for n in names if (e := results[n].entry) is not None)
    if not shards:
        raise UsageError(f"no sample in the tars of {folder!r}", "members named KEY.EXTENSION")
    members = _common([m for n in names for m in results[n].members])
    return Manifest(
        samples=sum(e.samples for e in shards),
        bytes=sum(e.bytes for e in shards),
        shards=shards,
        builder=BUILDER,
        members=members,
        notes={"bad_files": bad} if bad else {},
        folder=folder,
    )


def index_tar(spec: tuple[str, str, bool]) -> Indexed:
    """Walk one tar (folder, name) and write its `.idx` if it should be written; runs in a worker."""
    folder, name, write = spec
    path = fs.join(folder, name)
    try:
        with fs.open_read(path) as file:
            groups = list(tar.samples(tar.walk(file, path)))
    except (TornFileError, UsageError) as error:
        return Indexed(None, bad=str(error).replace("\n", " "))
    if not groups:
        return Indexed(None)
    spaced = any(c.isspace() for g in groups for m in g for c in m.name)
    digest, stem = "", path.removesuffix(".tar")
    if not write:
        pass
    elif spaced:
        fs.remove(stem + ".idx")  # a wrong one would be believed
    else:
        text = tar.format_index(groups).encode("utf-8", "surrogateescape")
        fs.write_bytes(stem + ".idx", text)
        digest = hashlib.sha256(text).hexdigest()
    entry = ShardEntry(path=name, samples=len(groups), bytes=fs.size(path), sha256=fs.sha256(path), index_sha256=digest)
    kinds = dict.fromkeys(tuple(m.ext for m in g) for g in groups)
    return Indexed(entry, tuple(kinds), spaced=spaced)


def _tars(folder: str) -> list[str]:
    if not fs.is_dir(folder):
        raise UsageError(f"no folder at {folder!r}")
    if fs.exists(fs.join(folder, "recipe.yaml")) and not fs.exists(fs.join(folder, NAME)):
        raise UsageError(f"{folder!r} is an unfinished build", advice="run its build-shards command again and it resumes")
    found = fs.walk(folder)
    if compressed := [n for n in found if n.lower().endswith(_COMPRESSED)]:
        advice = f"unpack them first, for example: gunzip {fs.join(folder, compressed[0])}"
        raise UsageError(
            f"{len(compressed)} compressed tars, such as {compressed[0]}: they cannot be read by position", "plain .tar", advice
        )
    names = [n for n in found if n.endswith(".tar") and not n.rpartition("/")[2].startswith(".")]
    if not names:
        raise UsageError(f"no .tar under {folder!r}", "a folder of WebDataset tars")
    return names


def _common(kinds: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the members that every sample has, in the first one's order."""
    return tuple(m for m in dict.fromkeys(kinds[0]) if all(m in kind for kind in kinds)) if kinds else ()


def _warn(results: dict[str, Indexed], bad: dict[str, str], write: bool) -> None:
    for name, why in bad.items():
        warn(f"left out: {name}: {why}")
    for name, result in results.items():
        if result.spaced and write:
            warn(f"{name}: member names hold spaces, which DALI's index cannot: no .idx; our own reader walks the tar")
        if result.entry is None and not result.bad:
            warn(f"left out: {name}: no sample in it")
    if write and len({kind for r in results.values() for kind in map(frozenset, r.members)}) > 1:
        warn("members differ from sample to sample: Hugging Face's reader refuses that, DALI's needs care")
