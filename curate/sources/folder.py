"""A folder of images with captions or classes beside them: a table, .token, COCO or Karpathy JSON, sidecars, class folders.

A sample's id is its image's path relative to the folder that was given. The layout is sniffed (`shards/folders.py` lists them all).
A table's columns may have any names: `--image-column` and `--caption-column`, or a map `columns`. A folder of such folders, several
folders, and globs of them are read one by one. Class folders give class names and no captions: those come from templates
(`--template 'a photo of a {}'`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from curate.fetch.pool import is_files, stored_columns, tables
from curate.sources.base import Input, Pointer, Record, base_of, expand, meta_json
from shards import caption_files, folders
from shards.core import fs
from shards.core.config import option
from shards.core.console import counted, warn
from shards.core.errors import UsageError, closest
from shards.tables.notes import note
from shards.tables.values import storable

VERSION = 2
IMAGES = "inline"
ROLES = ("image", "caption")


@dataclass(frozen=True)
class Options:
    """How the folder is to be understood, where sniffing does not do."""

    layout: str = option("", f"{' | '.join(folders.LAYOUTS)}; sniffed if empty")
    captions_file: str = option("", "the captions file, relative to the folder")
    image_column: str = option("", "the column of a captions file that names the image; its number where there is no header")
    caption_column: str = option("", "the column of a captions file that holds the caption")
    columns: dict[str, str] = option({}, "the same as a map: image=NAME caption=NAME")
    images: str = option("", "the folder of the images, relative to the folder")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return one input per folder (or captions file), whose layout is checked; of a folder of captioned folders, each of these.

    Raises:
        UsageError: no image, or a table of which no column is known.
    """
    paths = expand(pattern) if re.search(r"[*?\[{]", pattern) else [pattern]
    base = base_of(pattern)
    pieces = []
    for path in paths:
        _refuse_img2dataset(path, options)
        parts = _parts(path.rstrip("/") or "/", options)
        # The folder that was given is `.` in the ledger; a captions file that was given has its name there.
        pieces += [Input(part, fs.relative(part, base) or ".") for part in parts]
    return pieces


def _refuse_img2dataset(path: str, options: Options) -> None:
    """Refuse a folder of img2dataset's files, whose tables say more than their folders: of every URL what became of it.

    Raises:
        UsageError: it is one, and no option says how else to read it.
    """
    names = tables(path) if fs.is_dir(path) and not (options.layout or options.captions_file) else []
    if names and is_files(fs.join(path, names[0])) and {"url", "key", "status"} <= set(stored_columns(fs.join(path, names[0]))):
        problem = f"{path}: img2dataset's output, {counted(len(names), 'table')} with each URL's status"
        raise UsageError(problem, "a folder of pictures and captions", "--source img2dataset, or --layout sidecar for the pictures alone")


def _parts(path: str, options: Options) -> list[str]:
    """Return the folder sets at a path: itself, or the captioned folders in it."""
    opened = _open(path, options)
    if opened.layout == "classes" and not options.layout:
        heads = sorted({name.partition("/")[0] for name in opened.images})
        tables = {name.partition("/")[0] for name in opened.names if name.lower().endswith(caption_files.SUFFIXES)}
        captioned = [head for head in heads if head in tables and _is_captioned(fs.join(path, head), options)]
        if captioned:
            return [part for head in heads for part in _parts(fs.join(path, head), options)]
    if fs.is_dir(path):
        _say_unread(path, opened, options)
    return [path]


def _is_captioned(path: str, options: Options) -> bool:
    """Return whether a folder, or one in it, has a captions file."""
    try:
        opened = _open(path, options)
    except UsageError as error:
        if "several captions files" in error.found:
            raise
        return False
    if opened.layout != "classes":
        return opened.captions is not None
    return len(_parts(path, options)) > 1


def _say_unread(path: str, opened: folders.FolderSet, options: Options) -> None:
    """Refuse a table that nothing was understood of where the images have neither captions nor classes otherwise; else warn.

    Raises:
        UsageError: with the table's columns, and the way to name them.
    """
    if opened.captions is not None or options.layout:
        return
    for error in caption_files.unread(path, [name for name in fs.names(path) if folders.is_visible(name)]):
        if opened.layout == "images":
            raise error
        warn(f"not used: {error.found} ({error.allowed})")


def layout(input: Input, options: Options) -> str:
    """Return which of the layouts was recognised, by which file and columns, and over how many images."""
    opened = _open(input.path, options)
    count = counted(len(opened.images), "image")
    if opened.captions:
        named = opened.captions
        columns = f", images in {named.image_column!r}, captions in {named.caption_column!r}" if named.image_column else ""
        return f"{opened.layout}: {named.path.rpartition('/')[2]}{columns}; {count}"
    classes = counted(len(opened.classes), "class", "classes") + ", " if opened.classes else ""
    return f"{opened.layout}: {classes}{count}"


def beside(input: Input, options: Options) -> list[str]:
    """Return the folder of the images where the input is their captions file, and what the options name elsewhere."""
    opened = _open(input.path, options)
    further = [opened.root, opened.captions.path if opened.captions else ""]
    return [path for path in further if path and path.rstrip("/") != input.path.rstrip("/")]


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per image, with all its captions."""
    inner = "" if input.name == "." or not fs.is_dir(input.path) else f"{fs.printable(input.name)}/"
    opened = _open(input.path, options)
    unnamed = set(opened.images) if opened.captions else set()
    for row, item in enumerate(opened):
        unnamed.discard(fs.relative(item.image, opened.root) if item.image else "")
        image = Pointer(item.image) if item.image else None
        captions = tuple(map(storable, item.captions))
        yield Record(
            inner + item.id, captions, row, image=image, class_index=item.class_index, class_name=storable(item.class_name),
            licence=storable(item.licence), status=item.status, detail=storable(item.problem), meta=meta_json(item.meta),
        )  # fmt: skip
    note("[image|images] that the captions file does not name", min(unnamed, default=""), len(unnamed))
    note("hidden [file or thumbnail|files and thumbnails] passed over", min(opened.hidden, default=""), len(opened.hidden))


def _open(path: str, options: Options) -> folders.FolderSet:
    if unknown := [role for role in options.columns if role not in ROLES]:
        raise UsageError(f"columns: {unknown[0]!r}", ", ".join(ROLES), closest(unknown[0], ROLES))
    return folders.read_folder(
        path, image_column=options.image_column or options.columns.get("image", ""),
        caption_column=options.caption_column or options.columns.get("caption", ""), captions_file=options.captions_file,
        images=options.images, layout=options.layout,
    )  # fmt: skip
