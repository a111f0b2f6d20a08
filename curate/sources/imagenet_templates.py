"""Images of classes with captions from templates: ImageNet as a tree, class tars or the tar of tars, or any class folders.

A sample's id is its file name where that names its class (ILSVRC's do), else its class and its file name. `--template one`,
`seven` or `eighty` (the default; OpenAI's prompts for ImageNet, as open_clip has them), texts with {} in them, or a file of such
lines; the uid draws one, and it stands in the sidecar's `imagenet_templates.template`. The synset map numbers and names the
classes; it is looked for beside the images. Without one, classes are numbered by their folders' names: as numbers where all are
numbers, else as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curate.sources import _imagenet, _synsets
from curate.sources.base import Input, Record, meta_json
from shards.core.config import option
from shards.core.console import warn
from shards.core.errors import TornFileError, UsageError

VERSION = 3
IMAGES = "inline"
COLUMNS = (("wnid", "string"), ("class_name", "string"), ("template", "string"))
TEMPLATES = ("eighty",)


@dataclass(frozen=True)
class Options:
    """Which images, and what their classes are called."""

    synsets: str = option("", f"names of the classes: {_synsets.MAP} (looked for beside the images), a class index, a list of names")
    synonyms: Literal["first", "all"] = option("first", "a class's first name (tench), or all (tench, Tinca tinca)")
    split: Literal["train", "val"] = option("train", "the split to take where a folder has several")
    labels: str = option("", f"classes of flat validation files: {_imagenet.SOLUTION} (looked for beside the images)")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return one input per class folder or tar, after a look at the classes' names; names of several classes are told."""
    containers = _imagenet.inputs(pattern, options.split)
    try:
        classes = _classes(containers[0], options)
        folders = _imagenet.classes_of(containers[0].path, _imagenet.solution_of(containers[0].path, options.labels))
    except TornFileError:
        return containers  # `read` meets it again, where --bad-files decides
    if not set(folders) & set(classes.ids):
        raise UsageError(
            f"{_map(containers[0], options)}: none of its classes is there: {classes.ids[0]}, …", f"{', '.join(folders[:5])}, …"
        )
    if repeated := classes.repeated(options.synonyms):
        examples = "; ".join(f"{name} ({', '.join(ids)})" for name, ids in list(repeated.items())[:5])
        warn(f"{len(repeated)} class names stand for several classes, whose captions do not tell them apart: {examples}")
    return containers


def beside(input: Input, options: Options) -> list[str]:
    """Return the files that name and number the classes."""
    files = (_map(input, options), options.labels or _imagenet.beside(input.path, _imagenet.SOLUTION))
    return [path for path in files if path]


def layout(input: Input, options: Options) -> str:
    """Return what holds the images, and where their classes' order comes from."""
    solution = _imagenet.solution_of(input.path, options.labels)
    classes = _classes(input, options)
    order = _map(input, options).rpartition("/")[2] or "sorted folders"
    known = " (ILSVRC 2012)" if classes.digest == _synsets.ILSVRC2012 else ""
    return f"{_imagenet.layout(input.path, solution)}; {len(classes.ids):,} classes ordered by {order}, digest {classes.digest[:12]}{known}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per image, without captions: they are made from the class's name, by uid.

    Raises:
        TornFileError: a tar is cut off; images before the cut were yielded.
    """
    solution = _imagenet.solution_of(input.path, options.labels)
    classes = _classes(input, options)
    numbers = {id: i for i, id in enumerate(classes.ids)}
    names = classes.called(options.synonyms)
    for row, picture in enumerate(_imagenet.pictures(input.path, solution)):
        number = numbers.get(picture.wnid, -1)
        problem = picture.problem or ("" if number >= 0 else f"class {picture.wnid!r} is not among the {len(names):,} classes")
        if problem:
            yield Record(picture.id, (), row, status="bad_record", detail=problem)
            continue
        meta = meta_json({"wnid": picture.wnid, "class_name": names[number]})
        yield Record(picture.id, (), row, image=picture.image, class_index=number, class_name=names[number], meta=meta)


def _map(input: Input, options: Options) -> str:
    return options.synsets or _imagenet.beside(input.path, _synsets.MAP)


def _classes(input: Input, options: Options) -> _synsets.Classes:
    return _synsets.load(_map(input, options), lambda: _imagenet.classes_of(input.path, _imagenet.solution_of(input.path, options.labels)))
