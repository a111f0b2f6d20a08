"""A packed set: a folder with `dataset.json` and a build of ours for each split, which `evaluate pack` writes.

`dataset.json` says what the set is called, its classes in label order, templates, main metric, where its splits come from, and of
each split the samples, the digest of images and labels, and the digest of its manifest. It holds no path and no time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from shards.core import fs
from shards.core.config import digest, dump, load, option
from shards.core.errors import TornFileError, UsageError, closest
from shards.manifest import NAME as MANIFEST

NAME = "dataset.json"
FORMAT, FORMAT_VERSION = "provender-dataset", 1
TEST, TRAIN, VAL = "test", "train", "val"


@dataclass(frozen=True)
class Split:
    """One split: `digest` is that of its images and labels, `shift` says how it differs from `test`, `undecodable` counts the left-out."""

    samples: int = option()
    digest: str = option()
    manifest: str = option()
    undecodable: int = option(0)
    shift: str = option("")


@dataclass(frozen=True)
class Dataset:
    """What `dataset.json` holds. `folder` is where it was read from.

    Attributes:
        split_rule: `official`, or the rule in words.
        split_checksum: sha256 over the sorted lines `ID<TAB>LABEL<TAB>SPLIT`, shifted splits aside.
        whole: whether that is the checksum of the whole published set; null where it is not known.
        named: whether `classes` are names that prompts can use.
    """

    name: str = option()
    metric: str = option()
    classes: tuple[str, ...] = option()
    templates: tuple[str, ...] = option()
    splits: dict[str, Any] = option()
    class_digest: str = option()
    split_rule: str = option()
    split_checksum: str = option()
    whole: bool | None = option(None)
    named: bool = option(True)
    summary: str = option("")
    kind: str = option("")
    format: str = option(FORMAT)
    format_version: int = option(FORMAT_VERSION)
    folder: str = field(default="", compare=False)

    def split(self, name: str) -> Split:
        """Return what is said of a split.

        Raises:
            UsageError: the set has no such split.
        """
        if name not in self.splits:
            raise UsageError(f"{self.folder}: no split {name!r}", ", ".join(self.splits), closest(name, self.splits))
        return load(Split, self.splits[name], f"{self.folder}/{NAME}: splits.{name}")

    def path_of(self, name: str) -> str:
        """Return the folder of a split."""
        return fs.join(self.folder, name)

    def save(self, folder: str) -> None:
        """Write `dataset.json`; it is the commit, and goes last."""
        values = {key: value for key, value in dump(self).items() if key != "folder"}
        front = {key: values.pop(key) for key in ("format", "format_version", "name")}
        fs.write_text(fs.join(folder, NAME), json.dumps(front | values, ensure_ascii=False, indent=1) + "\n")


def folder_of(path: str) -> tuple[str, str]:
    """Return (folder of the packed set, split) of a path to a packed set or to a split of one; two empty texts where it is neither."""
    path = path.rstrip("/").removesuffix(f"/{MANIFEST}") or path
    if fs.exists(fs.join(path, NAME)):
        return path, ""
    above, _, split = path.rpartition("/")
    above = above or ("/" if path.startswith("/") else ".")
    if fs.exists(fs.join(path, MANIFEST)) and fs.exists(fs.join(above, NAME)):
        return above, split
    return "", ""


def read(folder: str) -> Dataset:
    """Return what the `dataset.json` of a folder says.

    Raises:
        TornFileError: it is no JSON.
        UsageError: it is of another format, or its classes are not those that its digest is of.
    """
    path = fs.join(folder, NAME)
    try:
        values = json.loads(fs.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path}: not JSON: {str(error)[:120]}", "a whole file, as `evaluate pack` wrote it") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{path}: not of ours", f'"format": "{FORMAT}"', "evaluate pack")
    if values.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {values.get('format_version')}", str(FORMAT_VERSION))
    dataset = load(Dataset, {**values, "folder": folder}, path)
    if digest(list(dataset.classes)) != dataset.class_digest:
        raise UsageError(f"{path}: the classes are not those that class_digest is of", "the file as it was written", "evaluate pack anew")
    return dataset


def splits_of(path: str) -> dict[str, str]:
    """Return the splits of the packed set at a path, or that the split at a path belongs to: name → path. Empty for other data."""
    folder, _ = folder_of(path)
    if not folder:
        return {}
    dataset = read(folder)
    return {name: dataset.path_of(name) for name in dataset.splits}


def shifts_of(path: str) -> dict[str, str]:
    """Return the shifted splits of the packed set at a path: path → how it differs from `test`. Empty for other data."""
    folder, _ = folder_of(path)
    if not folder:
        return {}
    dataset = read(folder)
    shifts = {name: dataset.split(name).shift for name in dataset.splits}
    return {dataset.path_of(name): shift for name, shift in shifts.items() if shift}
