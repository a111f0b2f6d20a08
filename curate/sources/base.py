"""What a source is: a module that turns native metadata into records. It never opens an image.

A source module has

    VERSION     raised whenever its records change
    Options     a frozen dataclass of its options (YAML keys; may be empty)
    IMAGES      "inline" if records point at their images, "pool" if they are joined to a fetched pool (`--images`),
                "either" if that hangs on the file
    inputs(pattern, options) -> list[Input]
    read(input, options) -> Iterator[Record]

and may have

    COLUMNS     ((name, type), …) of native numbers and tags that stay columns, spelt `<reader>.<name>` in the measured
                table and the sidecar; their values are those of the record's `meta` under the same names
    TEMPLATES   the templates that captions are made from where the recipe names none (see `captions/template.py`)
    layout(input, options) -> str     the native layout that was recognised, in a few words
    columns(input, options) -> list[str]    the native columns that its records' `meta` has, for `keep_columns` to choose among
    beside(input, options) -> list[str]     further files or folders that its records are made of: a change is noticed

`read` is called once per input and streams: memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.folders import is_visible
from shards.tables.values import plain, storable

URL = re.compile(r"\s*https?://", re.IGNORECASE)  # how a web address begins


@dataclass(frozen=True)
class Input:
    """One native file or folder: where it is, and its name in the ledger, relative to what the user gave.

    `first` is the number of its first row, in sources whose ids are numbers that run through all files.
    """

    path: str
    name: str
    first: int = 0


@dataclass(frozen=True)
class Pointer:
    """Where an image's bytes lie: a file, and a range in it (size -1: the whole file)."""

    path: str
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class Record:
    """One native record: one image with all its captions, as its publisher gives it.

    `status` is a reason of `shards.schema.REASONS` where the source itself knows that there is no usable image
    (a failed fetch, a malformed line); such a record becomes a ledger row. `meta` holds native extras as a JSON object.
    `content` is the image itself where no byte range of a file holds it (parquet, compressed tars): it goes to the work folder.
    """

    source_id: str
    captions: tuple[str, ...]
    row: int
    urls: tuple[str, ...] = ()
    image: Pointer | None = None
    class_index: int = -1
    class_name: str = ""
    licence: str = ""
    status: str = ""
    detail: str = ""
    meta: str = ""
    content: bytes = b""


def list_inputs(pattern: str, suffixes: tuple[str, ...] = ()) -> list[Input]:
    """Return the inputs that a file, a folder, a glob of either, or several in braces name, each named relative to what the user gave.

    The suffixes choose among a folder's files; a file or a glob of files names its files itself. Files beside them never
    change a name, since names are part of some sources' ids.

    Raises:
        UsageError: nothing is there, or no file of a folder has one of the suffixes.
    """
    base = base_of(pattern)
    paths: list[str] = []
    for place in expand(pattern):
        if not fs.is_dir(place):
            paths.append(place)
            continue
        visible = [name for name in fs.walk(place) if is_visible(name)] if not fs.is_remote(place) else _remote_names(place)
        wanted = [name for name in visible if not suffixes or name.lower().endswith(suffixes)]
        if not wanted:
            raise UsageError(f"no {' or '.join(suffixes)} file in {place!r}", advice="name the files with a glob in quotes")
        paths += [fs.join(place, name) for name in wanted]
    return [Input(p, fs.relative(p, base)) for p in sorted(set(paths))]


def _remote_names(folder: str) -> list[str]:
    return [name for path in fs.find(folder) if is_visible(name := fs.relative(path, folder))]


def expand(pattern: str) -> list[str]:
    """Return the files and folders that a path, a glob, or several in braces name. Where a glob names files, its folders do not count.

    Raises:
        UsageError: nothing is there.
    """
    paths: list[str] = []
    for alternative in alternatives(pattern):
        if fs.exists(alternative):
            paths.append(alternative)
        elif fs.is_remote(alternative):
            paths += fs.find(alternative)
        else:
            matches = sorted(glob.glob(alternative, recursive=True))
            files = [path for path in matches if not os.path.isdir(path)]
            paths += files or matches
    if not paths:
        raise UsageError(f"no file at {pattern!r}", "a file, a folder, or a glob in quotes")
    return list(dict.fromkeys(paths))


def alternatives(pattern: str) -> list[str]:
    """Return what braces in a pattern stand for: `{a,b}` and `{000..012}`."""
    if "{" not in pattern or fs.exists(pattern):
        return [pattern]
    from braceexpand import braceexpand

    return list(braceexpand(pattern))


def several(patterns: Sequence[str]) -> str:
    """Return one pattern that names what several name: `data/{a,b}`. A name with braces or commas in it stays one."""
    if len(patterns) == 1:
        return patterns[0]
    parts = [re.split(r"[*?\[{]", pattern, maxsplit=1)[0].rpartition("/")[0].split("/") for pattern in patterns]
    alike = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False))
    shared = "".join(names[0] + "/" for names in alike)
    shared = shared if all(pattern.startswith(shared) for pattern in patterns) else ""
    rests = [pattern[len(shared) :] for pattern in patterns]
    escaped = [re.sub(r"([\\{},])", r"\\\1", rest) if fs.exists(shared + rest) else rest for rest in rests]
    return f"{shared}{{{','.join(escaped)}}}"


def looked_at(inputs: list[Input], look: Callable[[str], object]) -> list[Input]:
    """Return inputs after a look at each; a torn one waits for `read`, where --bad-files decides.

    Raises:
        UsageError: what `look` raises of a file that is not of its source's layout.
    """
    for input in inputs:
        with contextlib.suppress(TornFileError):
            look(input.path)
    return inputs


def base_of(pattern: str) -> str:
    """Return the folder that names are relative to: the pattern itself, or what stands before its first wildcard."""
    if fs.is_dir(pattern):
        return pattern
    fixed = pattern if fs.exists(pattern) else re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")


def meta_json(values: dict[str, Any]) -> str:
    """Return native extras as one JSON object, or an empty string where there are none; a value may have any column's type."""
    return storable(json.dumps(plain(values), ensure_ascii=False, separators=(",", ":"))) if values else ""
