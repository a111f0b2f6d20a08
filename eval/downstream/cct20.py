"""Caltech Camera Traps-20: 15 kinds of animals and cars by night and day at 20 places. Shifted: places that no training image shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, VAL, check_split
from shards.core import fs
from shards.core.errors import TornFileError, UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "opossum", "raccoon", "squirrel", "bobcat", "skunk", "dog", "coyote", "rabbit", "bird", "cat", "badger", "car", "deer", "fox",
    "rodent",
)  # fmt: skip
TEMPLATES = (
    "a photo of {c}.", "{c} in the wild.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "eccv_18_annotation_files/{train,cis_val,cis_test,trans_val,trans_test}_annotations.json and eccv_18_all_images_sm/*.jpg"
SHIFTS = {
    "trans_val": "validation images of places that training does not have",
    "trans_test": "test images of places that training does not have",
}
_FILES = {TRAIN: "train", VAL: "cis_val", TEST: "cis_test", "trans_val": "trans_val", "trans_test": "trans_test"}
_IMAGES = ("eccv_18_all_images_sm", "eccv_18_all_images_256", "eccv_18_all_images", "eccv_18_images_only")
_EMPTY = "empty"  # category 30: no animal is in the image; the published numbers over 15 classes leave it out


def splits(path: str) -> list[str]:
    """Return the official splits: `val` and `test` are cis (places of training), `trans_val` and `trans_test` other places."""
    _root(path)
    return list(_FILES)


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    root = _root(path)
    listed = fs.join(root, "eccv_18_annotation_files", f"{_FILES[split]}_annotations.json")
    folder = next(fs.join(root, name) for name in _IMAGES if fs.is_dir(fs.join(root, name)))
    files, categories = _read(listed)
    places = {name: label for label, name in enumerate(CLASSES)}
    items, empty, several = [], 0, 0
    for id, names in categories.items():
        shown = names - {_EMPTY}
        empty += not shown
        several += len(shown) > 1
        if len(shown) == 1:
            items.append(_layout.Item(files[id], fs.join(folder, files[id]), places[shown.pop()]))
    found = _layout.examples("cct20", items, CLASSES, TEMPLATES, METRIC)
    found = found.telling(empty, f"[image|images] of {split} without an animal passed over", "category `empty`")
    return found.telling(several, f"[image|images] of {split} with several kinds of animals passed over", "they have no one label")


def _read(path: str) -> tuple[dict[Any, str], dict[Any, set[str]]]:
    """Return the file name and the names of the categories of each image of an annotation file, by its id.

    Raises:
        UsageError: a category that is none of the set.
        TornFileError: the file is of another shape.
    """
    content = _layout.read_json(path)
    try:
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[Any, set[str]] = {id: set() for id in files}
        for annotation in content["annotations"]:
            found[annotation["image_id"]].add(names[annotation["category_id"]])
    except (KeyError, TypeError) as error:
        raise TornFileError(
            f"{path}: no annotations of images: {error!r}", "images, categories and annotations, as they are published"
        ) from error
    strange = sorted({name for shown in found.values() for name in shown} - {*CLASSES, _EMPTY})
    if strange:
        raise UsageError(f"{path}: {strange[0]!r} is no class of the set", ", ".join(CLASSES))
    return files, found


def _root(path: str) -> str:
    lists = [f"eccv_18_annotation_files/{name}_annotations.json" for name in _FILES.values()]
    root = _layout.root_of(path, LAYOUT, lists)
    if not any(fs.is_dir(fs.join(root, name)) for name in _IMAGES):
        raise UsageError(f"{root}: no folder of images", " or ".join(_IMAGES), "unpack eccv_18_all_images_sm.tar.gz there")
    return root
