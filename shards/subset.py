"""`shards subset`: a prefix or window of a set, as a manifest over the same tars.

Ranks are random, so any window is a random subset: prefixes nest, disjoint windows are independent draws.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards import tar
from shards.core import fs
from shards.core.config import option
from shards.core.console import emit, say
from shards.core.errors import UsageError
from shards.manifest import NAME, Manifest, ShardEntry, entries, read_manifest
from shards.reader import Shard
from shards.writer import write_shard

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SubsetConfig:
    """Flags of `shards subset`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    output: str = option(help="folder of the subset")
    samples: int | None = option(None, "take the first N samples")
    window: str = option("", "take samples A up to, not including, B", metavar="A:B")
    materialize: bool = option(False, "write the cut first and last shard as tars of their own, for readers that know no manifest")
    overwrite: bool = option(False, "replace a subset that is there")
    json: bool = option(False, "print JSON")


def run(config: SubsetConfig) -> None:
    """Write a subset and say what it holds."""
    parent = read_manifest(config.folder)
    start, stop = _window(config, parent)
    if fs.exists(fs.join(config.output, NAME)):
        if not config.overwrite:
            raise UsageError(f"{config.output!r} holds a set already", advice="--overwrite, or another --output")
        if read_manifest(config.output).digest == parent.digest:
            raise UsageError(f"{config.output!r} is the set itself", "another folder")
    manifest = subset(parent, start, stop, config.output, materialize=config.materialize)
    cut = [e for e in manifest.shards if e.use]
    if config.json:
        emit({"manifest": manifest.digest, "samples": manifest.samples, "shards": len(manifest.shards), "cut": [e.path for e in cut]})
        return
    emit(f"{config.output}: {manifest.samples:,} samples [{start}, {stop}) of {parent.samples:,} in {len(manifest.shards):,} shards")
    if cut:
        say(f"{len(cut)} of them cut: our readers and DALI (with the .idx here) honour that; other readers need --materialize")


def subset(parent: Manifest, start: int, stop: int, folder: str, *, materialize: bool = False) -> Manifest:
    """Write samples [start, stop) of a set as a manifest in `folder`, and return it.

    Args:
        materialize: write the shards that are cut as tars in `folder`; whole shards are never copied.
    """
    fs.make_dirs(folder)
    shards: list[ShardEntry] = []
    counts = Counter[str]()
    for entry, first, last in _overlaps(parent, start, stop):
        if (first, last) == (0, entry.samples):
            shards.append(_moved(parent, entry, folder))
        else:
            name = _free_name(entry, shards)
            cut = dataclasses.replace(entry, use=(first, last), index=None)
            shards.append(_copied(parent, cut, folder, name) if materialize else _windowed(parent, cut, folder, name))
        counts += _sources(parent, entry, first, last)
    sources = {n: {k: v for k, v in s.items() if k in ("reader", "unit")} | {"kept": counts[n]} for n, s in parent.sources.items()}
    manifest = dataclasses.replace(
        parent,
        samples=stop - start,
        bytes=sum(e.bytes for e in shards),
        shards=tuple(shards),
        sources={name: source for name, source in sources.items() if source["kept"]},
        parents=({"manifest": parent.digest, "samples": parent.samples, "window": [start, stop]},),
        folder=folder,
    )
    manifest.save(folder)
    return manifest


def _window(config: SubsetConfig, parent: Manifest) -> tuple[int, int]:
    if (config.samples is None) == (not config.window):
        raise UsageError("a subset needs a size or a window", "one of --samples N and --window A:B")
    try:
        start, stop = (0, config.samples) if config.samples is not None else [int(x) for x in config.window.split(":")]
    except ValueError:
        raise UsageError(f"--window {config.window}", "A:B, two whole numbers") from None
    if not 0 <= start < stop:
        raise UsageError(f"[{start}, {stop}) holds no sample", "0 ≤ A < B")
    if stop > parent.samples:
        raise UsageError(f"asked for samples up to {stop:,}", f"at most {parent.samples:,}, all there are")
    return start, stop


def _overlaps(parent: Manifest, start: int, stop: int) -> Iterator[tuple[ShardEntry, int, int]]:
    """Yield each shard that the window touches, with the range in the shard's own count."""
    for entry, position in entries(parent):
        first, last = max(start, position) - position, min(stop, position + entry.used) - position
        if first < last:
            yield entry, entry.window[0] + first, entry.window[0] + last


def _moved(parent: Manifest, entry: ShardEntry, folder: str) -> ShardEntry:
    """Return the entry of a whole shard as seen from another folder."""
    return dataclasses.replace(entry, path=_relative(parent.path_of(entry), folder), use=None, index=None)


def _windowed(parent: Manifest, cut: ShardEntry, folder: str, name: str) -> ShardEntry:
    """Write an index of the samples in use, which DALI honours, and return the entry that refers to it."""
    first, last = cut.window
    text = tar.format_index(tar.read_index(parent.path_of(cut))[first:last])
    fs.write_text(fs.join(folder, f"{name}.idx"), text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return dataclasses.replace(cut, path=_relative(parent.path_of(cut), folder), index=f"{name}.idx", index_sha256=digest)


def _copied(parent: Manifest, cut: ShardEntry, folder: str, name: str) -> ShardEntry:
    """Write the samples in use as a shard of their own."""
    with Shard(parent, cut) as shard:
        samples = ((shard.key(i), {m.ext: shard.read_range(m.offset, m.size) for m in g}) for i, g in enumerate(shard.groups))
        return write_shard(folder, name, samples, _rows(shard))


def _free_name(entry: ShardEntry, made: list[ShardEntry]) -> str:
    """Return a cut shard's name: the tar's own, with a number where two folders have the same."""
    name = entry.path.rpartition("/")[2].removesuffix(".tar")
    taken = {(e.index or e.path).rpartition("/")[2].partition(".")[0] for e in made}
    return f"{name}-{len(made)}" if name in taken else name


def _rows(shard: Shard) -> pa.Table:
    """Return the sidecar of a window; a foreign shard gets one of its keys."""
    import pyarrow as pa

    table = shard.sidecar()
    return table if table.num_columns else pa.table({"key": [shard.key(i) for i in range(len(shard))]})


def _sources(parent: Manifest, entry: ShardEntry, first: int, last: int) -> Counter[str]:
    """Count the samples of each source in a range."""
    if len(parent.sources) < 2:
        return Counter(dict.fromkeys(parent.sources, last - first))
    with Shard(parent, dataclasses.replace(entry, use=(first, last))) as shard:
        table = shard.sidecar(["source"])
        return Counter(table["source"].to_pylist() if table.num_columns else ())


def _relative(path: str, folder: str) -> str:
    if _protocol(path) != _protocol(folder):
        raise UsageError(f"the subset's folder {folder!r} and the set {path!r} lie in different places", "one file system")
    return fs.relative(path, folder)


def _protocol(path: str) -> str:
    return path.partition("://")[0] if fs.is_remote(path) else ""
