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
    beside(input, options) -> list[str]     further files or folders that its records are made of: a change is noticed

`read` is called once per input and streams: memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError

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
    """Return the inputs that a file, folder or glob names, each named relative to what the user gave.

    The suffixes choose among a folder's files; a file or a glob names its files itself. Files beside them never
    change a name, since names are part of some sources' ids.

    Raises:
        UsageError: nothing is there, or no file of the folder has one of the suffixes.
    """
    paths = fs.find(pattern)
    base = _base(pattern)
    if fs.is_dir(pattern):
        visible = [p for p in paths if "/." not in "/" + fs.relative(p, base)]
        paths = [p for p in visible if not suffixes or p.lower().endswith(suffixes)]
        if not paths:
            raise UsageError(f"no {' or '.join(suffixes)} file in {pattern!r}", advice="name the files with a glob in quotes")
    return [Input(p, fs.relative(p, base)) for p in paths]


def looked_at(found: list[Input], look: Callable[[str], object]) -> list[Input]:
    """Return inputs after a look at each; a torn one waits for `read`, where --bad-files decides.

    Raises:
        UsageError: what `look` raises of a file that is not of its source's layout.
    """
    for one in found:
        with contextlib.suppress(TornFileError):
            look(one.path)
    return found


def _base(pattern: str) -> str:
    """Return the folder that names are relative to: the pattern itself, or what stands before its first wildcard."""
    if fs.is_dir(pattern):
        return pattern
    fixed = pattern if fs.exists(pattern) else re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")


def storable(value: Any) -> str:
    """Return a JSON scalar as text that UTF-8 can hold: null is empty, a lone surrogate becomes U+FFFD."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def meta_json(values: dict[str, Any]) -> str:
    """Return native extras as one JSON object, or an empty string where there are none."""
    return storable(json.dumps(values, ensure_ascii=False, separators=(",", ":"))) if values else ""
