"""`manifest.json`: what a build is. Written last, it is the commit; without it a folder is unfinished.

It never holds an absolute path or a date, so two equal builds have equal manifests.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards import tombstones
from shards.core import fs
from shards.core.config import digest, dump, load, option
from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "manifest.json"
STATISTICS = "stats"  # folder beside the shards: what curate has counted of each; who changes a shard removes its file
ASIDE = "compact"  # folder in a build where rewritten shards wait for their manifest
FORMAT, FORMAT_VERSION = "provender-shards", 1


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a build. `use` says which of its samples belong to the set, as half-open ranges one after the other
    (`[3, 8]` is 3 … 7, `[3, 8, 9, 10]` is those and 9); null means all. `index` is the `.idx` of these alone."""

    path: str = option()
    samples: int = option()
    bytes: int = option()
    sha256: str = option("")
    index_sha256: str = option("")
    sidecar_sha256: str = option("")
    use: tuple[int, ...] | None = option(None)
    index: str | None = option(None)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The half-open ranges of samples in use."""
        use = (0, self.samples) if self.use is None else self.use
        return list(zip(use[::2], use[1::2], strict=True))

    @property
    def used(self) -> int:
        """How many samples are in use."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def own(self) -> bool:
        """Whether the tar lies in the manifest's folder itself, and not in another set's."""
        return "/" not in self.path

    @property
    def name(self) -> str:
        """The tar's name without its folder."""
        return self.path.rpartition("/")[2]

    def positions(self) -> NDArray[np.int64]:
        """Return the positions in the tar of the samples in use, rising."""
        import numpy as np

        return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in self.ranges] or [np.zeros(0, np.int64)])

    def cut(self, positions: NDArray[np.int64]) -> ShardEntry:
        """Return the entry that uses the samples at these rising positions alone; it has no index of its own yet."""
        import numpy as np

        if len(positions) == self.samples:
            return dataclasses.replace(self, use=None, index=None)
        ends = np.flatnonzero(np.diff(positions) != 1)
        starts = positions[np.concatenate([[0], ends + 1])] if len(positions) else positions
        stops = positions[np.concatenate([ends, [len(positions) - 1]])] + 1 if len(positions) else positions
        use = np.stack([starts, stops], axis=1).reshape(-1)
        return dataclasses.replace(self, use=tuple(use.tolist()), index=None)


@dataclass(frozen=True)
class Manifest:
    """A set of shards, with the counts that prove it. `folder` is where it was read from; it is not saved."""

    samples: int = option()
    bytes: int = option()
    shards: tuple[ShardEntry, ...] = option()
    format: str = option(FORMAT)
    format_version: int = option(FORMAT_VERSION)
    builder: str = option("")
    recipe: str = option("")
    table: str = option("")
    seed: int | None = option(None)
    members: tuple[str, ...] = option(())
    sources: dict[str, Any] = option({})
    parents: tuple[dict[str, Any], ...] = option(())
    licences: dict[str, Any] = option({})
    classes: tuple[str, ...] = option(())
    notes: dict[str, Any] = option({})
    folder: str = field(default="", compare=False)

    def to_json(self) -> str:
        """Return the manifest's text, a line for each shard; equal manifests give equal text."""
        front = {"format": self.format, "format_version": self.format_version}
        values = front | {k: v for k, v in dump(dataclasses.replace(self, shards=())).items() if k not in ("folder", "shards")}
        shards = [{k: v for k, v in dump(s).items() if v not in (None, "")} for s in self.shards]
        lines = ",\n".join("  " + json.dumps(s, ensure_ascii=False) for s in shards)
        return json.dumps(values, ensure_ascii=False, indent=1)[:-2] + f',\n "shards": [\n{lines}\n ]\n}}\n'

    @property
    def digest(self) -> str:
        """sha256 of the manifest's content: what a checkpoint or a result refers to."""
        return digest({k: v for k, v in dump(self).items() if k != "folder"})

    def path_of(self, entry: ShardEntry, suffix: str = ".tar") -> str:
        """Return the path of a shard's tar, `.idx` or `.parquet`."""
        if suffix == ".idx" and entry.index:
            return fs.join(self.folder, entry.index)
        return fs.join(self.folder, entry.path).removesuffix(".tar") + suffix

    def folder_of(self, entry: ShardEntry) -> str:
        """Return the folder that a shard's tar lies in."""
        return self.path_of(entry).rpartition("/")[0]

    def sizes(self) -> dict[str, int]:
        """Return open_clip's sizes.json: samples by name of the tar, or by its path where two folders have that name."""
        folders: dict[str, set[str]] = {}
        for entry in self.shards:
            folders.setdefault(entry.name, set()).add(entry.path)
        sizes = Counter[str]()
        for entry in self.shards:
            sizes[entry.name if len(folders[entry.name]) == 1 else entry.path] += entry.used
        return dict(sizes)

    def save(self, folder: str) -> None:
        """Write manifest.json, and sizes.json for open_clip, into a folder; the manifest goes last."""
        fs.write_text(fs.join(folder, "sizes.json"), json.dumps(self.sizes(), indent=1) + "\n")
        fs.write_text(fs.join(folder, NAME), self.to_json())


