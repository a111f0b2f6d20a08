"""CLEVR counts: how many objects, three to ten, a rendered scene shows; 70,000 images train, 15,000 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
TEMPLATES = (
    "a picture of {c} objects",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "CLEVR_v1.0/images/{train,val}/*.png and CLEVR_v1.0/scenes/CLEVR_{train,val}_scenes.json, as CLEVR_v1.0.zip unpacks"
_FOLDERS = {TRAIN: "train", TEST: "val"}  # the scenes of its own test images are not published
_LEAST = 3  # objects in a scene


def splits(path: str) -> list[str]:
    """Return the official splits; `test` is its validation set, as in VTAB."""
    _root(path)
    return [TRAIN, TEST]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    folder = _FOLDERS[split]
    listed = f"{root}/scenes/CLEVR_{folder}_scenes.json"
    try:
        scenes = [(str(scene["image_filename"]), len(scene["objects"])) for scene in _layout.read_json(listed)["scenes"]]
    except (KeyError, TypeError) as error:
        raise TornFileError(f"{listed}: no scenes: {error!r}", "scenes with image_filename and objects, as they are published") from error
    items = [_layout.Item(f"{folder}/{name}", f"{root}/images/{folder}/{name}", count - _LEAST) for name, count in scenes]
    return _layout.examples("clevr_counts", items, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    needed = [f"{kind.format(name)}" for name in _FOLDERS.values() for kind in ("images/{}", "scenes/CLEVR_{}_scenes.json")]
    return _layout.root_of(path, LAYOUT, needed, ("CLEVR_v1.0", "clevr/CLEVR_v1.0"))
