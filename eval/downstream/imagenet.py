"""ImageNet-1k: 1,000 kinds of things and animals; 1,281,167 images train, the 50,000 validation images test."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.tables import table
from shards.tables.json_records import Bad

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES: tuple[str, ...]  # OpenAI's names, which open_clip ships, in the order of the sorted WordNet ids
TEMPLATES: tuple[str, ...]  # OpenAI's 80
METRIC = "acc1"
LAYOUT = "train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG; or Kaggle's ILSVRC/Data/CLS-LOC/{train,val} with LOC_val_solution.csv"
_TRUTH = "LOC_val_solution.csv"
_INNER = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "imagenet", "ILSVRC2012")


def __getattr__(name: str) -> Any:
    if name == "CLASSES":
        return tuple(_published()["IMAGENET_CLASSNAMES"])
    if name == "TEMPLATES":
        return tuple(map(str, _published()["OPENAI_IMAGENET_TEMPLATES"]))
    raise AttributeError(name)


def splits(path: str) -> list[str]:
    """Return the splits that are there: train, and test, which is the official validation set."""
    root = _root(path)
    return [split for split, folder in ((TRAIN, "train"), (TEST, "val")) if fs.is_dir(fs.join(root, folder))]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, class folders that are missing or none, or flat validation images without their solution.
        TornFileError: the solution is torn.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    folder = fs.join(root, "train" if split == TRAIN else "val")
    truth = next((fs.join(place, _TRUTH) for place in (path, root, fs.join(path, "..")) if fs.exists(fs.join(place, _TRUTH))), "")
    flat = not any(fs.is_dir(fs.join(folder, wnid)) for wnid in wnids())
    if flat and split == TEST and truth:
        items = _solved(folder, truth)
    else:
        items = _layout.class_folders(folder, wnids(), LAYOUT)
    classes = tuple(_published()["IMAGENET_CLASSNAMES"])
    templates = tuple(map(str, _published()["OPENAI_IMAGENET_TEMPLATES"]))
    repeated = tuple(name for name, count in Counter(classes).items() if count > 1)  # missile, sunglasses: two classes each
    return _layout.examples("imagenet", items, classes, templates, METRIC, repeated)


@cache
def wnids() -> tuple[str, ...]:
    """Return the 1,000 WordNet ids in label order, as timm ships them."""
    return tuple(_layout.lines(fs.join(_package("timm"), "data/_info/imagenet_synsets.txt")))


@cache
def _published() -> dict[str, list[str]]:
    """Return open_clip's lists. Its file is parsed, not run: importing the package takes seconds."""
    from shards.classes import content

    return dict(content.read(fs.join(_package("open_clip"), "zero_shot_metadata.py")))


def _package(name: str) -> str:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{name} is not installed", "the packages that this project depends on")
    return str(spec.submodule_search_locations[0])


def _solved(folder: str, truth: str) -> list[_layout.Item]:
    """Return the flat validation images with the labels of Kaggle's solution: `ImageId,PredictionString`, which begins with the id."""
    places = {wnid: label for label, wnid in enumerate(wnids())}
    listed = table.sniff(truth, LAYOUT)
    name, solution = listed.asked("ImageId"), listed.asked("PredictionString")
    items = []
    for number, row in enumerate(listed.rows(), 2):
        wnid = "" if isinstance(row, Bad) else str(row[solution]).partition(" ")[0]
        if isinstance(row, Bad) or wnid not in places:
            raise TornFileError(
                f"{truth}: row {number} names no class: {wnid!r}", "ImageId,nXXXXXXXX …", "a whole table, as it is published"
            )
        items.append(_layout.Item(f"{row[name]}.JPEG", fs.join(folder, f"{row[name]}.JPEG"), places[wnid]))
    return items


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("val",), _INNER)