def read_manifest(path: str, *, removed: bool = False) -> Manifest:
    """Read a manifest from a build's folder or from the file itself. Samples that were taken down are no part of it.

    Args:
        removed: leave samples with a tombstone in, as the file has them: for those who prove the files.

    Raises:
        UsageError: there is none, or it is of another format.
    """
    file = path if path.endswith(".json") else fs.join(path, NAME)
    if not fs.exists(file):
        raise UsageError(f"no manifest at {file!r}", "a finished build's folder or its manifest.json", _advice(path))
    try:
        values = json.loads(fs.read_text(file))
    except ValueError as error:
        raise RunError(f"{file}: not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{file}: not a manifest of ours", f'"format": "{FORMAT}"', "shards index DIR makes one")
    if values.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{file}: format version {values.get('format_version')}", str(FORMAT_VERSION))
    folder = file.rpartition("/")[0] or "."
    manifest = _followed(load(Manifest, {**values, "folder": folder}, ""))
    return manifest if removed else without_removed(manifest)


def without_removed(manifest: Manifest) -> Manifest:
    """Return the manifest without the samples that have a tombstone; its counts follow."""
    stones = {f: found for f in {manifest.folder_of(e) for e in manifest.shards} if (found := tombstones.read(f))}
    if not stones:
        return manifest
    import numpy as np

    shards, lost = [], Counter[str]()
    for entry in manifest.shards:
        source_at = {at: source for at, _, source in stones.get(manifest.folder_of(entry), {}).get(entry.name, ())}
        positions = entry.positions() if source_at else np.zeros(0, np.int64)
        gone = np.isin(positions, list(source_at)) if source_at else positions
        if gone.any():
            lost += Counter(source_at[at] for at in positions[gone].tolist())
            entry = dataclasses.replace(entry.cut(positions[~gone]), index=entry.index)
        shards.append(entry)
    return without(dataclasses.replace(manifest, shards=tuple(shards)), lost, "removed")


def _followed(manifest: Manifest) -> Manifest:
    """Return the manifest over tars as they are now, where some were rewritten after it was made."""
    rewritten = {f: found for f in {manifest.folder_of(e) for e in manifest.shards} if (found := tombstones.read_rewritten(f))}
    if not rewritten:
        return manifest
    shards, lost = [], Counter[str]()
    for entry in manifest.shards:
        for step in rewritten.get(manifest.folder_of(entry), ()):
            if (step.tar, step.was) == (entry.name, entry.sha256):
                entry, sources = _after(entry, step)
                lost += sources
        if entry.samples:
            shards.append(entry)
    if shards == list(manifest.shards):
        return manifest
    changed = dataclasses.replace(manifest, shards=tuple(shards), bytes=sum(e.bytes for e in shards))
    return without(changed, lost, "removed")


def _after(entry: ShardEntry, step: tombstones.Rewritten) -> tuple[ShardEntry, Counter[str]]:
    """Return an entry over a tar that was rewritten, and the sources of the samples that went from it."""
    import numpy as np

    positions, gone = entry.positions(), np.array(step.gone, np.int64)
    lost = np.isin(gone, positions)
    left = positions[~np.isin(positions, gone)]
    names = ("samples", "bytes", "sha256", "index_sha256", "sidecar_sha256")
    now = dataclasses.replace(entry, use=None, index=None, **{name: getattr(step, name) for name in names})
    return now.cut(left - np.searchsorted(gone, left)), Counter(step.sources[i] for i in np.flatnonzero(lost).tolist())


def without(manifest: Manifest, lost: Counter[str], reason: str) -> Manifest:
    """Return the manifest with its counts made right after `lost` samples of each source went, for a reason."""
    sources = {}
    for name, source in manifest.sources.items():
        n = lost[name]
        counts = source | {"kept": source.get("kept", 0) - n} if n else source
        if n and "inputs" in source:
            dropped = source.get("dropped", {})
            counts |= {"dropped": dropped | {reason: dropped.get(reason, 0) + n}}
        sources[name] = counts
    return dataclasses.replace(manifest, samples=sum(e.used for e in manifest.shards), sources=sources)


def _advice(path: str) -> str:
    if fs.exists(fs.join(path, "recipe.yaml")):
        return "this build is unfinished: run the same build-shards command again and it resumes"
    return "shards index DIR gives a foreign WebDataset folder a manifest" if fs.is_dir(path) else ""


def statistics_of(folder: str, tar: str) -> str:
    """Return where the statistics of a tar in a folder lie."""
    return fs.join(folder, STATISTICS, tar.removesuffix(".tar") + ".parquet")


def entries(manifest: Manifest) -> Iterator[tuple[ShardEntry, int]]:
    """Yield each shard with the position of its first used sample in the set."""
    position = 0
    for entry in manifest.shards:
        yield entry, position
        position += entry.used
