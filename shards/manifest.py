"""`manifest.json`: what a build is. Written last, it is the commit; without it a folder is unfinished.

It never holds an absolute path or a date, so two equal builds have equal manifests.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import re
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
HOLDOUT = "holdout"  # the folder of a build in which its held-out samples are a set of their own
STATISTICS = "stats"  # folder beside the shards: what curate has counted of each; who changes a shard removes its file
SIZES = "sizes.json"  # for open_clip: how many samples each tar has
ASIDE = "compact"  # folder in a build where rewritten shards wait for their manifest
FORMAT, FORMAT_VERSION = "provender-shards", 1
MOST_LEVELS = 32  # of what a manifest nests; ours have five
MOST = 2**40  # of any count: arrays of more than that have no place in a memory
_HALVES = re.compile("[\ud800-\udfff]")


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

    @property
    def bad_files(self) -> dict[str, str]:
        """The input files that were torn, by name, and why: a build notes their names alone."""
        noted = self.notes.get("bad_files", {})
        return dict(noted) if isinstance(noted, dict) else dict.fromkeys(map(str, noted), "")

    def to_json(self) -> str:
        """Return the manifest's text, a line for each shard; equal manifests give equal text."""
        front = {"format": self.format, "format_version": self.format_version}
        values = front | {k: v for k, v in dump(dataclasses.replace(self, shards=())).items() if k not in ("folder", "shards")}
        shards = [{k: v for k, v in dump(s).items() if v not in (None, "")} for s in self.shards]
        lines = ",\n".join("  " + json.dumps(s, ensure_ascii=False) for s in shards)
        text = json.dumps(values, ensure_ascii=False, indent=1)[:-2] + f',\n "shards": [\n{lines}\n ]\n}}\n'
        # A tar's name that is no UTF-8 is held as half characters, which no file can hold but JSON can spell.
        return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)

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

    def sizes_json(self) -> str:
        """Return the text of sizes.json."""
        return json.dumps(self.sizes(), indent=1) + "\n"

    def save(self, folder: str) -> None:
        """Write manifest.json, and sizes.json for open_clip, into a folder; the manifest goes last."""
        fs.write_text(fs.join(folder, SIZES), self.sizes_json())
        fs.write_text(fs.join(folder, NAME), self.to_json())


def read_manifest(path: str, *, removed: bool = False) -> Manifest:
    """Read a manifest from a build's folder or from the file itself. Samples that were taken down are no part of it.

    Args:
        removed: leave samples with a tombstone in, as the file has them: for those who prove the files.

    Raises:
        UsageError: there is none, it is of another format, or, unless `removed`, its counts disagree.
        RunError: it is no JSON.
    """
    loaded = read_written(path)
    if not removed:
        _check_counts(loaded, _file_of(path))
    manifest = _followed(loaded)
    return manifest if removed else without_removed(manifest)


def read_written(path: str) -> Manifest:
    """Read a manifest as it stands in its file: what became of its tars since then is not followed.

    Raises:
        UsageError: there is none, it is of another format, or has values that no reader can use.
        RunError: it is no JSON.
    """
    file = _file_of(path)
    if not fs.exists(file):
        raise UsageError(f"no manifest at {file!r}", "a finished build's folder or its manifest.json", _advice(path))
    values = read_json(file)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{file}: not a manifest of ours", f'"format": "{FORMAT}"', "shards index DIR makes one")
    if values.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{file}: format version {values.get('format_version')}", str(FORMAT_VERSION))
    folder = file.rpartition("/")[0] or "."
    loaded = load(Manifest, {**values, "folder": folder}, "")
    _check_values(loaded, file)
    return loaded


def _file_of(path: str) -> str:
    return path if path.endswith(".json") else fs.join(path, NAME)


