"""A folder of images with captions or classes beside them: CSV, TSV, JSONL, .token, COCO or Karpathy JSON, sidecars, class folders.

A sample's id is its image's path relative to the folder. The layout is sniffed (`shards/folders.py` lists them all).
Class folders give class names and no captions: those come from templates (`--template 'a photo of a {}'`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curate.sources.base import Input, Pointer, Record, meta_json, storable
from shards import folders
from shards.core.config import option

VERSION = 1
IMAGES = "inline"


@dataclass(frozen=True)
class Options:
    """How the folder is to be understood, where sniffing does not do."""

    layout: str = option("", "csv | tsv | jsonl | json | token | coco | karpathy | sidecar | classes | images; sniffed if empty")
    captions_file: str = option("", "the captions file, relative to the folder")
    image_column: str = option("", "the column of a captions file that names the image")
    caption_column: str = option("", "the column of a captions file that holds the caption")
    images: str = option("", "the folder of the images, relative to the folder")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the one input: the folder, or its captions file, whose layout is checked."""
    _open(pattern, options)
    return [Input(pattern, ".")]


def layout(input: Input, options: Options) -> str:
    """Return which of the layouts was recognised, by which file and columns, and over how many images."""
    found = _open(input.path, options)
    count = f"{len(found.images):,} images"
    if found.captions:
        named = found.captions
        columns = f", images in {named.image_column!r}, captions in {named.caption_column!r}" if named.image_column else ""
        return f"{found.layout}: {named.path.rpartition('/')[2]}{columns}; {count}"
    return f"{found.layout}: {len(found.classes):,} classes, {count}" if found.classes else f"{found.layout}: {count}"


def beside(input: Input, options: Options) -> list[str]:
    """Return the folder of the images where the input is their captions file, and what the options name elsewhere."""
    found = _open(input.path, options)
    further = [found.root, found.captions.path if found.captions else ""]
    return [path for path in further if path and path.rstrip("/") != input.path.rstrip("/")]


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per image, with all its captions."""
    for row, item in enumerate(_open(input.path, options)):
        image = Pointer(item.image) if item.image else None
        captions = tuple(map(storable, item.captions))
        yield Record(
            item.id, captions, row, image=image, class_index=item.class_index, class_name=storable(item.class_name),
            licence=storable(item.licence), status=item.status, detail=storable(item.problem), meta=meta_json(item.meta),
        )  # fmt: skip


def _open(path: str, options: Options) -> folders.FolderSet:
    return folders.read_folder(
        path, image_column=options.image_column, caption_column=options.caption_column, captions_file=options.captions_file,
        images=options.images, layout=options.layout,
    )  # fmt: skip
