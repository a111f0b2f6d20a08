"""What a source is: a module that turns native metadata into records. It never opens an image.

A source module has

    VERSION     raised whenever its records change
    Options     a frozen dataclass of its options (YAML keys; may be empty)
    IMAGES      "inline" if records point at their images, "pool" if they are joined to a fetched pool (`--images`)
    inputs(pattern, options) -> list[Input]
    read(input, options) -> Iterator[Record]

`read` is called once per input and streams: memory does not grow with the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.core import fs


@dataclass(frozen=True)
class Input:
    """One native file or folder: where it is, and its name in the ledger, relative to what the user gave."""

    path: str
    name: str


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
    (a failed fetch, a malformed line); such a record becomes a ledger row. `uid` is set only by sources whose
    samples carry one. `meta` holds native extras as a JSON object.
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


def list_inputs(pattern: str, suffixes: tuple[str, ...] = ()) -> list[Input]:
    """Return the inputs that a file, folder or glob names, each named relative to their common folder."""
    paths = [p for p in fs.find(pattern) if not suffixes or p.endswith(suffixes)]
    folder = common_folder(paths)
    return [Input(p, fs.relative(p, folder)) for p in paths]


def common_folder(paths: list[str]) -> str:
    """Return the deepest folder that holds all paths."""
    parts = [p.split("/")[:-1] for p in paths]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared) or ("/" if paths and paths[0].startswith("/") else ".")