def read_json(path: str) -> Any:
    """Return what a JSON file of ours holds.

    Raises:
        RunError: it is no JSON in UTF-8, or nests without end.
    """
    try:
        values = json.loads(fs.read_text(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not JSON: {error}") from error
    level: list[Any] = [values]
    for _ in range(MOST_LEVELS):
        groups = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = list(itertools.chain.from_iterable(groups))
        if not level:
            return values
    raise RunError(f"{path}: more than {MOST_LEVELS} levels of lists and mappings", "a file that we wrote")


def _check_values(manifest: Manifest, file: str) -> None:
    """Refuse a manifest that was edited into what no reader can use: names, ranges, counts that are none.

    Raises:
        UsageError: naming the value.
    """
    for number, entry in enumerate(manifest.shards):
        for name in (entry.path, entry.index):
            if name is not None and (not name.strip("./") or _unusable(name)):
                raise UsageError(f"{file}: shard {number} is named {name!r}", "the path of a tar, relative to the manifest")
        use = entry.use or ()
        if len(use) % 2 or min(use, default=0) < 0:
            raise UsageError(f"{file}: {entry.path!r} has use {list(use)[:8]}", "half-open ranges: pairs of whole numbers from 0 on")
        _check_count(entry.samples, f"{file}: {entry.path!r}: samples")
        _check_count(entry.bytes, f"{file}: {entry.path!r}: bytes")
    _check_count(manifest.samples, f"{file}: samples")
    for name, source in manifest.sources.items():
        counts = source if isinstance(source, dict) else None
        dropped = {} if counts is None else counts.get("dropped", {})
        if counts is None or not isinstance(dropped, dict):
            raise UsageError(f"{file}: source {name!r} holds {str(source)[:80]}", "a mapping of what became of its inputs")
        for key in ("inputs", "kept", "holdout", "spare"):
            _check_count(counts.get(key, 0), f"{file}: source {name!r}: {key}")
        for reason, count in dropped.items():
            _check_count(count, f"{file}: source {name!r}: dropped {reason!r}")
    if not isinstance(manifest.notes.get("bad_files", {}), dict | list):
        stated = str(manifest.notes["bad_files"])[:80]
        raise UsageError(f"{file}: notes: bad_files is {stated}", "names of files, or a mapping of them to reasons")
    for name, licences in manifest.licences.items():
        if not isinstance(licences, dict):
            raise UsageError(f"{file}: licences of {name!r} are {str(licences)[:80]}", "a mapping of licences to counts")
        for licence, count in licences.items():
            _check_count(count, f"{file}: source {name!r}: licence {licence!r}")


def _check_count(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise UsageError(f"{where}: {str(value)[:80]}", "a whole number from 0 on")


def _unusable(name: str) -> bool:
    """Return whether no file can have this name: it holds NUL, or half characters that stand for no byte."""
    try:
        return b"\0" in name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True


def _check_counts(manifest: Manifest, file: str) -> None:
    """Refuse a manifest whose counts disagree with each other. `shards verify` reads it all the same, and tells all.

    Raises:
        UsageError: naming the count.
    """
    advice = "shards verify tells all that is wrong; restore the manifest from a copy"
    for entry in manifest.shards:
        use = entry.use or ()
        rising = all(map(operator.lt, use[:-1], use[1:]))  # a subset's ranges may be millions of numbers
        if not rising or (use and use[-1] > entry.samples):
            problem = f"{file}: {entry.path!r} has use {list(use)[:8]}"
            raise UsageError(problem, f"rising half-open ranges inside [0, {entry.samples})", advice)
    used = sum(entry.used for entry in manifest.shards)
    if manifest.samples != used:
        raise UsageError(f"{file}: {manifest.samples:,} samples", f"{used:,}, the sum over its shards", advice)


def without_removed(manifest: Manifest) -> Manifest:
    """Return the manifest without the samples that have a tombstone; its counts follow."""
    stones = {f: stones_there for f in {manifest.folder_of(e) for e in manifest.shards} if (stones_there := tombstones.read(f))}
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
    rewritten = {f: steps for f in {manifest.folder_of(e) for e in manifest.shards} if (steps := tombstones.read_rewritten(f))}
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
