"""`manifest.json`: what a build is. Written last, it is the commit; without it a folder is unfinished.

It never holds an absolute path or a date, so two equal builds have equal manifests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shards.core import fs
from shards.core.config import digest, dump, load, option
from shards.core.errors import RunError, UsageError

NAME = "manifest.json"
FORMAT, FORMAT_VERSION = "provender-shards", 1


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a build. `use` is the half-open range of its samples that belong to the set; null means all."""

    path: str = option()
    samples: int = option()
    bytes: int = option()
    sha256: str = option("")
    index_sha256: str = option("")
    sidecar_sha256: str = option("")
    use: tuple[int, ...] | None = option(None)
    index: str | None = option(None)

    @property
    def window(self) -> tuple[int, int]:
        """The half-open range of samples in use."""
        return (self.use[0], self.use[1]) if self.use else (0, self.samples)

    @property
    def used(self) -> int:
        """How many samples are in use."""
        return self.window[1] - self.window[0]


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
        """Return the manifest's text; equal manifests give equal text."""
        front = {"format": self.format, "format_version": self.format_version}
        values = front | {k: v for k, v in dump(self).items() if k != "folder"}
        values["shards"] = [{k: v for k, v in s.items() if v not in (None, "")} for s in values["shards"]]
        return json.dumps(values, ensure_ascii=False, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """sha256 of the manifest's content: what a checkpoint or a result refers to."""
        return digest({k: v for k, v in dump(self).items() if k != "folder"})

    def path_of(self, entry: ShardEntry, suffix: str = ".tar") -> str:
        """Return the path of a shard's tar, `.idx` or `.parquet`."""
        if suffix == ".idx" and entry.index:
            return fs.join(self.folder, entry.index)
        return fs.join(self.folder, entry.path).removesuffix(".tar") + suffix

    def save(self, folder: str) -> None:
        """Write manifest.json, and sizes.json for open_clip, into a folder; the manifest goes last."""
        by_name = {entry.path.rpartition("/")[2]: entry.used for entry in self.shards}
        fs.write_text(fs.join(folder, "sizes.json"), json.dumps(by_name, indent=1) + "\n")
        fs.write_text(fs.join(folder, NAME), self.to_json())


def read_manifest(path: str) -> Manifest:
    """Read a manifest from a build's folder or from the file itself.

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
    return load(Manifest, {**values, "folder": folder}, "")


def _advice(path: str) -> str:
    if fs.exists(fs.join(path, "recipe.yaml")):
        return "this build is unfinished: run the same build-shards command again and it resumes"
    return "shards index DIR gives a foreign WebDataset folder a manifest" if fs.is_dir(path) else ""


def entries(manifest: Manifest) -> Iterator[tuple[ShardEntry, int]]:
    """Yield each shard with the position of its first used sample in the set."""
    position = 0
    for entry in manifest.shards:
        yield entry, position
        position += entry.used
