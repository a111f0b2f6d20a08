"""CINIC-10: CIFAR-10's ten classes at 32 pixels, from CIFAR-10 and ImageNet; 90,000 images each to train, validate and test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, VAL, check_split

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}.", "a blurry photo of a {c}.", "a black and white photo of a {c}.", "a low contrast photo of a {c}.",
    "a high contrast photo of a {c}.", "a bad photo of a {c}.", "a good photo of a {c}.", "a photo of a small {c}.",
    "a photo of a big {c}.", "a photo of the {c}.", "a blurry photo of the {c}.", "a black and white photo of the {c}.",
    "a low contrast photo of the {c}.", "a high contrast photo of the {c}.", "a bad photo of the {c}.", "a good photo of the {c}.",
    "a photo of the small {c}.", "a photo of the big {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "{train,valid,test}/CLASS/*.png, as CINIC-10.tar.gz unpacks"
SHIFTS = {"test_imagenet": "the test images that come from ImageNet", "test_cifar10": "the test images that come from CIFAR-10 itself"}
_FOLDERS = {TRAIN: "train", VAL: "valid", TEST: "test", "test_imagenet": "test", "test_cifar10": "test"}


def splits(path: str) -> list[str]:
    """Return the official splits, and the two parts of the test images by their origin."""
    _root(path)
    return list(_FOLDERS)


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    items = _layout.class_folders(f"{_root(path)}/{_FOLDERS[split]}", CLASSES, LAYOUT)
    if split in SHIFTS:
        own = split == "test_cifar10"
        items = [item for item in items if item.id.rpartition("/")[2].startswith("cifar10-") == own]
    return _layout.examples("cinic10", items, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("train", "valid", "test"), ("CINIC-10", "cinic-10"))
