"""ImageNet-Captions: the JSON of Flickr titles, descriptions and tags, joined to an ImageNet tree or its tars.

A sample's id is its file name. `--images` names the tree (`train/<wnid>/<filename>`), a folder of class tars, or
ILSVRC2012_img_train.tar. The texts in `text_fields` are joined by a space into one caption, or stand as captions of
their own; mark-up and line feeds in them are a matter of cleaning. A record whose image is not there is `image_missing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from curate.sources import _guess, _imagenet, _synsets
from curate.sources._imagenet_finder import Finder
from curate.sources.base import Input, Record, list_inputs, meta_json
from shards.core.config import option
from shards.core.errors import TornFileError, UsageError
from shards.tables import json_records
from shards.tables.text import refuse_foreign
from shards.tables.values import storable

VERSION = 2
IMAGES = "inline"
COLUMNS = (("wnid", "string"),)
_LAYOUT = "a JSON list of {filename, wnid, title, description, tags}"


@dataclass(frozen=True)
class Options:
    """Where the images are, and which texts become captions."""

    images: str = option("", "the ImageNet tree, a folder of class tars, or ILSVRC2012_img_train.tar")
    text_fields: tuple[Literal["title", "description", "tags"], ...] = option(
        ("title", "description", "tags"), "texts of a record in order, such as title tags description"
    )
    texts: Literal["joined", "apart"] = option("joined", "one caption of all texts, or each text a caption of its own")
    synsets: str = option("", f"{_synsets.MAP}, for class numbers and names (looked for beside the images)")
    synonyms: Literal["first", "all"] = option("first", "a class's first name (tench), or all (tench, Tinca tinca)")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the JSON files, after a look at each one's first record and at where the images are."""
    if not options.images:
        raise UsageError("imagenet_captions: no images", "--images TREE, or the tars of ILSVRC 2012's training images")
    if not options.text_fields or len(set(options.text_fields)) < len(options.text_fields):
        raise UsageError(f"text_fields: found {', '.join(options.text_fields) or 'none'}", "title, description, tags, each once")
    files = list_inputs(pattern, (".json",))
    for file in files:
        _sniff(file.path, options)
    _imagenet.inputs(options.images, "train")
    _classes(options)
    return files


def beside(input: Input, options: Options) -> list[str]:
    """Return the images and the synset map."""
    return [path for path in (options.images, _map(options)) if path]


def layout(input: Input, options: Options) -> str:
    """Return which texts make a caption, and what holds the images."""
    held = _imagenet.inputs(options.images, "train")
    texts = (" + " if options.texts == "joined" else ", else ").join(options.text_fields)
    return f"{_LAYOUT}; caption from {texts}; images in {len(held):,} × {_imagenet.layout(held[0].path, {})}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per item of the list.

    Raises:
        UsageError: the file is not ImageNet-Captions'.
        TornFileError: the file, or a tar of the images, is cut off; what stands before was yielded.
    """
    _sniff(input.path, options)
    classes = _classes(options)
    numbers = {id: (i, name) for i, (id, name) in enumerate(zip(classes.ids, classes.called(options.synonyms), strict=True))}
    finder = Finder(options.images)
    for row, item in enumerate(json_records.records(input.path, "annotations")):
        yield _record(item, row, input.name, options, finder, numbers)
    if finder.torn:
        raise finder.torn


def _record(item: Any, row: int, name: str, options: Options, finder: Finder, numbers: dict[str, tuple[int, str]]) -> Record:
    if isinstance(item, json_records.Bad):
        return Record(f"{name}:{row}", (storable(item.text),), row, status="bad_record", detail=item.why)
    fields = item if isinstance(item, dict) else {}
    filename, wnid = storable(fields.get("filename")), storable(fields.get("wnid"))
    wnid = wnid or filename.partition("_")[0]
    captions = _captions(fields, options)
    if not filename or "/" in filename or filename.startswith(".") or not _imagenet.WNID.fullmatch(wnid):
        why = f"no file of a class: filename {filename[:80]!r}, wnid {wnid[:80]!r}"
        return Record(f"{name}:{row}", captions, row, status="bad_record", detail=why)
    number, class_name = numbers.get(wnid, (-1, wnid))
    image = finder.find(wnid, filename)
    status, detail = ("", "") if image else ("image_missing", f"no {wnid}/{filename} in the images")
    extras = meta_json({k: v for k, v in fields.items() if k not in ("filename", "title", "description", "tags")} | {"wnid": wnid})
    return Record(filename, captions, row, (), image, number, class_name, status=status, detail=detail, meta=extras)


def _captions(fields: dict[str, Any], options: Options) -> tuple[str, ...]:
    """Return the texts in the order asked for: as one, or one by one, empty ones too."""
    texts = []
    for field in options.text_fields:
        value = fields.get(field)
        texts.append(" ".join(map(storable, value)) if isinstance(value, list) else storable(value))
    return tuple(texts) if options.texts == "apart" else (" ".join(text for text in texts if text.strip()),)


def _sniff(path: str, options: Options) -> None:
    refuse_foreign(path, _LAYOUT)
    try:
        first = next(iter(islice(json_records.records(path, "annotations"), 1)), None)
    except TornFileError:
        return  # `read` meets it again, where --bad-files decides
    if first is None:
        return
    if not isinstance(first, dict):
        raise UsageError(f"{path}: its records are {type(first).__name__}s", _LAYOUT)
    for name in ("filename", *options.text_fields):
        if name not in first:
            problem = f"{path}: its records have {', '.join(sorted(map(str, first))) or 'no fields'}: there is no {name!r}"
            raise UsageError(problem, _LAYOUT, _guess.advice(_guess.by_columns(first)))


def _map(options: Options) -> str:
    return options.synsets or _imagenet.beside(options.images, _synsets.MAP)


def _classes(options: Options) -> _synsets.Classes:
    """Return the classes of the map; without one there are no numbers, and ids serve as names."""
    return _synsets.load(_map(options), lambda: ()) if _map(options) else _synsets.Classes((), ())
